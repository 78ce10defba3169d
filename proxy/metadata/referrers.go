package metadata

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// Referrers is the last complete answer about the referrers of a subject.
type Referrers struct {
	Manifests []Descriptor
	// At is when the upstream said so; if it was asked in several ways, the
	// oldest of them. The zero time means that a lookup is due.
	At time.Time
	// WasEmpty says that the upstream listed none: what is in Manifests was seen
	// since.
	WasEmpty bool `json:"-"`
	// Imported says that the answer was carried here, and was complete where it
	// came from.
	Imported bool `json:",omitempty"`
}

// Listed is the last complete answer as it is sent.
type Listed struct {
	At       time.Time // as in Referrers
	WasEmpty bool
	Imported bool
	// List is the list. If it is a long one that has been encoded before, it is
	// the zero List, and Digest is that of its bytes.
	List   referrers.List
	Digest Digest
	// Manifests are what it lists; nil if it is a long one.
	Manifests []Descriptor

	pending *encoding // of an answer that is being encoded, and has nothing yet
}

// An encoding of a list is under way. It holds the place of the list in memory:
// a change takes it away, like the list itself. So what has been encoded while
// something else changed is held, however long it took.
type encoding struct{ _ byte }

// maxListInMemory is the length up to which a list is held in memory, and
// maxBytesInMemory its size in bytes: what most subjects have, which is asked for
// at each pull and each check. Of a longer one only its digest is held. Whoever
// sends it keeps its bytes where they are counted.
const (
	maxListInMemory  = 256
	maxBytesInMemory = 16 << 10
)

// Referrers returns the last complete answer, merged with the referrers that
// were seen since.
func (l *Ledger) Referrers(repo Repository, subject Digest) (Referrers, bool) {
	key := Key(repo, subject.String())
	if a, ok := l.answers.Get(key); ok && a.Digest == "" && a.pending == nil {
		return Referrers{Manifests: a.Manifests, At: a.At, WasEmpty: a.WasEmpty, Imported: a.Imported}, true
	}
	if a, ok := l.rawAnswer(key); ok {
		return l.decodeReferrers(repo, subject, a)
	}
	return Referrers{}, false
}

// Listed is like Referrers, encoded. It returns false as well if a list cannot be
// encoded.
func (l *Ledger) Listed(repo Repository, subject Digest) (Listed, bool) {
	if a, ok := l.answers.Get(Key(repo, subject.String())); ok && a.pending == nil {
		return a, true
	}
	return l.EncodeReferrers(repo, subject)
}

// ListsAny says whether the last complete answer lists any, or any were seen since.
func (l *Ledger) ListsAny(repo Repository, subject Digest) bool {
	if a, ok := l.Listed(repo, subject); ok {
		return a.Digest != "" || len(a.Manifests) > 0
	}
	r, _ := l.Referrers(repo, subject) // one that cannot be encoded
	return len(r.Manifests) > 0
}

// EncodeReferrers is Listed of a list that has been encoded before, and is not at
// hand any more. What it returns has a List.
func (l *Ledger) EncodeReferrers(repo Repository, subject Digest) (Listed, bool) {
	key := Key(repo, subject.String())
	before := l.changes.Load()
	a, ok := l.rawAnswer(key)
	if !ok {
		return Listed{}, false // it takes no place of another
	}
	begun, unchanged := l.beginEncoding(key, before)
	if !unchanged {
		if a, ok = l.rawAnswer(key); !ok {
			return Listed{}, false
		}
	}
	r, ok := l.decodeReferrers(repo, subject, a)
	if !ok {
		return Listed{}, false
	}
	list, err := referrers.NewList(r.Manifests)
	if err != nil {
		return Listed{}, false
	}
	as := Listed{At: r.At, WasEmpty: r.WasEmpty, Imported: r.Imported, List: list, Manifests: r.Manifests}
	held := as
	if list.Len() > maxListInMemory || len(list.Bytes()) > maxBytesInMemory {
		as.Manifests, as.Digest = nil, digest.FromBytes(list.Bytes())
		held = as
		held.List = referrers.List{}
	}
	l.endEncoding(key, begun, held)
	return as, true
}

