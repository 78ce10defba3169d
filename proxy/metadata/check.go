package metadata

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Check compares the decoded copies in memory with the records, and returns an
// error that names each difference. It is for tests: a difference is a bug in
// this package.
func (l *Ledger) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(
		check(l.tags, "tag", l.decodeTag),
		check(l.mediaTypes, "manifest", l.decodeMediaType),
		check(l.members, "member", l.decodeMember),
	)
}

func check[V any](decoded *lru.Cache[string, V], what string, decode func(key string) (V, bool)) error {
	var wrong []error
	for _, key := range decoded.Keys() {
		inMemory, _ := decoded.Peek(key)
		onRecord, ok := decode(key)
		if !ok || !reflect.DeepEqual(normalize(inMemory), normalize(onRecord)) {
			wrong = append(wrong, fmt.Errorf("%s %q: %+v is in memory, and %+v (%t) on record", what, strings.ReplaceAll(key, "\x00", " "), inMemory, onRecord, ok))
		}
	}
	return errors.Join(wrong...)
}

// normalize removes what records do not store: the monotonic clock reading of a
// check, and the difference between a nil and an empty list.
func normalize(v any) any {
	switch v := v.(type) {
	case Tag:
		v.CheckedAt = v.CheckedAt.Round(0).Local()
		v.GoneSince = v.GoneSince.Round(0).UTC()
		return fmt.Sprintf("%+v", v)
	}
	return v
}
