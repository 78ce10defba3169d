package metadata

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Attached returns the entries that indexes of repo attach to subject.
func (l *Ledger) Attached(repo Repository, subject Digest) []Descriptor {
	return l.descriptors(bucketAttached, repo, subject)
}

// RecordReferrers is PutReferrers for an answer to which the entries attached
// contributed that indexes attach to the subject. If another entry has been
// recorded since, the answer may lack it: then a lookup is due at once.
func (l *Ledger) RecordReferrers(repo Repository, subject Digest, r Referrers, attached []Descriptor) {
	known := digestsOf(attached, r.Manifests)
	// A list of thousands takes long to encode, and others wait for the lock.
	raw := encode(bucketReferrers, r)
	for !l.recordReferrers(repo, subject, r, raw, known) {
		r.At = time.Time{}
		raw = encode(bucketReferrers, r)
	}
}

// recordReferrers records an answer that is encoded, unless it lacks an entry and
// does not say that a lookup is due.
func (l *Ledger) recordReferrers(repo Repository, subject Digest, r Referrers, raw []byte, known map[Digest]bool) bool {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	if !r.At.IsZero() && l.attachesOther(key, known) {
		return false
	}
	l.answers.Remove(key)
	if l.rememberUnkept(key, r) {
		return true
	}
	l.unkept.Remove(key)
	l.records.Put(bucketReferrers, key, raw)
	return true
}

// attachesOther says whether an index attaches anything else to the subject with
// that key. l.mu is held.
func (l *Ledger) attachesOther(key string, known map[Digest]bool) (other bool) {
	prefix := key + "\x00"
	// Records that cannot be scanned are lost, as in descriptors.
	_ = l.records.Scan(bucketAttached, prefix, func(key string, value []byte) bool {
		var d Descriptor
		other = !known[Digest(strings.TrimPrefix(key, prefix))] && json.Unmarshal(value, &d) == nil && d.Digest.Validate() == nil
		return !other
	})
	return other
}

func digestsOf(lists ...[]Descriptor) map[Digest]bool {
	all := make(map[Digest]bool)
	for _, list := range lists {
		for _, d := range list {
			all[d.Digest] = true
		}
	}
	return all
}

// PutAttached records that a cached index attaches d to subject. An answer that
// was recorded before does not know of it, so a lookup is due.
func (l *Ledger) PutAttached(repo Repository, subject Digest, d Descriptor) {
	key := Key(repo, subject.String())
	for isRecorded := false; !isRecorded; {
		if l.has(bucketAttached, AttachedKey(repo, subject, d.Digest)) {
			return
		}
		// A list of thousands takes long to decode, and others wait for the lock.
		before := l.changes.Load()
		answer, err := l.records.Get(bucketReferrers, key)
		var due []byte // the same answer, if it has to say that a lookup is due
		var r Referrers
		if err == nil && json.Unmarshal(answer, &r) == nil && !r.At.IsZero() && !digestsOf(r.Manifests)[d.Digest] {
			r.At = time.Time{}
			due = encode(bucketReferrers, r)
		}
		isRecorded = l.putAttached(repo, subject, d, func() bool {
			if l.changes.Load() == before {
				return true
			}
			now, _ := l.records.Get(bucketReferrers, key) // nil if there is none
			return bytes.Equal(now, answer)
		}, due)
	}
}

// putAttached records an entry, and an answer that is due. It returns false if
// the answer on record is not the same any more.
func (l *Ledger) putAttached(repo Repository, subject Digest, d Descriptor, isSame func() bool, due []byte) bool {
	key := Key(repo, subject.String())
	l.mu.Lock()
	if !isSame() {
		l.mu.Unlock()
		return false
	}
	defer l.endChange()
	l.putDescriptor(bucketAttached, repo, subject, d)
	if l.unkept.Remove(key) {
		l.answers.Remove(key)
	}
	if due != nil {
		l.records.Put(bucketReferrers, key, due)
		l.answers.Remove(key)
	}
	return true
}
