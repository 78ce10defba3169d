package metadata

import (
	"encoding/json"
	"strings"
)

// Manifest is the record of a manifest that is cached for a repository, with
// what it references.
type Manifest struct {
	MediaType string
	Size      int64        // in bytes
	Subject   Digest       `json:",omitempty"`
	Children  []Descriptor `json:",omitempty"` // manifests
	Blobs     []Descriptor `json:",omitempty"`
}

// references are the digests of everything that a manifest references, and its
// own.
func (m Manifest) references(own Digest) []Digest {
	all := make([]Digest, 0, len(m.Blobs)+len(m.Children)+1)
	for _, d := range m.Blobs {
		all = append(all, d.Digest)
	}
	for _, d := range m.Children {
		all = append(all, d.Digest)
	}
	return append(all, own)
}

// Manifest returns the record of a manifest.
func (l *Ledger) Manifest(repo Repository, d Digest) (Manifest, bool) {
	key := Key(repo, d.String())
	if m, ok := l.manifests.Get(key); ok {
		return m, true
	}
	before := l.changes.Load()
	m, ok := l.decodeManifest(key)
	if !ok {
		return Manifest{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes.Load() == before {
		l.cacheManifest(key, m)
	}
	return m, true
}

func (l *Ledger) decodeManifest(key string) (Manifest, bool) {
	var m Manifest
	if !l.read(bucketManifest, key, &m) || m.MediaType == "" {
		return Manifest{}, false
	}
	return m, true
}

// cacheManifest adds a decoded record to memory, unless the manifest references
// more than any real manifest does. l.mu is held.
func (l *Ledger) cacheManifest(key string, m Manifest) {
	if len(m.Children)+len(m.Blobs) > maxListInMemory {
		l.manifests.Remove(key)
		return
	}
	l.manifests.Add(key, m)
}

// Find returns the record of a manifest and records that it is used. This is
// atomic: a [Watch] that began earlier does not forget the manifest afterwards.
func (l *Ledger) Find(repo Repository, d Digest) (Manifest, bool) {
	key := Key(repo, d.String())
	for {
		before := l.leases.forgotten.Load()
		m, ok := l.Manifest(repo, d)
		if !ok {
			return Manifest{}, false
		}
		l.mu.Lock()
		if l.leases.forgotten.Load() == before {
			l.use(key)
			l.mu.Unlock()
			return m, true
		}
		l.mu.Unlock() // something was forgotten meanwhile, perhaps this manifest
	}
}

// PutManifest records that a manifest is cached for a repository. Everything
// that the manifest references belongs to the repository as well.
func (l *Ledger) PutManifest(repo Repository, d Digest, m Manifest) {
	l.putMembers(repo, m)
	key, raw := Key(repo, d.String()), encode(bucketManifest, m)
	defer l.beginChange()()
	l.records.Put(bucketManifest, key, raw)
	l.cacheManifest(key, m)
	l.members.Remove(key) // the manifest itself is one, even if only another named it before
}

// removeManifest removes a manifest, what it says of its subject, and the list
// of its own referrers. l.mu is held.
func (l *Ledger) removeManifest(repo Repository, d Digest) {
	key := Key(repo, d.String())
	if m, ok := l.decodeManifest(key); ok && m.Subject != "" {
		l.removeSeen(repo, m.Subject, d)
	}
	l.records.Delete(bucketManifest, key)
	l.manifests.Remove(key)
	l.removeMember(key)
	l.removeSubject(repo, d)
}

// EachManifest calls fn for the record of every manifest, in the order of the
// keys. fn must not call the Ledger.
func (l *Ledger) EachManifest(fn func(repo Repository, d Digest, m Manifest)) error {
	return l.records.Scan(bucketManifest, "", func(key string, value []byte) bool {
		var m Manifest
		if repo, d, ok := SplitKey(key); ok && json.Unmarshal(value, &m) == nil {
			fn(repo, Digest(d), m)
		}
		return true
	})
}

// ManifestsOf returns the records of all manifests of a repository.
func (l *Ledger) ManifestsOf(repo Repository) (map[Digest]Manifest, error) {
	prefix := Key(repo, "")
	all := make(map[Digest]Manifest)
	err := l.records.Scan(bucketManifest, prefix, func(key string, value []byte) bool {
		var m Manifest
		if json.Unmarshal(value, &m) == nil {
			all[Digest(strings.TrimPrefix(key, prefix))] = m
		}
		return true
	})
	return all, err
}
