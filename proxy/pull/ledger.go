package pull

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
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
	// Under bucketAttestation stand the manifests that an index marks as
	// BuildKit's attestations.
	bucketAttestation cache.Bucket = "attestation"
	bucketUsed        cache.Bucket = "used"
	bucketPin         cache.Bucket = "pin"
	// Under bucketAPI stand the endpoints that were seen to have the Referrers
	// API.
	bucketAPI cache.Bucket = "api"
)

// Precious are the buckets that cannot be had back from an upstream that is
// gone: a store of records keeps them twice.
func Precious() []cache.Bucket {
	return []cache.Bucket{bucketTag, bucketManifest, bucketReferrers, bucketPassed, bucketPin, bucketAPI, bucketAttestation}
}

// ledger is what a mirror knows beside the content itself, in words of its own
// over cache.Records. Small answers are kept decoded in memory.
type ledger struct {
	records cache.Records

	// mu is held while a record and what is remembered of it change, and while
	// it is read to be remembered: or else what was dropped meanwhile would be
	// remembered, and served. A hit in memory does without it.
	mu        sync.Mutex
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
	// GoneSince is when the upstream first said that the tag is not there any
	// more; zero where it is. Such a tag is served because somebody wants that.
	GoneSince time.Time `json:",omitzero"`
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
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readTag(key)
}

// readTag remembers what is on record. l.mu is held.
func (l *ledger) readTag(key string) (tagRecord, bool) {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(bucketTag, key, t)
	l.touch(key, t)
}

// touchTag notes that the upstream said just now that the tag still stands. A
// tag that was dropped or has moved meanwhile stays so.
func (l *ledger) touchTag(repo Repository, tag string, t tagRecord) {
	key := recordKey(repo, tag)
	l.mu.Lock()
	defer l.mu.Unlock()
	now, ok := l.readTag(key)
	if !ok || now.Descriptor.Digest != t.Descriptor.Digest {
		return
	}
	if !now.GoneSince.IsZero() { // it is back
		now.GoneSince = time.Time{}
		l.write(bucketTag, key, now)
	}
	l.touch(key, now)
}

// markGone notes that the upstream said just now that the tag is not there any
// more, and returns its record. It is false for a tag that was dropped or has
// moved meanwhile.
func (l *ledger) markGone(repo Repository, tag string, t tagRecord) (tagRecord, bool) {
	key := recordKey(repo, tag)
	l.mu.Lock()
	defer l.mu.Unlock()
	gone, ok := l.readTag(key)
	if !ok || gone.Descriptor.Digest != t.Descriptor.Digest {
		return tagRecord{}, false
	}
	if now := time.Now(); gone.GoneSince.IsZero() || gone.GoneSince.After(now) {
		gone.GoneSince = now.UTC().Truncate(time.Second)
		l.write(bucketTag, key, gone)
	}
	return l.touch(key, gone), true
}

// touch remembers a tag as checked now. l.mu is held.
func (l *ledger) touch(key string, t tagRecord) tagRecord {
	t.CheckedAt = time.Now()
	l.records.Put(bucketChecked, key, binary.BigEndian.AppendUint64(nil, uint64(t.CheckedAt.UnixNano())))
	l.tags.Add(key, t)
	return t
}

func (l *ledger) dropTag(repo Repository, tag string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeTag(recordKey(repo, tag))
}

// dropTagAt drops a tag unless it has moved on from d.
func (l *ledger) dropTagAt(repo Repository, tag string, d Digest) {
	key := recordKey(repo, tag)
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.readTag(key); !ok || t.Descriptor.Digest == d {
		l.removeTag(key)
	}
}

// removeTag is dropTag. l.mu is held.
func (l *ledger) removeTag(key string) {
	l.records.Delete(bucketTag, key)
	l.records.Delete(bucketChecked, key)
	l.tags.Remove(key)
}

