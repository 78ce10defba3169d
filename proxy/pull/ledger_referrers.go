package pull

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// referrersRecord is the last whole answer about a subject.
type referrersRecord struct {
	Manifests []Descriptor
	At        time.Time
}

// maxListInMemory is the number of descriptors up to which an answer is kept
// decoded: longer ones are rare, and read from the records each time.
const maxListInMemory = 256

// referrers returns the last whole answer, with what has passed through since.
func (l *ledger) referrers(repo Repository, subject Digest) (referrersRecord, bool) {
	key := recordKey(repo, subject.String())
	if r, ok := l.answers.Get(key); ok {
		return r, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var r referrersRecord
	if !l.read(bucketReferrers, key, &r) {
		return referrersRecord{}, false
	}
	r.Manifests = referrers.Merge(r.Manifests, l.passed(repo, subject))
	if len(r.Manifests) <= maxListInMemory {
		l.answers.Add(key, r)
	}
	return r, true
}

func (l *ledger) putReferrers(repo Repository, subject Digest, r referrersRecord) {
	key := recordKey(repo, subject.String())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(bucketReferrers, key, r)
	l.answers.Remove(key)
}

// doubtNone forgets that nothing refers to a subject, if that is what was known.
func (l *ledger) doubtNone(repo Repository, subject Digest) {
	key := recordKey(repo, subject.String())
	l.mu.Lock()
	defer l.mu.Unlock()
	var r referrersRecord
	if l.read(bucketReferrers, key, &r) && len(r.Manifests) == 0 {
		l.records.Delete(bucketReferrers, key)
		l.answers.Remove(key)
	}
}

// passed are the manifests with that subject that were kept for repo.
func (l *ledger) passed(repo Repository, subject Digest) []Descriptor {
	return l.under(bucketPassed, repo, subject)
}

func (l *ledger) putPassed(repo Repository, subject Digest, d Descriptor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putUnder(bucketPassed, repo, subject, d)
	l.answers.Remove(recordKey(repo, subject.String()))
}

func (l *ledger) dropPassed(repo Repository, subject, d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removePassed(repo, subject, d)
}

// removePassed is dropPassed. l.mu is held.
func (l *ledger) removePassed(repo Repository, subject, d Digest) {
	key := recordKey(repo, subject.String())
	l.records.Delete(bucketPassed, key+"\x00"+d.String())
	l.answers.Remove(key)
}

// attached are the entries that an index of repo attaches to subject.
func (l *ledger) attached(repo Repository, subject Digest) []Descriptor {
	return l.under(bucketAttached, repo, subject)
}

func (l *ledger) putAttached(repo Repository, subject Digest, d Descriptor) {
	l.putUnder(bucketAttached, repo, subject, d)
}

// isAttestation says whether an index of repo that was kept marks a manifest as
// BuildKit's attestation.
func (l *ledger) isAttestation(repo Repository, d Digest) bool {
	_, err := l.records.Get(bucketAttestation, recordKey(repo, d.String()))
	return err == nil
}

func (l *ledger) putAttestation(repo Repository, d Digest) {
	l.records.Put(bucketAttestation, recordKey(repo, d.String()), []byte{1})
}

func (l *ledger) dropAttestation(repo Repository, d Digest) {
	l.records.Delete(bucketAttestation, recordKey(repo, d.String()))
}

func (l *ledger) dropAttached(repo Repository, subject, d Digest) {
	l.records.Delete(bucketAttached, attachedKey(repo, subject, d))
}

func attachedKey(repo Repository, subject, d Digest) string {
	return recordKey(repo, subject.String()) + "\x00" + d.String()
}

func (l *ledger) under(b cache.Bucket, repo Repository, subject Digest) []Descriptor {
	var list []Descriptor
	// Records that can't be scanned are records that are lost: the sources
	// upstream are asked all the same.
	_ = l.records.Scan(b, recordKey(repo, subject.String())+"\x00", func(_ string, value []byte) bool {
		var d Descriptor
		if json.Unmarshal(value, &d) == nil && d.Digest.Validate() == nil {
			list = append(list, d)
		}
		return true
	})
	return list
}

func (l *ledger) putUnder(b cache.Bucket, repo Repository, subject Digest, d Descriptor) {
	l.write(b, recordKey(repo, subject.String())+"\x00"+d.Digest.String(), d)
}

// removeSubject forgets what refers to a manifest. What an index attaches to it
// goes with the index. l.mu is held.
func (l *ledger) removeSubject(repo Repository, subject Digest) {
	for _, d := range l.passed(repo, subject) {
		l.removePassed(repo, subject, d.Digest)
	}
	key := recordKey(repo, subject.String())
	l.records.Delete(bucketReferrers, key)
	l.answers.Remove(key)
}

// RememberReferrersAPI says whether an endpoint of an upstream was seen to have
// the Referrers API, in this process or an earlier one, and returns how to
// remember that it was. After a restart, a page of such an endpoint must not
// pass for an API that was never there.
func RememberReferrersAPI(records cache.Records, upstream, endpoint string) (has bool, saw func()) {
	key := upstream + "\x00" + endpoint
	seen, err := records.Get(bucketAPI, key)
	has = err == nil && len(seen) == 8 && time.Since(time.Unix(int64(binary.BigEndian.Uint64(seen)), 0)) < remembersAPI
	return has, func() {
		records.Put(bucketAPI, key, binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix())))
	}
}

// remembersAPI is how long an endpoint that was seen to have the Referrers API
// is held to it after a restart: one that was replaced by another without it
// can't be told from one that fails.
const remembersAPI = 7 * 24 * time.Hour
