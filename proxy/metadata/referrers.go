package metadata

import (
	"encoding/binary"
	"encoding/json"
	"slices"
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
}

// Listed is the last complete answer as it is sent.
type Listed struct {
	At       time.Time // as in Referrers
	WasEmpty bool
	// List is the list. If it is a long one that has been encoded before, it is
	// the zero List, and Digest is that of its bytes.
	List   referrers.List
	Digest Digest
	// Manifests are what it lists; nil if it is a long one.
	Manifests []Descriptor
}

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
	if a, ok := l.answers.Get(key); ok && a.Digest == "" {
		return Referrers{Manifests: a.Manifests, At: a.At, WasEmpty: a.WasEmpty}, true
	}
	return l.decodeReferrers(repo, subject)
}

// Listed is like Referrers, encoded. It returns false as well if a list cannot be
// encoded.
func (l *Ledger) Listed(repo Repository, subject Digest) (Listed, bool) {
	if a, ok := l.answers.Get(Key(repo, subject.String())); ok {
		return a, true
	}
	return l.EncodeReferrers(repo, subject)
}

// EncodeReferrers is Listed of a list that has been encoded before, and is not at
// hand any more. What it returns has a List.
func (l *Ledger) EncodeReferrers(repo Repository, subject Digest) (Listed, bool) {
	before := l.changes.Load()
	r, ok := l.decodeReferrers(repo, subject)
	if !ok {
		return Listed{}, false
	}
	list, err := referrers.NewList(r.Manifests)
	if err != nil {
		return Listed{}, false
	}
	a := Listed{At: r.At, WasEmpty: r.WasEmpty, List: list, Manifests: r.Manifests}
	held := a
	if list.Len() > maxListInMemory || len(list.Bytes()) > maxBytesInMemory {
		a.Manifests, a.Digest = nil, digest.FromBytes(list.Bytes())
		held = a
		held.List = referrers.List{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes.Load() == before {
		l.answers.Add(Key(repo, subject.String()), held)
	}
	return a, true
}

func (l *Ledger) decodeReferrers(repo Repository, subject Digest) (r Referrers, ok bool) {
	key := Key(repo, subject.String())
	if !l.read(bucketReferrers, key, &r) {
		if r, ok = l.unkept.Get(key); !ok {
			return Referrers{}, false
		}
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

// RecordReferrers is PutReferrers for an answer to which the entries attached
// contributed that indexes attach to the subject. If another entry has been
// recorded since, the answer may lack it: then a lookup is due at once.
func (l *Ledger) RecordReferrers(repo Repository, subject Digest, r Referrers, attached []Descriptor) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	for _, now := range l.descriptors(bucketAttached, repo, subject) {
		if !lists(attached, now.Digest) && !lists(r.Manifests, now.Digest) {
			r.At = time.Time{}
		}
	}
	l.answers.Remove(key)
	if l.rememberUnkept(key, r) {
		return
	}
	l.unkept.Remove(key)
	l.write(bucketReferrers, key, r)
}

func lists(all []Descriptor, d Digest) bool {
	return slices.ContainsFunc(all, func(one Descriptor) bool { return one.Digest == d })
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

// Attached returns the entries that indexes of repo attach to subject.
func (l *Ledger) Attached(repo Repository, subject Digest) []Descriptor {
	return l.descriptors(bucketAttached, repo, subject)
}

// PutAttached records that a cached index attaches d to subject. An answer that
// was recorded before does not know of it, so a lookup is due.
func (l *Ledger) PutAttached(repo Repository, subject Digest, d Descriptor) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	if _, err := l.records.Get(bucketAttached, AttachedKey(repo, subject, d.Digest)); err == nil {
		return // it is known already
	}
	l.putDescriptor(bucketAttached, repo, subject, d)
	if l.unkept.Remove(key) {
		l.answers.Remove(key)
	}
	var r Referrers
	if l.read(bucketReferrers, key, &r) && !r.At.IsZero() && !lists(r.Manifests, d.Digest) {
		r.At = time.Time{}
		l.write(bucketReferrers, key, r)
		l.answers.Remove(key)
	}
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
