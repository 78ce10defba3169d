package metadata

import "strings"

// Member is the record of a blob that belongs to a repository.
type Member struct {
	// Size is the blob's size in bytes according to a manifest or the upstream,
	// or -1 if neither gave one.
	Size int64
}

// Member says whether a blob is known to belong to a repository. A manifest
// that is cached for the repository belongs to it too, because some clients
// fetch manifests as blobs.
func (l *Ledger) Member(repo Repository, d Digest) (Member, bool) {
	return load(l, l.members, Key(repo, d.String()), l.decodeMember)
}

func (l *Ledger) decodeMember(key string) (Member, bool) {
	var m Member
	if l.read(bucketMember, key, &m) {
		return m, true
	}
	manifest, ok := l.decodeManifest(key)
	return Member{Size: manifest.Size}, ok
}

// PutMember records that a blob belongs to a repository.
func (l *Ledger) PutMember(repo Repository, d Digest, m Member) {
	key := Key(repo, d.String())
	l.mu.Lock()
	if old, ok := l.members.Get(key); ok && (old == m || m.Size < 0) {
		l.mu.Unlock()
		return
	}
	defer l.endChange()
	l.write(bucketMember, key, m)
	l.members.Add(key, m)
}

// putMembers records the blobs of a manifest as members. Layers with URLs are
// left out: registries do not check that these exist, so anyone who may push a
// manifest could read private blobs by their digests.
func (l *Ledger) putMembers(repo Repository, m Manifest) {
	for _, named := range m.Blobs {
		if len(named.URLs) == 0 {
			l.PutMember(repo, named.Digest, Member{Size: named.Size})
		}
	}
}

// removeMember removes something from a repository. l.mu is held.
func (l *Ledger) removeMember(key string) {
	l.records.Delete(bucketMember, key)
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
