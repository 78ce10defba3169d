package metadata

import (
	"encoding/json"
	"strings"
)

// EachReferrers calls fn for the last complete answer about every subject of a
// repository, or of all repositories if repo is the zero value: for those on
// record in the order of the keys, and then for those that are only remembered.
// The answers are as recorded, without the referrers that were seen since. fn
// must not call the Ledger.
func (l *Ledger) EachReferrers(repo Repository, fn func(repo Repository, subject Digest, r Referrers)) error {
	prefix := ""
	if repo != (Repository{}) {
		prefix = Key(repo, "")
	}
	err := l.records.Scan(bucketReferrers, prefix, func(key string, value []byte) bool {
		var r Referrers
		if repo, subject, ok := SplitKey(key); ok && json.Unmarshal(value, &r) == nil {
			fn(repo, Digest(subject), r)
		}
		return true
	})
	for _, key := range l.unkept.Keys() {
		r, ok := l.unkept.Peek(key)
		if repo, subject, isKey := SplitKey(key); ok && isKey && strings.HasPrefix(key, prefix) {
			fn(repo, Digest(subject), r)
		}
	}
	return err
}

// DropReferrers removes the last complete answer about a subject. What cached
// manifests say about it stays, for as long as they do.
func (l *Ledger) DropReferrers(repo Repository, subject Digest) {
	key := Key(repo, subject.String())
	defer l.beginChange()()
	l.records.Delete(bucketReferrers, key)
	l.unkept.Remove(key)
	l.answers.Remove(key)
}
