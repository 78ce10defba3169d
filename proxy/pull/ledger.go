package pull

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/cache"
)

// The buckets of the ledger. A tag's digest and the time of its last check are
// kept apart: the one is precious and changes rarely, the other is neither.
const (
	bucketTag      cache.Bucket = "tag"
	bucketChecked  cache.Bucket = "checked"
	bucketManifest cache.Bucket = "manifest"
	bucketMember   cache.Bucket = "member"
	bucketTagList  cache.Bucket = "taglist"
	// Under bucketReferrers stand whole answers; under bucketPassed and
	// bucketAttached what was seen of a subject in manifests that were kept.
	bucketReferrers cache.Bucket = "referrers"
	bucketPassed    cache.Bucket = "passed"
	bucketAttached  cache.Bucket = "attached"
	bucketUsed      cache.Bucket = "used"
	bucketPin       cache.Bucket = "pin"
)

// Precious are the buckets that cannot be had back from an upstream that is
// gone: a store of records keeps them twice.
func Precious() []cache.Bucket {
	return []cache.Bucket{bucketTag, bucketManifest, bucketReferrers, bucketPassed, bucketPin}
}

// ledger is what a mirror knows beside the content itself, in words of its own
// over cache.Records. Small answers are kept decoded in memory.
type ledger struct {
	records   cache.Records
	tags      *lru.Cache[string, tagRecord]
	manifests *lru.Cache[string, manifestRecord]
	members   *lru.Cache[string, memberRecord]
	answers   *lru.Cache[string, referrersRecord]
}

// tagRecord says what a tag pointed at when the upstream was asked last.
type tagRecord struct {
	Descriptor Descriptor
	// CheckedAt is not stored with the record; it has its own bucket.
	CheckedAt time.Time `json:"-"`
}

// manifestRecord says that a manifest is kept for a repository.
type manifestRecord struct {
	MediaType string
	Size      int64
	Subject   Digest       `json:",omitempty"`
	Children  []Descriptor `json:",omitempty"`
	Blobs     []Descriptor `json:",omitempty"`
}

// memberRecord says that a blob belongs to a repository.
type memberRecord struct {
	// Size is the size in bytes as the manifest or the upstream told it, -1
	// where nobody did.
	Size int64
}

func newLedger(records cache.Records) *ledger {
	return &ledger{
		records:   records,
		tags:      newLRU[tagRecord](16 << 10),
		manifests: newLRU[manifestRecord](8 << 10),
		members:   newLRU[memberRecord](64 << 10),
		answers:   newLRU[referrersRecord](1 << 10),
	}
}

func newLRU[V any](size int) *lru.Cache[string, V] {
	c, err := lru.New[string, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// recordKey joins what names a record. No part can hold the separator: names,
// tags and digests are checked against their grammars before they come here.
func recordKey(repo Repository, last string) string {
	return repo.Upstream + "\x00" + repo.Name + "\x00" + last
}

func (l *ledger) tag(repo Repository, tag string) (tagRecord, bool) {
	key := recordKey(repo, tag)
	if t, ok := l.tags.Get(key); ok {
		return t, true
	}
	var t tagRecord
	if !l.read(bucketTag, key, &t) || t.Descriptor.Digest.Validate() != nil {
		return tagRecord{}, false
	}
	t.CheckedAt = l.checkedAt(key)
	l.tags.Add(key, t)
	return t, true
}

// checkedAt is the zero time where no check is on record: then one is due.
func (l *ledger) checkedAt(key string) time.Time {
	b, err := l.records.Get(bucketChecked, key)
	if err != nil || len(b) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b)))
}

func (l *ledger) putTag(repo Repository, tag string, t tagRecord) {
	key := recordKey(repo, tag)
	l.write(bucketTag, key, t)
	l.touch(key, t)
}

// touchTag notes that the upstream said just now that the tag still stands.
func (l *ledger) touchTag(repo Repository, tag string, t tagRecord) {
	l.touch(recordKey(repo, tag), t)
}

func (l *ledger) touch(key string, t tagRecord) {
	t.CheckedAt = time.Now()
	l.records.Put(bucketChecked, key, binary.BigEndian.AppendUint64(nil, uint64(t.CheckedAt.UnixNano())))
	l.tags.Add(key, t)
}

