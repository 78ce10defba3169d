package metadata

import (
	"strings"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// Member is the record of a blob that belongs to a repository.
type Member struct {
	// Size is the blob's size in bytes according to a manifest or the upstream,
	// or -1 if neither gave one.
	Size int64
	// Named means that only a manifest says so. See [Ledger.Holds].
	Named bool `json:",omitempty"`
	// Confirmed means that the upstream has said so. See [Member.IsOld].
	Confirmed bool `json:",omitempty"`
}

// IsOld says whether a version of the program has recorded it that did not note
// who says so. It may be a manifest that no registry verifies.
func (m Member) IsOld() bool { return !m.Named && !m.Confirmed }

// Holds says whether what is stored of a blob may be served for a repository.
//
// It may if the upstream has said that the repository has it. If only a manifest
// says so, it may unless the content was fetched with credentials: registries
// verify what a manifest names when it is pushed, but not all do, and none
// verifies everything. What is private to one repository would otherwise be
// served to all who may push a manifest elsewhere.
func (l *Ledger) Holds(repo Repository, d Digest) bool {
	m, known := l.Member(repo, d)
	return known && (!m.Named || !l.IsPrivate(d))
}

// HoldsNamed is Holds for a blob that a manifest of the repository is known to
// name, whatever the records say.
func (l *Ledger) HoldsNamed(repo Repository, d Digest) bool {
	if !l.IsPrivate(d) {
		return true
	}
	m, known := l.Member(repo, d)
	return known && !m.Named
}

// HoldsAll says whether Holds is true for the blobs that a manifest names, but
// for layers with URLs. Of a wide manifest the record does not tell.
func (l *Ledger) HoldsAll(repo Repository, m Manifest) bool {
	if m.Wide {
		return false
	}
	for _, named := range m.Blobs[:min(maxQuestions, len(m.Blobs))] {
		if len(named.URLs) == 0 && !l.Holds(repo, named.Digest) {
			return false
		}
	}
	return true
}

// maxQuestions is for how many blobs of one manifest HoldsAll looks. No real
// image has as many.
const maxQuestions = 1000

// Member says whether a blob is known to belong to a repository. A manifest
// that is cached for the repository belongs to it too, because some clients
// fetch manifests as blobs.
func (l *Ledger) Member(repo Repository, d Digest) (Member, bool) {
	return load(l, l.members, Key(repo, d.String()), l.decodeMember)
}

func (l *Ledger) decodeMember(key string) (m Member, known bool) {
	if l.read(bucketMember, key, &m) {
		if !m.Confirmed && l.has(bucketHeld, key) {
			m.Named, m.Confirmed = false, true
		}
		if m.Confirmed {
			return m, true
		}
		known = true
	}
	if manifest, ok := l.decodeManifest(key); ok {
		return Member{Size: manifest.Size, Confirmed: true}, true
	}
	return m, known
}

// PutMember records that the upstream has said that a blob belongs to a
// repository.
func (l *Ledger) PutMember(repo Repository, d Digest, m Member) {
	key := Key(repo, d.String())
	m.Named, m.Confirmed = false, true
	l.mu.Lock()
	if old, ok := l.members.Get(key); ok && old.Confirmed && (old == m || m.Size < 0) {
		l.mu.Unlock()
		return
	} else if ok && m.Size < 0 {
		m.Size = old.Size
	}
	defer l.endChange()
	l.write(bucketMember, key, m)
	l.members.Add(key, m)
}

// DropOldMember forgets what an older version of the program has recorded: the
// upstream says that the repository does not have the blob.
func (l *Ledger) DropOldMember(repo Repository, d Digest) {
	defer l.beginChange()()
	key := Key(repo, d.String())
	if m, known := l.decodeMember(key); known && m.IsOld() {
		l.removeMember(key)
	}
}

// PutHeld is PutMember for an answer that must not be lost, because without it
// the content would not be served while the upstream can't be asked.
func (l *Ledger) PutHeld(repo Repository, d Digest, m Member) {
	l.PutMember(repo, d, m)
	if key := Key(repo, d.String()); !l.has(bucketHeld, key) {
		l.records.Put(bucketHeld, key, []byte{1})
	}
}

// putMembers records the blobs of a manifest as members, if registries verify
// that the repository has them when such a manifest is pushed. Layers with URLs
// are left out: registries do not check that these exist, so anyone who may push
// a manifest could read private blobs by their digests.
func (l *Ledger) putMembers(repo Repository, m Manifest) {
	if !referrers.NamesVerifiedBlobs(m.MediaType) {
		return
	}
	for _, named := range m.Blobs {
		if len(named.URLs) == 0 {
			l.putNamed(Key(repo, named.Digest.String()), named.Size, true)
		}
	}
}

// PutNamed records that a manifest names a blob of a repository.
func (l *Ledger) PutNamed(repo Repository, d Digest, size int64) {
	l.putNamed(Key(repo, d.String()), size, true)
}

// putNamed records a member that a manifest names, unless more is known. It adds
// a copy to memory if that is wanted.
func (l *Ledger) putNamed(key string, size int64, inMemory bool) {
	if _, ok := l.members.Get(key); ok {
		return
	}
	var old Member
	if l.read(bucketMember, key, &old) && (!old.Named || old.Size == size) {
		return
	}
	m := Member{Size: size, Named: true}
	defer l.beginChange()()
	if now, ok := l.members.Get(key); ok && !now.Named {
		return // the upstream has said so meanwhile
	}
	l.write(bucketMember, key, m)
	if l.members.Remove(key); inMemory && !l.has(bucketHeld, key) {
		l.members.Add(key, m)
	}
}

// removeMember removes something from a repository. l.mu is held.
func (l *Ledger) removeMember(key string) {
	l.records.Delete(bucketMember, key)
	l.records.Delete(bucketHeld, key)
	l.members.Remove(key)
}

// MembersOf returns the blobs that are known to belong to a repository.
func (l *Ledger) MembersOf(repo Repository) []Digest {
	prefix := Key(repo, "")
	var all []Digest
	for _, key := range l.keys(bucketMember, prefix) {
		all = append(all, Digest(strings.TrimPrefix(key, prefix)))
	}
	return all
}
