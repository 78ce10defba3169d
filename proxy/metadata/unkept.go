package metadata

// maxUnkept is how many empty answers are remembered that are not on record.
const maxUnkept = 4 << 10

// An empty answer about a manifest that is not cached is in memory only, and
// only among the last few: whoever asks about digests that do not exist must not
// make the records grow. It is put on record when the manifest is cached, whose
// next pull may need it. What is listed does exist, and is on record.

// rememberUnkept remembers an empty answer about a manifest that is not cached,
// instead of recording it. It returns false for any other answer. l.mu is held.
func (l *Ledger) rememberUnkept(key string, r Referrers) bool {
	if len(r.Manifests) > 0 || l.isKept(key) {
		return false
	}
	if _, err := l.records.Get(bucketReferrers, key); err == nil {
		l.records.Delete(bucketReferrers, key)
	}
	l.unkept.Add(key, r)
	return true
}

// isKept says whether a manifest is on record.
func (l *Ledger) isKept(key string) bool {
	if l.mediaTypes.Contains(key) {
		return true
	}
	_, err := l.records.Get(bucketManifest, key)
	return err == nil
}

// recordUnkept records what is remembered about a manifest that is cached now.
// l.mu is held.
func (l *Ledger) recordUnkept(key string) {
	r, ok := l.unkept.Peek(key)
	if !ok {
		return
	}
	l.unkept.Remove(key)
	if _, err := l.records.Get(bucketReferrers, key); err != nil {
		l.write(bucketReferrers, key, r)
	}
}