func (l *ledger) dropTag(repo Repository, tag string) {
	key := recordKey(repo, tag)
	l.records.Delete(bucketTag, key)
	l.records.Delete(bucketChecked, key)
	l.tags.Remove(key)
}

func (l *ledger) manifest(repo Repository, d Digest) (manifestRecord, bool) {
	key := recordKey(repo, d.String())
	if m, ok := l.manifests.Get(key); ok {
		return m, true
	}
	var m manifestRecord
	if !l.read(bucketManifest, key, &m) || m.MediaType == "" {
		return manifestRecord{}, false
	}
	l.manifests.Add(key, m)
	return m, true
}

// putManifest notes that a manifest is kept for a repository, and with it that
// everything the manifest names belongs there.
func (l *ledger) putManifest(repo Repository, d Digest, m manifestRecord) {
	l.putNamed(repo, m)
	key := recordKey(repo, d.String())
	l.write(bucketManifest, key, m)
	l.manifests.Add(key, m)
}

func (l *ledger) dropManifest(repo Repository, d Digest) {
	key := recordKey(repo, d.String())
	l.records.Delete(bucketManifest, key)
	l.manifests.Remove(key)
	l.dropMember(repo, d)
	l.dropSubject(repo, d)
}

func (l *ledger) dropMember(repo Repository, d Digest) {
	key := recordKey(repo, d.String())
	l.records.Delete(bucketMember, key)
	l.members.Remove(key)
}

// putNamed notes the blobs of a manifest as members. To be named with URLs is
// not to be held: registries take such layers unseen, and whoever may push one
// manifest would read every private blob by its digest.
func (l *ledger) putNamed(repo Repository, m manifestRecord) {
	for _, named := range m.Blobs {
		if len(named.URLs) == 0 {
			l.putMember(repo, named.Digest, memberRecord{Size: named.Size})
		}
	}
}

// member says whether a blob is known to belong to a repository. A manifest
// that is kept for the repository belongs to it as well: some clients fetch
// manifests as blobs.
func (l *ledger) member(repo Repository, d Digest) (memberRecord, bool) {
	key := recordKey(repo, d.String())
	if m, ok := l.members.Get(key); ok {
		return m, true
	}
	var m memberRecord
	if !l.read(bucketMember, key, &m) {
		kept, ok := l.manifest(repo, d)
		if !ok {
			return memberRecord{}, false
		}
		m.Size = kept.Size
	}
	l.members.Add(key, m)
	return m, true
}

func (l *ledger) putMember(repo Repository, d Digest, m memberRecord) {
	key := recordKey(repo, d.String())
	if old, ok := l.members.Get(key); ok && (old == m || m.Size < 0) {
		return
	}
	l.write(bucketMember, key, m)
	l.members.Add(key, m)
}

// reindex notes anew what the manifests on record name, after the records of
// members were lost.
func (l *ledger) reindex() (manifests int, err error) {
	type entry struct {
		repo Repository
		rec  manifestRecord
	}
	var found []entry
	err = l.records.Scan(bucketManifest, "", func(key string, value []byte) bool {
		parts := strings.SplitN(key, "\x00", 3)
		var rec manifestRecord
		if len(parts) == 3 && json.Unmarshal(value, &rec) == nil {
			found = append(found, entry{Repository{parts[0], parts[1]}, rec})
		}
		return true
	})
	for _, e := range found {
		l.putNamed(e.repo, e.rec)
	}
	return len(found), err
}

// tagList is the last full list of a repository's tags.
func (l *ledger) tagList(repo Repository) (tags []string, ok bool) {
	ok = l.read(bucketTagList, recordKey(repo, ""), &tags)
	return tags, ok
}

func (l *ledger) putTagList(repo Repository, tags []string) {
	l.write(bucketTagList, recordKey(repo, ""), tags)
}

// read decodes a record; a record that can't be read is as good as none.
func (l *ledger) read(b cache.Bucket, key string, into any) bool {
	raw, err := l.records.Get(b, key)
	return err == nil && json.Unmarshal(raw, into) == nil
}

func (l *ledger) write(b cache.Bucket, key string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("record of %s: %v", b, err)) // only for types that JSON lacks
	}
	l.records.Put(b, key, raw)
}
