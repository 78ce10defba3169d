package metadata

import (
	"encoding/json"
	"strings"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// Manifest is the record of a manifest that is cached for a repository, with
// what it references.
type Manifest struct {
	MediaType string
	Size      int64        // in bytes
	Subject   Digest       `json:",omitempty"`
	Children  []Descriptor `json:",omitempty"` // manifests
	Blobs     []Descriptor `json:",omitempty"`
	// Wide means that Children and Blobs are only the first of what it
	// references, so that a record is small whatever that is. Its content says
	// what the others are.
	Wide bool `json:",omitempty"`
	// Names are all that a wide manifest references, while it is being stored.
	Names *referrers.NameSet `json:"-"`
}

// references are the digests of what a manifest references according to its
// record, and its own.
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

// Manifest returns the record of a manifest. It decodes it, which takes as long
// as what it references; [Ledger.HasManifest] and [Ledger.Find] do not.
func (l *Ledger) Manifest(repo Repository, d Digest) (Manifest, bool) {
	return l.decodeManifest(Key(repo, d.String()))
}

// HasManifest says whether a manifest is on record.
func (l *Ledger) HasManifest(repo Repository, d Digest) bool {
	_, ok := l.mediaType(Key(repo, d.String()))
	return ok
}

// mediaType returns the media type of a manifest that is on record: all that an
// answer needs of the record.
func (l *Ledger) mediaType(key string) (string, bool) {
	return load(l, l.mediaTypes, key, l.decodeMediaType)
}

func (l *Ledger) decodeMediaType(key string) (string, bool) {
	var m struct{ MediaType string }
	ok := l.read(bucketManifest, key, &m)
	return m.MediaType, ok && m.MediaType != ""
}

func (l *Ledger) decodeManifest(key string) (Manifest, bool) {
	var m Manifest
	if !l.read(bucketManifest, key, &m) || m.MediaType == "" {
		return Manifest{}, false
	}
	return m, true
}

// Find returns the media type of a manifest that is on record, and records that
// it is used. This is atomic: a [Watch] that began earlier does not forget the
// manifest afterwards.
func (l *Ledger) Find(repo Repository, d Digest) (mediaType string, ok bool) {
	key := Key(repo, d.String())
	for {
		before := l.leases.forgotten.Load()
		mediaType, ok := l.mediaType(key)
		if !ok {
			return "", false
		}
		l.mu.Lock()
		if l.leases.forgotten.Load() == before {
			l.use(key)
			l.mu.Unlock()
			return mediaType, true
		}
		l.mu.Unlock() // something was forgotten meanwhile, perhaps this manifest
	}
}

// Recall is Find for a manifest whose record is in memory. It reads no record.
func (l *Ledger) Recall(repo Repository, d Digest) (mediaType string, ok bool) {
	key := Key(repo, d.String())
	before := l.leases.forgotten.Load()
	if mediaType, ok = l.mediaTypes.Get(key); !ok {
		return "", false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leases.forgotten.Load() != before {
		return "", false
	}
	l.use(key)
	return mediaType, true
}

// PutManifest records that a manifest is cached for a repository. Everything
// that the manifest references belongs to the repository as well.
func (l *Ledger) PutManifest(repo Repository, d Digest, m Manifest) {
	key, raw := Key(repo, d.String()), encode(bucketManifest, m)
	if !m.Wide {
		l.putMembers(repo, m)
	}
	defer l.beginChange()()
	if m.Wide {
		l.records.Put(bucketWide, key, []byte(m.MediaType))
	}
	l.records.Put(bucketManifest, key, raw)
	l.mediaTypes.Add(key, m.MediaType)
	l.members.Remove(key) // the manifest itself is one, even if only another named it before
	l.recordUnkept(key)
}

// removeManifest removes a manifest, what it says of its subject, and the list
// of its own referrers. l.mu is held.
func (l *Ledger) removeManifest(repo Repository, d Digest) {
	key := Key(repo, d.String())
	m, ok := l.decodeManifest(key)
	if ok && m.Subject != "" {
		l.removeSeen(repo, m.Subject, d)
		l.lookUpAgain(Key(repo, m.Subject.String()), d)
	}
	if m.Wide {
		l.records.Delete(bucketWide, key)
	}
	l.records.Delete(bucketManifest, key)
	l.mediaTypes.Remove(key)
	l.removeMember(key)
	l.removeSubject(repo, d)
	l.removeUnattached(repo, d)
}

// WideManifest is a manifest whose record does not have all that it references.
type WideManifest struct {
	Digest    Digest
	MediaType string
}

// WideManifests returns these manifests of a repository.
func (l *Ledger) WideManifests(repo Repository) (all []WideManifest) {
	prefix := Key(repo, "")
	// Records that cannot be scanned are lost. The upstream is asked then.
	_ = l.records.Scan(bucketWide, prefix, func(key string, value []byte) bool {
		all = append(all, WideManifest{Digest(strings.TrimPrefix(key, prefix)), string(value)})
		return true
	})
	return all
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
