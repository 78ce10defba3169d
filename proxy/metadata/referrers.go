package metadata

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// Referrers is the last complete answer about a subject.
type Referrers struct {
	Manifests []Descriptor
	At        time.Time
}

// maxListInMemory is the number of descriptors up to which an answer is kept
// decoded: longer ones are rare, and read from the records each time.
const maxListInMemory = 256

// Referrers returns the last complete answer, with what was seen since.
func (l *Ledger) Referrers(repo Repository, subject Digest) (Referrers, bool) {
	key := Key(repo, subject.String())
	if r, ok := l.answers.Get(key); ok {
		return r, true
	}
	before := l.changes.Load()
	var r Referrers
	if !l.read(bucketReferrers, key, &r) {
		return Referrers{}, false
	}
	r.Manifests = referrers.Merge(r.Manifests, l.Seen(repo, subject))
	if len(r.Manifests) > maxListInMemory {
		return r, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes.Load() == before {
		l.answers.Add(key, r)
	}
	return r, true
}

// PutReferrers notes a complete answer.
func (l *Ledger) PutReferrers(repo Repository, subject Digest, r Referrers) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	l.write(bucketReferrers, key, r)
	l.answers.Remove(key)
}

// DoubtNone forgets that nothing refers to a subject, if that is what was known.
func (l *Ledger) DropEmptyReferrers(repo Repository, subject Digest) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	var r Referrers
	if l.read(bucketReferrers, key, &r) && len(r.Manifests) == 0 {
		l.records.Delete(bucketReferrers, key)
		l.answers.Remove(key)
	}
}

// Seen are the manifests that were kept for repo and have that subject.
func (l *Ledger) Seen(repo Repository, subject Digest) []Descriptor {
	return l.descriptors(bucketSeen, repo, subject)
}

// PutSeen notes that a manifest that is kept has that subject.
func (l *Ledger) PutSeen(repo Repository, subject Digest, d Descriptor) {
	defer l.beginChange()()
	l.putDescriptor(bucketSeen, repo, subject, d)
	l.answers.Remove(Key(repo, subject.String()))
}

// DropSeen forgets that, because the upstream does not have the manifest any more.
func (l *Ledger) DropSeen(repo Repository, subject, d Digest) {
	defer l.beginChange()()
	l.removeSeen(repo, subject, d)
}

// removeSeen is DropSeen. l.mu is held.
func (l *Ledger) removeSeen(repo Repository, subject, d Digest) {
	key := Key(repo, subject.String())
	l.records.Delete(bucketSeen, key+"\x00"+d.String())
	l.answers.Remove(key)
}

// Attached are the entries that indexes of repo attach to subject.
func (l *Ledger) Attached(repo Repository, subject Digest) []Descriptor {
	return l.descriptors(bucketAttached, repo, subject)
}

// PutAttached notes that an index that is kept attaches d to subject.
func (l *Ledger) PutAttached(repo Repository, subject Digest, d Descriptor) {
	l.putDescriptor(bucketAttached, repo, subject, d)
}

// IsAttestation says whether an index of repo that was kept marks a manifest as
// BuildKit's attestation.
func (l *Ledger) IsAttestation(repo Repository, d Digest) bool {
	_, err := l.records.Get(bucketAttestation, Key(repo, d.String()))
	return err == nil
}

// PutAttestation notes that an index marks a manifest so.
func (l *Ledger) PutAttestation(repo Repository, d Digest) {
	l.records.Put(bucketAttestation, Key(repo, d.String()), []byte{1})
}

// AttachedKey names what is attached to a subject in a repository.
func AttachedKey(repo Repository, subject, d Digest) string {
	return Key(repo, subject.String()) + "\x00" + d.String()
}

func (l *Ledger) descriptors(b cache.Bucket, repo Repository, subject Digest) []Descriptor {
	var list []Descriptor
	// Records that cannot be scanned are lost: the upstream's sources are asked
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

// removeSubject forgets what refers to a manifest. What an index attaches to it
// goes with the index. l.mu is held.
func (l *Ledger) removeSubject(repo Repository, subject Digest) {
	for _, d := range l.Seen(repo, subject) {
		l.removeSeen(repo, subject, d.Digest)
	}
	key := Key(repo, subject.String())
	l.records.Delete(bucketReferrers, key)
	l.answers.Remove(key)
}

// RememberReferrersAPI says whether an endpoint of an upstream was seen to have
// the Referrers API, in this process or an earlier one, and returns how to
// remember that it was. After a restart, a page of such an endpoint must not
// pass for an API that was never there.
func RememberReferrersAPI(records cache.Records, upstream, endpoint string) (has bool, record func()) {
	key := upstream + "\x00" + endpoint
	seen, err := records.Get(bucketAPI, key)
	has = err == nil && len(seen) == 8 && time.Since(time.Unix(int64(binary.BigEndian.Uint64(seen)), 0)) < referrersAPITTL
	return has, func() {
		records.Put(bucketAPI, key, binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())))
	}
}

// remembersAPI is how long an endpoint that was seen to have the Referrers API
// is held to it after a restart: one that was replaced by another without it
// can't be told from one that fails.
const referrersAPITTL = 7 * 24 * time.Hour
