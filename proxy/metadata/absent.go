package metadata

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// A "no" is part of what was pulled: clients ask for tags that need not exist,
// and go on if they do not. So that an upstream has said that a tag does not
// exist is on record, for when it can't be asked.
//
// Whoever asks about tags that do not exist must not make the records grow. So
// it is only recorded of repositories of which something is cached, and of each
// only the last few are kept. Of the tags under which cosign attaches something
// to a cached manifest each is kept, as long as the manifest is.

const (
	// absentTTL is how long the word of an upstream stands in that a tag does not
	// exist.
	absentTTL = time.Hour
	// maxAbsent is how many of a repository are recorded.
	maxAbsent = 64
)

// PutAbsent records that the upstream said at a time that a tag does not exist.
func (l *Ledger) PutAbsent(repo Repository, tag string, at time.Time) {
	key := Key(repo, tag)
	value := binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano()))
	if subject, ok := referrers.CosignSubjectOf(tag); ok {
		defer l.beginChange()()
		if l.isKept(Key(repo, subject.String())) {
			l.records.Put(bucketUnattached, key, value)
		}
		return
	}
	if !l.hasManifests(repo) {
		return
	}
	defer l.beginChange()()
	if !l.has(bucketAbsent, key) {
		l.dropOldestAbsent(Key(repo, ""), maxAbsent-1)
	}
	l.records.Put(bucketAbsent, key, value)
}

// dropOldestAbsent removes all but the last few of a repository. l.mu is held.
func (l *Ledger) dropOldestAbsent(prefix string, most int) {
	type absent struct {
		key string
		at  time.Time
	}
	var all []absent
	// What cannot be scanned is lost.
	_ = l.records.Scan(bucketAbsent, prefix, func(key string, value []byte) bool {
		all = append(all, absent{key, timeOf(value)})
		return true
	})
	slices.SortFunc(all, func(a, b absent) int { return a.at.Compare(b.at) })
	for i, a := range all {
		if len(all)-i > most || time.Since(a.at) >= absentTTL {
			l.records.Delete(bucketAbsent, a.key)
		}
	}
}

// IsAbsent says whether the upstream's word that a tag does not exist may stand
// in for an answer, because it cannot be asked. It is an hour old at most; of
// what would be attached to a cached manifest it stands as long as the manifest
// is cached.
func (l *Ledger) IsAbsent(repo Repository, tag string) bool {
	key := Key(repo, tag)
	if subject, ok := referrers.CosignSubjectOf(tag); ok {
		return l.HasManifest(repo, subject) && l.has(bucketUnattached, key)
	}
	value, err := l.records.Get(bucketAbsent, key)
	age := time.Since(timeOf(value))
	return err == nil && age >= 0 && age < absentTTL // a time in the future is not valid
}

// removeAbsent forgets that a tag does not exist, which does now. l.mu is held.
func (l *Ledger) removeAbsent(key string) {
	for _, b := range absentBuckets {
		if l.has(b, key) {
			l.records.Delete(b, key)
		}
	}
}

// removeUnattached removes what is known not to be attached to a manifest. l.mu
// is held.
func (l *Ledger) removeUnattached(repo Repository, subject Digest) {
	for _, tag := range referrers.CosignTags(subject) {
		if key := Key(repo, tag.Tag); l.has(bucketUnattached, key) {
			l.records.Delete(bucketUnattached, key)
		}
	}
}

// timeOf is a recorded time, or the zero time.
func timeOf(value []byte) time.Time {
	if len(value) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(value)))
}