func (l *ledger) manifest(repo Repository, d Digest) (manifestRecord, bool) {
	key := recordKey(repo, d.String())
	if m, ok := l.manifests.Get(key); ok {
		return m, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readManifest(key)
}

// readManifest remembers what is on record. l.mu is held.
func (l *ledger) readManifest(key string) (manifestRecord, bool) {
	var m manifestRecord
	if !l.read(bucketManifest, key, &m) || m.MediaType == "" {
		return manifestRecord{}, false
	}
	l.remember(key, m)
	return m, true
}

// putManifest notes that a manifest is kept for a repository, and with it that
// everything the manifest names belongs there.
func (l *ledger) putManifest(repo Repository, d Digest, m manifestRecord) {
	l.putNamed(repo, m)
	key := recordKey(repo, d.String())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(bucketManifest, key, m)
	l.remember(key, m)
}

// remember keeps a manifest's record decoded in memory, unless it names more
// than any honest one does. l.mu is held.
func (l *ledger) remember(key string, m manifestRecord) {
	if len(m.Children)+len(m.Blobs) > maxListInMemory {
		l.manifests.Remove(key)
		return
	}
	l.manifests.Add(key, m)
}

// dropManifest forgets a manifest; unmarked says that no index that is kept
// marks it as an attestation.
func (l *ledger) dropManifest(repo Repository, d Digest, unmarked bool) {
	key := recordKey(repo, d.String())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records.Delete(bucketManifest, key)
	l.manifests.Remove(key)
	l.removeMember(key)
	if unmarked {
		l.records.Delete(bucketAttestation, key)
	}
	l.removeSubject(repo, d)
}

func (l *ledger) dropMember(repo Repository, d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeMember(recordKey(repo, d.String()))
}

// removeMember is dropMember. l.mu is held.
func (l *ledger) removeMember(key string) {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	var m memberRecord
	if !l.read(bucketMember, key, &m) {
		kept, ok := l.readManifest(key)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.members.Get(key); ok && (old == m || m.Size < 0) {
		return
	}
	l.write(bucketMember, key, m)
	l.members.Add(key, m)
}

// dropRepository forgets everything about a repository but pins.
func (l *ledger) dropRepository(repo Repository) {
	prefix := recordKey(repo, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range []cache.Bucket{
		bucketTag, bucketChecked, bucketManifest, bucketMember, bucketTagList, bucketReferrers, bucketPassed, bucketAttached, bucketAttestation, bucketUsed,
	} {
		for _, key := range l.keys(b, prefix) {
			l.records.Delete(b, key)
		}
	}
	forget(l.tags, prefix)
	forget(l.manifests, prefix)
	forget(l.members, prefix)
	forget(l.answers, prefix)
}

// membersOf are the blobs that are known to belong to a repository.
func (l *ledger) membersOf(repo Repository) []Digest {
	prefix := recordKey(repo, "")
	var all []Digest
	for _, key := range l.keys(bucketMember, prefix) {
		all = append(all, Digest(strings.TrimPrefix(key, prefix)))
	}
	return all
}

func (l *ledger) keys(b cache.Bucket, prefix string) (all []string) {
	// What can't be scanned is lost already.
	_ = l.records.Scan(b, prefix, func(key string, _ []byte) bool {
		all = append(all, key)
		return true
	})
	return all
}

func forget[V any](c *lru.Cache[string, V], prefix string) {
	for _, key := range c.Keys() {
		if strings.HasPrefix(key, prefix) {
			c.Remove(key)
		}
	}
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

// repositories are those of which a manifest is kept.
func (l *ledger) repositories() (all []Repository, err error) {
	err = l.records.Scan(bucketManifest, "", func(key string, _ []byte) bool {
		// Keys come in their order.
		if repo, _, ok := splitKey(key); ok && (len(all) == 0 || all[len(all)-1] != repo) {
			all = append(all, repo)
		}
		return true
	})
	return all, err
}

// manifestsOf are the records of the manifests that are kept for a repository.
func (l *ledger) manifestsOf(repo Repository) (map[Digest]manifestRecord, error) {
	prefix := recordKey(repo, "")
	all := make(map[Digest]manifestRecord)
	err := l.records.Scan(bucketManifest, prefix, func(key string, value []byte) bool {
		var m manifestRecord
		if json.Unmarshal(value, &m) == nil {
			all[Digest(strings.TrimPrefix(key, prefix))] = m
		}
		return true
	})
	return all, err
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
