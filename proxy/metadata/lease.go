package metadata

import "sync/atomic"

// leases are what must not be removed now, and who watches for that.
type leases struct {
	// held are the digests of manifests that are on their way to the store and
	// the records, and what these name, with how many of them do.
	held map[Digest]int
	// removing are the digests whose content is being deleted. The channel is
	// closed when that is over.
	removing map[Digest]chan struct{}
	// watch is the one who wants to remove something; nil while nobody does.
	watch *Watch
	// forgotten counts the steps that took manifests off the records.
	forgotten atomic.Uint64
}

// note tells the watch of a digest that must stay. The ledger's lock is held.
func (l *leases) markLeased(d Digest) {
	if l.watch != nil {
		l.watch.leased[d] = true
	}
}

// Lease keeps the content of a manifest, and of everything that it names, from
// being removed until release is called. A manifest is written before it is on
// record, and a [Watch] that begins between the two would see content that
// nothing names. Content that is being removed is waited for, so that nobody
// counts on what is about to go.
func (l *Ledger) Lease(m Manifest, d Digest) (release func()) {
	all := m.references(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaitRemovals(all)
	for _, d := range all {
		l.leases.held[d]++
		l.leases.markLeased(d)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, d := range all {
			if l.leases.held[d]--; l.leases.held[d] == 0 {
				delete(l.leases.held, d)
			}
		}
	}
}

// awaitRemovals returns when none of the digests is being removed. l.mu is held
// before and after, and not while it waits.
func (l *Ledger) awaitRemovals(all []Digest) {
	if len(l.leases.removing) == 0 {
		return
	}
	for i := 0; i < len(all); i++ {
		if over, ok := l.leases.removing[all[i]]; ok {
			l.mu.Unlock()
			<-over
			l.mu.Lock()
			i = -1 // another may have begun meanwhile
		}
	}
}

// A Watch sees what is used and leased while somebody looks for what can be
// removed, so that nothing goes that was needed since. There is one at a time.
type Watch struct {
	l      *Ledger
	leased map[Digest]bool // since the watch began, or then
	used   map[string]bool // manifests and blobs, by their keys
}

// Watch begins a watch. Its caller makes sure that there is no other, and calls
// End.
func (l *Ledger) Watch() *Watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &Watch{l: l, leased: make(map[Digest]bool, len(l.leases.held)), used: make(map[string]bool)}
	for d := range l.leases.held {
		w.leased[d] = true
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

// IsWatched says whether there is a [Watch] now.
func (l *Ledger) IsWatched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases.watch != nil
}

// Named is a manifest of a repository.
type ManifestKey struct {
	Repository Repository
	Digest     Digest
}

// Forget calls forget, which takes manifests off the records, unless one of
// them was used or leased since the watch began. Both is one step: whoever
// finds a manifest on record afterwards finds its content. It returns what
// forget does, and false where that was not called. forget must not call the
// Ledger, other than by the Removal and by IsPinned.
func (w *Watch) ForgetUnused(all []ManifestKey, forget func(Removal) bool) bool {
	defer w.l.beginChange()()
	for _, m := range all {
		if w.leased[m.Digest] || w.used[Key(m.Repository, m.Digest.String())] {
			return false
		}
	}
	defer w.l.leases.forgotten.Add(1)
	return forget(Removal{w})
}

// ForgetAnyway calls forget, whoever uses what it takes off the records.
func (w *Watch) Forget(forget func(Removal)) {
	defer w.l.beginChange()()
	defer w.l.leases.forgotten.Add(1)
	forget(Removal{w})
}

// Remove calls remove, which deletes the content with digest d, unless it was
// leased since the watch began. A lease waits until remove returns. It returns
// what remove does, and false where that was not called.
func (w *Watch) Remove(d Digest, remove func() bool) bool {
	w.l.mu.Lock()
	if w.leased[d] {
		w.l.mu.Unlock()
		return false
	}
	over := make(chan struct{})
	w.l.leases.removing[d] = over
	w.l.mu.Unlock()
	defer func() {
		w.l.mu.Lock()
		defer w.l.mu.Unlock()
		delete(w.l.leases.removing, d)
		close(over)
	}()
	return remove()
}

// Removal takes things off the records while the ledger is locked. What a
// manifest names that was leased since the watch began stays known.
type Removal struct{ w *Watch }

// Manifest forgets a manifest, its uses, and what refers to it. Unmarked says
// that no index that is kept marks it as an attestation.
func (r Removal) DropManifest(repo Repository, d Digest, unmarked bool) {
	key := Key(repo, d.String())
	r.w.l.removeManifest(repo, d)
	r.w.l.removeUse(key)
	if unmarked {
		r.w.l.records.Delete(bucketAttestation, key)
	}
}

// TagAt forgets a tag, unless it points elsewhere than at d now.
func (r Removal) DropTagAt(repo Repository, tag string, d Digest) {
	key := Key(repo, tag)
	if t, ok := r.w.l.decodeTag(key); !ok || t.Descriptor.Digest == d {
		r.w.l.removeTag(key)
	}
}

// Member forgets that a blob belongs to a repository.
func (r Removal) DropMember(repo Repository, d Digest) {
	if !r.w.leased[d] {
		r.w.l.removeMember(Key(repo, d.String()))
	}
}

// Attached forgets that an index attaches d to subject.
func (r Removal) DropAttached(repo Repository, subject, d Digest) {
	if !r.w.leased[d] {
		r.w.l.records.Delete(bucketAttached, AttachedKey(repo, subject, d))
	}
}

// Attestation forgets that an index marks d as an attestation.
func (r Removal) DropAttestation(repo Repository, d Digest) {
	if !r.w.leased[d] {
		r.w.l.records.Delete(bucketAttestation, Key(repo, d.String()))
	}
}
