package metadata

import (
	"context"
	"encoding/binary"
	"time"
)

const (
	// saveUses is how often uses go from memory to the records.
	saveInterval = 10 * time.Second
	// usesAtOnce is how many go there while the lock is held once.
	saveBatch = 256
)

// uses remembers when content was used last: manifests by repository and
// digest, blobs by digest. A use costs a write to a map, nothing more.
type uses struct {
	unsaved map[string]int64 // Unix nanoseconds, not in the records yet
}

// UseManifest notes that a manifest of a repository is used.
func (l *Ledger) UseManifest(repo Repository, d Digest) { l.noteUse(Key(repo, d.String())) }

// UseBlob notes that a blob is used.
func (l *Ledger) UseBlob(d Digest) { l.noteUse(string(d)) }

func (l *Ledger) noteUse(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.use(key)
}

// use notes a use. l.mu is held.
func (l *Ledger) use(key string) {
	l.uses.unsaved[key] = time.Now().UnixNano()
	if w := l.leases.watch; w != nil {
		w.used[key] = true
	}
}

// ManifestUse returns when a manifest was used last, in Unix nanoseconds, and 0
// where that is not known.
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
		return at
	}
	b, err := l.records.Get(bucketUsed, key)
	if err != nil || len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// DropBlobUse forgets when a blob was used.
func (l *Ledger) DropBlobUse(d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeUse(string(d))
}

// removeUse forgets a use. l.mu is held.
func (l *Ledger) removeUse(key string) {
	delete(l.uses.unsaved, key)
	l.records.Delete(bucketUsed, key)
}

// SaveUses moves uses to the records, a part at a time.
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

// Run saves uses now and then until ctx ends, and once more then.
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