// beginEncoding also says whether nothing at all has changed since.
func (l *Ledger) beginEncoding(key string, since uint64) (_ *encoding, unchanged bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	unchanged = l.changes.Load() == since
	if a, ok := l.answers.Peek(key); ok && a.pending != nil {
		return a.pending, unchanged // the list has not changed since that one began
	}
	begun := &encoding{}
	l.answers.Add(key, Listed{pending: begun})
	return begun, unchanged
}

// endEncoding holds what has been encoded, unless it has changed since.
func (l *Ledger) endEncoding(key string, begun *encoding, as Listed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.answers.Peek(key); ok && a.pending == begun {
		l.answers.Add(key, as)
	}
}

// rawAnswer is an answer that is not decoded yet, or an empty one that is not on
// record.
type rawAnswer struct {
	record []byte // nil if it is not on record
	unkept Referrers
}

func (l *Ledger) rawAnswer(key string) (a rawAnswer, ok bool) {
	record, err := l.records.Get(bucketReferrers, key)
	if err == nil {
		return rawAnswer{record: record}, true
	}
	a.unkept, ok = l.unkept.Get(key)
	return a, ok
}

// decodeReferrers decodes an answer, and merges what was seen since.
func (l *Ledger) decodeReferrers(repo Repository, subject Digest, a rawAnswer) (Referrers, bool) {
	r := a.unkept
	if a.record != nil && json.Unmarshal(a.record, &r) != nil {
		return Referrers{}, false
	}
	r.WasEmpty = len(r.Manifests) == 0
	r.Manifests = referrers.Merge(r.Manifests, l.Seen(repo, subject))
	return r, true
}

// PutReferrers records a complete answer.
func (l *Ledger) PutReferrers(repo Repository, subject Digest, r Referrers) {
	key, raw := Key(repo, subject.String()), encode(bucketReferrers, r)
	defer l.beginChange()()
	l.records.Put(bucketReferrers, key, raw)
	l.answers.Remove(key)
}

// emptyReferrers is a size in bytes that only records of empty answers stay
// below.
const emptyReferrers = 128

// DropEmptyReferrers removes the recorded answer about a subject if it is
// empty.
func (l *Ledger) DropEmptyReferrers(repo Repository, subject Digest) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	if l.unkept.Remove(key) {
		l.answers.Remove(key)
	}
	raw, err := l.records.Get(bucketReferrers, key)
	var r Referrers
	if err == nil && len(raw) < emptyReferrers && json.Unmarshal(raw, &r) == nil && len(r.Manifests) == 0 {
		l.records.Delete(bucketReferrers, key)
		l.answers.Remove(key)
	}
}

// Seen returns the manifests with that subject that have been cached for repo.
func (l *Ledger) Seen(repo Repository, subject Digest) []Descriptor {
	return l.descriptors(bucketSeen, repo, subject)
}

// PutSeen records that a cached manifest has that subject.
func (l *Ledger) PutSeen(repo Repository, subject Digest, d Descriptor) {
	defer l.beginChange()()
	l.putDescriptor(bucketSeen, repo, subject, d)
	l.answers.Remove(Key(repo, subject.String()))
}

// DropSeen removes such a record, because the upstream no longer has the
// manifest.
func (l *Ledger) DropSeen(repo Repository, subject, d Digest) {
	defer l.beginChange()()
	l.removeSeen(repo, subject, d)
}

// removeSeen implements DropSeen. l.mu is held.
func (l *Ledger) removeSeen(repo Repository, subject, d Digest) {
	key := Key(repo, subject.String())
	l.records.Delete(bucketSeen, key+"\x00"+d.String())
	l.answers.Remove(key)
}

