package metadata

import (
	"slices"
	"sync/atomic"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// leases are the digests that must not be removed now, and the watch that
// observes them.
type leases struct {
	// held counts, by digest, the leases on manifests that are being stored and
	// on everything that these reference.
	held map[Digest]int
	// wide are the leases on what wide manifests reference.
	wide map[*referrers.NameSet]bool
	// removing are the digests whose content is being deleted. The channel is
	// closed when the deletion is over.
	removing map[Digest]chan struct{}
	// watch is the watch of the goroutine that wants to remove something, or
	// nil.
	watch *Watch
	// forgotten counts how often manifests were removed from the records.
	forgotten atomic.Uint64
}

// markLeased tells the watch that a digest must stay. The ledger's lock is
// held.
func (l *leases) markLeased(d Digest) {
	if l.watch != nil {
		l.watch.leased[d] = true
	}
}

// Lease prevents the content of a manifest, and of everything that it
// references, from being removed until release is called. A manifest is written
// before it is on record; without a lease, a [Watch] that begins in between
// would see content that nothing references. Lease waits for removals of this
// content that have begun, so that the caller does not rely on content that is
// about to disappear.
func (l *Ledger) Lease(m Manifest, d Digest) (release func()) {
	all := m.references(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaitRemovals(all, m.Names)
	for _, d := range all {
		l.leases.held[d]++
		l.leases.markLeased(d)
	}
	if m.Names != nil {
		l.leases.wide[m.Names] = true
		if w := l.leases.watch; w != nil {
			w.wide = append(w.wide, m.Names)
		}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range all {
			if l.leases.held[d]--; l.leases.held[d] == 0 {
				delete(l.leases.held, d)
			}
		}
		delete(l.leases.wide, m.Names)
	}
}

// awaitRemovals returns when none of the digests, nor of the names unless they
// are nil, is being removed. l.mu is held on entry and on return, but not while
// it waits.
func (l *Ledger) awaitRemovals(all []Digest, names *referrers.NameSet) {
	for done := l.leases.removal(all, names); done != nil; done = l.leases.removal(all, names) {
		l.mu.Unlock()
		<-done
		l.mu.Lock() // another removal may have begun meanwhile
	}
}

// removal returns the channel of a removal of one of the digests or of the names,
// or nil.
func (l *leases) removal(all []Digest, names *referrers.NameSet) chan struct{} {
	for d, done := range l.removing {
		if slices.Contains(all, d) || names != nil && names.Has(d) {
			return done
		}
	}
	return nil
}

// A Watch records what is used and leased while its owner looks for content to
// remove, so that nothing is removed that has become needed in the meantime.
// There is one Watch at a time.
type Watch struct {
	l      *Ledger
	leased map[Digest]bool // when the watch began, or since
	wide   []*referrers.NameSet
	used   map[string]bool // manifests and blobs, by their keys
}

// isLeased says whether a digest was leased when the watch began, or since.
func (w *Watch) isLeased(d Digest) bool {
	return w.leased[d] || slices.ContainsFunc(w.wide, func(names *referrers.NameSet) bool { return names.Has(d) })
}

// Watch begins a watch. The caller makes sure that there is no other one, and
// calls End.
func (l *Ledger) Watch() *Watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &Watch{l: l, leased: make(map[Digest]bool, len(l.leases.held)), used: make(map[string]bool)}
	for d := range l.leases.held {
		w.leased[d] = true
	}
	for names := range l.leases.wide {
		w.wide = append(w.wide, names)
	}
	l.leases.watch = w
	return w
}

// End ends the watch.
func (w *Watch) End() {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.leases.watch = nil
}

// IsWatched says whether a [Watch] is active.
func (l *Ledger) IsWatched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases.watch != nil
}

// ManifestKey identifies a manifest in a repository.
type ManifestKey struct {
	Repository Repository
	Digest     Digest
}

// ForgetUnused calls forget, which removes manifests from the records, unless
// one of them was used or leased since the watch began. Check and removal are
// atomic: a manifest that is found on record afterwards has its content.
// ForgetUnused returns the result of forget, or false if it did not call it.
// forget must not call the Ledger, except for the Removal's methods and
// IsPinned.
func (w *Watch) ForgetUnused(all []ManifestKey, forget func(Removal) bool) bool {
	defer w.l.beginChange()()
	for _, m := range all {
		if w.isLeased(m.Digest) || w.used[Key(m.Repository, m.Digest.String())] {
			return false
		}
	}
	defer w.l.leases.forgotten.Add(1)
	return forget(Removal{w})
}

// Forget calls forget, which removes manifests from the records even if they
// are in use.
func (w *Watch) Forget(forget func(Removal)) {
	defer w.l.beginChange()()
	defer w.l.leases.forgotten.Add(1)
	forget(Removal{w})
}

// Remove calls remove, which deletes the content with digest d, unless it was
// leased since the watch began. New leases on d wait until remove returns.
// Remove returns the result of remove, or false if it did not call it.
func (w *Watch) Remove(d Digest, remove func() bool) bool {
	w.l.mu.Lock()
	if w.isLeased(d) {
		w.l.mu.Unlock()
		return false
	}
	done := make(chan struct{})
	w.l.leases.removing[d] = done
	w.l.mu.Unlock()
	defer func() {
		w.l.mu.Lock()
		defer w.l.mu.Unlock()
		delete(w.l.leases.removing, d)
		close(done)
	}()
	return remove()
}

// Removal removes records while the ledger is locked. It keeps the records of
// what was leased since the watch began.
type Removal struct{ w *Watch }

// DropManifest removes a manifest, its last use, and its referrers. With
// unmarked set, no other cached index marks it as an attestation, and that mark
// is removed too.
func (r Removal) DropManifest(repo Repository, d Digest, unmarked bool) {
	key := Key(repo, d.String())
	r.w.l.removeManifest(repo, d)
	r.w.l.removeUse(key)
	if unmarked {
		r.w.l.records.Delete(bucketAttestation, key)
	}
}

// DropTagAt removes a tag, unless it no longer points at d.
func (r Removal) DropTagAt(repo Repository, tag string, d Digest) {
	key := Key(repo, tag)
	if t, ok := r.w.l.decodeTag(key); !ok || t.Descriptor.Digest == d {
		r.w.l.removeTag(key)
	}
}

// DropMember removes a blob from a repository.
func (r Removal) DropMember(repo Repository, d Digest) {
	if !r.w.isLeased(d) {
		r.w.l.removeMember(Key(repo, d.String()))
	}
}

// DropAttached removes the record that an index attaches d to subject.
func (r Removal) DropAttached(repo Repository, subject, d Digest) {
	if !r.w.isLeased(d) {
		r.w.l.records.Delete(bucketAttached, AttachedKey(repo, subject, d))
	}
}

// DropAttestation removes the record that an index marks d as an attestation.
func (r Removal) DropAttestation(repo Repository, d Digest) {
	if !r.w.isLeased(d) {
		r.w.l.records.Delete(bucketAttestation, Key(repo, d.String()))
	}
}
