package metadata

import (
	"encoding/binary"
	"encoding/json"
	"time"
)

// Tag says what a tag pointed at when the upstream was asked last.
type Tag struct {
	Descriptor Descriptor
	// CheckedAt is when that was. It is not stored with the record, but in a
	// bucket of its own; the zero time means that a check is due.
	CheckedAt time.Time `json:"-"`
	// GoneSince is when the upstream first said that the tag does not exist
	// any more, and zero while it does. Such a tag is served because the
	// configuration or a pin asks for that.
	GoneSince time.Time `json:",omitzero"`
}

// Tag returns the record of a tag.
func (l *Ledger) Tag(repo Repository, tag string) (Tag, bool) {
	return load(l, l.tags, Key(repo, tag), l.decodeTag)
}

func (l *Ledger) decodeTag(key string) (Tag, bool) {
	var t Tag
	if !l.read(bucketTag, key, &t) || t.Descriptor.Digest.Validate() != nil {
		return Tag{}, false
	}
	t.CheckedAt = l.checkedAt(key)
	return t, true
}

func (l *Ledger) checkedAt(key string) time.Time {
	b, err := l.records.Get(bucketChecked, key)
	if err != nil || len(b) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b)))
}

// PutTag notes what a tag points at, by the upstream's word of this moment. A
// [Watch] that began before does not know the tag, and lets the manifest stay.
func (l *Ledger) PutTag(repo Repository, tag string, t Tag) {
	defer l.beginChange()()
	l.leases.markLeased(t.Descriptor.Digest)
	key := Key(repo, tag)
	l.write(bucketTag, key, t)
	l.putChecked(key, t)
}

// TouchTag notes that the upstream said at this moment that a tag still points
// where t says. A tag that was dropped or has moved meanwhile is left alone.
func (l *Ledger) TouchTag(repo Repository, tag string, t Tag) {
	defer l.beginChange()()
	key := Key(repo, tag)
	now, ok := l.decodeTag(key)
	if !ok || now.Descriptor.Digest != t.Descriptor.Digest {
		return
	}
	if !now.GoneSince.IsZero() { // it is back
		now.GoneSince = time.Time{}
		l.write(bucketTag, key, now)
	}
	l.putChecked(key, now)
}

// MarkGone notes that the upstream said at this moment that a tag does not
// exist any more, and returns its record. It returns false for a tag that was
// dropped or has moved meanwhile.
func (l *Ledger) MarkGone(repo Repository, tag string, t Tag) (Tag, bool) {
	defer l.beginChange()()
	key := Key(repo, tag)
	gone, ok := l.decodeTag(key)
	if !ok || gone.Descriptor.Digest != t.Descriptor.Digest {
		return Tag{}, false
	}
	if now := time.Now(); gone.GoneSince.IsZero() || gone.GoneSince.After(now) {
		gone.GoneSince = now.UTC().Truncate(time.Second)
		l.write(bucketTag, key, gone)
	}
	return l.putChecked(key, gone), true
}

// putChecked notes a check of this moment. l.mu is held.
func (l *Ledger) putChecked(key string, t Tag) Tag {
	t.CheckedAt = time.Now()
	l.records.Put(bucketChecked, key, binary.BigEndian.AppendUint64(nil, uint64(t.CheckedAt.UnixNano())))
	l.tags.Add(key, t)
	return t
}

// DropTag forgets a tag.
func (l *Ledger) DropTag(repo Repository, tag string) {
	defer l.beginChange()()
	l.removeTag(Key(repo, tag))
}

// removeTag is DropTag. l.mu is held.
func (l *Ledger) removeTag(key string) {
	l.records.Delete(bucketTag, key)
	l.records.Delete(bucketChecked, key)
	l.tags.Remove(key)
}

// EachTag calls fn for every tag on record, without its last check, in the
// order of their keys. fn must not call the Ledger.
func (l *Ledger) EachTag(fn func(repo Repository, tag string, d Digest)) error {
	return l.records.Scan(bucketTag, "", func(key string, value []byte) bool {
		var t Tag
		if repo, tag, ok := SplitKey(key); ok && json.Unmarshal(value, &t) == nil {
			fn(repo, tag, t.Descriptor.Digest)
		}
		return true
	})
}

// TagList returns the last complete list of a repository's tags.
func (l *Ledger) TagList(repo Repository) (tags []string, ok bool) {
	ok = l.read(bucketTagList, Key(repo, ""), &tags)
	return tags, ok
}

// PutTagList notes a complete list of a repository's tags.
func (l *Ledger) PutTagList(repo Repository, tags []string) {
	l.write(bucketTagList, Key(repo, ""), tags)
}

// Gone is since when the tag does not exist any more, and zero where it does. A
// time in the future is no time: then it is gone since now.
func (t Tag) GoneTime() time.Time {
	if now := time.Now(); t.GoneSince.After(now) {
		return now.UTC().Truncate(time.Second)
	}
	return t.GoneSince
}
