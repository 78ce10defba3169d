package metadata

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"
)

// Tag is the record of what a tag pointed at when the upstream was last asked.
type Tag struct {
	Descriptor Descriptor
	// CheckedAt is the time of the last check. It is stored in a bucket of its
	// own. The zero time means that a check is due.
	CheckedAt time.Time `json:"-"`
	// GoneSince is when the upstream first said that the tag no longer exists;
	// it is zero while the tag exists. Such a tag is still served if the
	// configuration or a pin asks for that.
	GoneSince time.Time `json:",omitzero"`
	// Imported says where what the tag points at was imported from. It is zero
	// if the upstream itself said so.
	Imported Import `json:",omitzero"`
}

// Import says when something was imported, and from where. An upstream that is
// offline can say nothing newer of it, so it is not stale.
type Import struct {
	At   time.Time
	From string `json:",omitempty"` // what people call it, such as the name of a file
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

// PutTag records what a tag points at, as the upstream said at the time of the
// check, or has just said if that is zero. A [Watch]
// that began earlier has not seen the tag, so it keeps the manifest.
func (l *Ledger) PutTag(repo Repository, tag string, t Tag) {
	defer l.beginChange()()
	l.leases.markLeased(t.Descriptor.Digest)
	key := Key(repo, tag)
	if old, ok := l.decodeTag(key); ok && old.Descriptor.Digest == t.Descriptor.Digest && t.Imported == (Import{}) {
		t.Imported = old.Imported // it is the same, whoever said so since
	}
	l.write(bucketTag, key, t)
	l.removeAbsent(key)
	l.putChecked(key, t, t.CheckedAt)
}

// PutStaleTag records what a tag points at, as a mirror has just said that could
// not ask its own upstream. A check is due, and a tag that is on record stays as
// it is: nothing is known to have changed.
func (l *Ledger) PutStaleTag(repo Repository, tag string, t Tag) {
	defer l.beginChange()()
	key := Key(repo, tag)
	if _, known := l.decodeTag(key); known {
		return
	}
	l.leases.markLeased(t.Descriptor.Digest)
	l.write(bucketTag, key, t)
	l.removeAbsent(key)
	l.records.Delete(bucketChecked, key)
	l.tags.Remove(key)
}

// TouchTag records that the upstream confirmed what t says at a time, or just
// now if that is zero. It ignores a tag that was dropped or has moved meanwhile.
func (l *Ledger) TouchTag(repo Repository, tag string, t Tag, at time.Time) {
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
	l.putChecked(key, now, at)
}

// MarkGone records that the upstream has just said that a tag no longer exists,
// and returns the new record. It returns false for a tag that was dropped or
// has moved meanwhile.
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
	return l.putChecked(key, gone, time.Time{}), true
}

// putChecked records a check that was made at a time, or now if that is zero.
// l.mu is held.
func (l *Ledger) putChecked(key string, t Tag, at time.Time) Tag {
	if t.CheckedAt = at; at.IsZero() {
		t.CheckedAt = time.Now()
	}
	l.records.Put(bucketChecked, key, binary.BigEndian.AppendUint64(nil, uint64(t.CheckedAt.UnixNano())))
	l.tags.Add(key, t)
	return t
}

// DropTag removes a tag.
func (l *Ledger) DropTag(repo Repository, tag string) {
	defer l.beginChange()()
	l.removeTag(Key(repo, tag))
}

// removeTag implements DropTag. l.mu is held.
func (l *Ledger) removeTag(key string) {
	l.records.Delete(bucketTag, key)
	l.records.Delete(bucketChecked, key)
	l.tags.Remove(key)
}

// EachTag calls fn for every tag on record, in the order of the keys. It does
// not read the times of the checks. fn must not call the Ledger.
func (l *Ledger) EachTag(fn func(repo Repository, tag string, d Digest)) error {
	return l.eachTag("", fn)
}

// EachTagOf is EachTag for one repository.
func (l *Ledger) EachTagOf(repo Repository, fn func(tag string, d Digest)) error {
	return l.eachTag(Key(repo, ""), func(_ Repository, tag string, d Digest) { fn(tag, d) })
}

func (l *Ledger) eachTag(prefix string, fn func(repo Repository, tag string, d Digest)) error {
	return l.records.Scan(bucketTag, prefix, func(key string, value []byte) bool {
		var t Tag
		if repo, tag, ok := SplitKey(key); ok && json.Unmarshal(value, &t) == nil {
			fn(repo, tag, t.Descriptor.Digest)
		}
		return true
	})
}

// TagsOf returns the tags of a repository that are on record, sorted.
func (l *Ledger) TagsOf(repo Repository) []string {
	prefix := Key(repo, "")
	all := l.keys(bucketTag, prefix)
	for i, key := range all {
		all[i] = strings.TrimPrefix(key, prefix)
	}
	return all
}

// TagList returns the last complete list of a repository's tags.
func (l *Ledger) TagList(repo Repository) (tags []string, ok bool) {
	if l.read(bucketTagList, Key(repo, ""), &tags) {
		return tags, true
	}
	if l.untagged.Contains(Key(repo, "")) {
		return []string{}, true
	}
	return nil, false
}

// PutTagList records a complete list of a repository's tags. Some registries say
// of any name that it has none. So an empty list is recorded only if something
// of the repository is cached, and is in memory else: whoever asks about
// repositories that do not exist must not make the records grow.
func (l *Ledger) PutTagList(repo Repository, tags []string) {
	key := Key(repo, "")
	if len(tags) > 0 || l.hasManifests(repo) {
		l.untagged.Remove(key)
		l.write(bucketTagList, key, tags)
		return
	}
	if _, err := l.records.Get(bucketTagList, key); err == nil {
		l.DropTagList(repo)
	}
	l.untagged.Add(key, struct{}{})
}

// hasManifests says whether a manifest of a repository is on record.
func (l *Ledger) hasManifests(repo Repository) (has bool) {
	_ = l.records.Scan(bucketManifest, Key(repo, ""), func(string, []byte) bool {
		has = true
		return false
	})
	return has
}

// DropTagList removes the list of a repository's tags.
func (l *Ledger) DropTagList(repo Repository) {
	key := Key(repo, "")
	l.untagged.Remove(key)
	l.records.Delete(bucketTagList, key)
}

// GoneTime is the time since when the tag no longer exists, or zero if it
// exists. A recorded time in the future is not valid; it is then the current
// time.
func (t Tag) GoneTime() time.Time {
	if now := time.Now(); t.GoneSince.After(now) {
		return now.UTC().Truncate(time.Second)
	}
	return t.GoneSince
}
