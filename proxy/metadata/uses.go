package metadata

import (
	"context"
	"encoding/binary"
	"time"
)

const (
	// saveInterval is how often uses are written to the records.
	saveInterval = 10 * time.Second
	// saveBatch is how many uses are written while the lock is held.
	saveBatch = 256
)

// uses holds when content was last used: manifests by repository and digest,
// blobs by digest. Recording a use costs one write to a map.
type uses struct {
	unsaved map[string]int64 // Unix nanoseconds; not in the records yet
}

// UseManifest records that a manifest of a repository is used.
func (l *Ledger) UseManifest(repo Repository, d Digest) { l.noteUse(Key(repo, d.String())) }

// UseBlob records that a blob is used.
func (l *Ledger) UseBlob(d Digest) { l.noteUse(string(d)) }

func (l *Ledger) noteUse(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.use(key)
}

// use records a use. l.mu is held.
func (l *Ledger) use(key string) {
	l.uses.unsaved[key] = time.Now().UnixNano()
	if w := l.leases.watch; w != nil {
		w.used[key] = true
	}
}

// ManifestUse returns when a manifest was last used, in Unix nanoseconds, or 0
// if that is not known.
func (l *Ledger) ManifestUse(repo Repository, d Digest) int64 {
	return l.lastUse(Key(repo, d.String()))
}

// BlobUse returns the same for a blob.
func (l *Ledger) BlobUse(d Digest) int64 { return l.lastUse(string(d)) }

func (l *Ledger) lastUse(key string) int64 {
	l.mu.Lock()
	at, ok := l.uses.unsaved[key]
	l.mu.Unlock()
	if ok {
		return PastUse(at)
	}
	b, err := l.records.Get(bucketUsed, key)
	if err != nil || len(b) != 8 {
		return 0
	}
	return PastUse(int64(binary.BigEndian.Uint64(b)))
}

// clockError is how far a clock may be set back without the times of uses losing
// their meaning. Clocks are corrected all the time.
const clockError = time.Hour

// PastUse returns the time of a use, or 0 if that is in the future: the clock was
// wrong then or is wrong now, and what was used last is not known. Otherwise it
// would never be evicted.
func PastUse(at int64) int64 {
	if at > time.Now().Add(clockError).UnixNano() {
		return 0
	}
	return at
}

// DropBlobUse removes the record of when a blob was last used.
func (l *Ledger) DropBlobUse(d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeUse(string(d))
}

// removeUse removes a use. l.mu is held.
func (l *Ledger) removeUse(key string) {
	delete(l.uses.unsaved, key)
	l.records.Delete(bucketUsed, key)
}

// SaveUses writes uses to the records, a batch at a time.
func (l *Ledger) SaveUses() {
	l.mu.Lock()
	left := len(l.uses.unsaved)
	l.mu.Unlock()
	for left > 0 {
		l.mu.Lock()
		n := 0
		for key, at := range l.uses.unsaved {
			l.records.Put(bucketUsed, key, binary.BigEndian.AppendUint64(nil, uint64(at)))
			delete(l.uses.unsaved, key)
			if n++; n == saveBatch {
				break
			}
		}
		l.mu.Unlock()
		if left -= saveBatch; n < saveBatch {
			return
		}
	}
}

// Run saves uses periodically until ctx is done, and once more then.
func (l *Ledger) Run(ctx context.Context) {
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.SaveUses()
		case <-ctx.Done():
			l.SaveUses()
			return
		}
	}
}