// lookUpAgain makes a lookup due about the subject with that key, unless its answer
// lists a manifest that is removed: that was seen since, and the upstream may well
// have it still. l.mu is held.
func (l *Ledger) lookUpAgain(key string, removed Digest) {
	if l.unkept.Remove(key) {
		l.answers.Remove(key)
	}
	answer, err := l.records.Get(bucketReferrers, key)
	var r Referrers
	if err != nil || bytes.Contains(answer, []byte(removed)) || json.Unmarshal(answer, &r) != nil || r.At.IsZero() {
		return
	}
	r.At = time.Time{}
	l.records.Put(bucketReferrers, key, encode(bucketReferrers, r))
	l.answers.Remove(key)
}

// IsAttestation says whether a cached index of repo marks a manifest as a
// BuildKit attestation.
func (l *Ledger) IsAttestation(repo Repository, d Digest) bool {
	_, err := l.records.Get(bucketAttestation, Key(repo, d.String()))
	return err == nil
}

// PutAttestation records that an index marks a manifest as an attestation.
func (l *Ledger) PutAttestation(repo Repository, d Digest) {
	l.records.Put(bucketAttestation, Key(repo, d.String()), []byte{1})
}

// AttachedKey is the key of a manifest that is attached to a subject in a
// repository.
func AttachedKey(repo Repository, subject, d Digest) string {
	return Key(repo, subject.String()) + "\x00" + d.String()
}

func (l *Ledger) descriptors(b cache.Bucket, repo Repository, subject Digest) []Descriptor {
	var list []Descriptor
	// Records that cannot be scanned are lost. The upstream's sources are asked
	// in any case.
	_ = l.records.Scan(b, Key(repo, subject.String())+"\x00", func(_ string, value []byte) bool {
		var d Descriptor
		if json.Unmarshal(value, &d) == nil && d.Digest.Validate() == nil {
			list = append(list, d)
		}
		return true
	})
	return list
}

func (l *Ledger) putDescriptor(b cache.Bucket, repo Repository, subject Digest, d Descriptor) {
	l.write(b, Key(repo, subject.String())+"\x00"+d.Digest.String(), d)
}

// removeSubject removes the list of a manifest's referrers. What was seen
// belongs to the manifest that said it: an index attaches until it is removed,
// and a referrer refers until it is. l.mu is held.
func (l *Ledger) removeSubject(repo Repository, subject Digest) {
	key := Key(repo, subject.String())
	for _, seen := range l.keys(bucketSeen, key+"\x00") {
		if _, err := l.records.Get(bucketManifest, Key(repo, strings.TrimPrefix(seen, key+"\x00"))); err != nil {
			l.records.Delete(bucketSeen, seen) // the referrer is gone already
		}
	}
	l.records.Delete(bucketReferrers, key)
	l.answers.Remove(key)
}

// RememberReferrersAPI says whether an endpoint of an upstream has been seen to
// support the Referrers API, in this process or an earlier one. It also returns
// a function that records that it has. Thanks to this record, an error page
// after a restart is not taken for a registry without the API.
func RememberReferrersAPI(records cache.Records, upstream, endpoint string) (has bool, record func()) {
	key := upstream + "\x00" + endpoint
	seen, err := records.Get(bucketAPI, key)
	if err == nil && len(seen) == 8 {
		age := time.Since(time.Unix(int64(binary.BigEndian.Uint64(seen)), 0))
		has = age > -time.Hour && age < referrersAPITTL // a time in the future is not valid, but for clocks that are a little apart
	}
	return has, func() {
		records.Put(bucketAPI, key, binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())))
	}
}

// referrersAPITTL is how long such a record is valid after a restart. A
// registry that was replaced by one without the API cannot be told from one
// that fails.
const referrersAPITTL = 7 * 24 * time.Hour
