package retention_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// testDisk stands between a mirror and its cache, and can simulate a power cut:
// at a chosen moment it copies the directory, which is what a power cut would
// leave, while the process continues without noticing. It can also be full.
type testDisk struct {
	t   *testing.T
	dir string

	mu    sync.Mutex
	after int    // steps to the disk until it is cut; 0 means never
	cut   string // the folder as it was then; empty before

	// now is what the model knows, and lasting is what it knew when the records
	// were last durable. They are replaced, never changed.
	now, lasting *known
	atCut        *known
	// put are the current records, and flushed the durable ones.
	put, flushed, flushedAtCut map[cache.Bucket]map[string]string

	trace []string                  // what was published, deleted and counted last
	came  map[retention.Digest]bool // manifests that went on record since the last look
	went  map[string]bool           // manifests that went off the records since the last look, if only for a moment

	drafts drafts

	full    bool // nothing more can be written
	refused int  // writes of content
	sizes   map[retention.Digest]int64
	bound   int64
	over    int64 // the most that was cached above the bound
}

func newTestDisk(t *testing.T, dir string, bound int64, records map[cache.Bucket]map[string]string, blobs cache.Blobs) *testDisk {
	w := &testDisk{t: t, dir: dir, bound: bound, put: clone(records), flushed: clone(records), sizes: map[retention.Digest]int64{}, went: map[string]bool{}, came: map[retention.Digest]bool{}, drafts: newDrafts()}
	err := blobs.Walk(t.Context(), func(d retention.Digest, size int64) bool { w.sizes[d] = size; return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range blobs.AllKept() {
		w.drafts.synced[kept.Digest] = cache.Spans{{To: kept.Size}}
	}
	return w
}

// begin is what the model knows at the start. A manifest whose file is gone is
// not cached; it is new if it comes back.
func (w *testDisk) begin(k *known) *known {
	k = k.clone()
	maps.DeleteFunc(k.had, func(key string, _ map[retention.Digest]bool) bool {
		_, digest, _ := metadata.SplitKey(key)
		return w.sizes[retention.Digest(digest)] == 0
	})
	w.now, w.lasting = k, k
	return k
}

func clone(records map[cache.Bucket]map[string]string) map[cache.Bucket]map[string]string {
	all := map[cache.Bucket]map[string]string{}
	for b, m := range records {
		all[b] = maps.Clone(m)
	}
	return all
}

// cutAfter cuts the power at the n-th step from now. It forgets what was not
// synced, or does not.
func (w *testDisk) cutAfter(n int, forgets bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after, w.drafts.forgets = n, forgets
}

// update records what the model knows now.
func (w *testDisk) update(k *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = k
	clear(w.went)
	clear(w.came)
	clear(w.drafts.lost)
}

// isNew says whether a manifest was recorded since the last observation.
func (w *testDisk) isNew(d retention.Digest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.came[d]
}

// removed are the manifests that were removed from the records since the last
// observation.
func (w *testDisk) removed() (all []retention.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.went {
		_, digest, _ := metadata.SplitKey(key)
		all = append(all, retention.Digest(digest))
	}
	return all
}

// returned is k without the manifests that were removed, and may have come
// back, since the last observation. w.mu is held.
func (w *testDisk) returned(k *known) *known {
	if len(w.went) == 0 {
		return k
	}
	k = k.clone()
	for key := range w.went {
		delete(k.had, key)
	}
	return k
}

// confirm removes from what was durable the manifests that were not found after
// a crash.
func (w *testDisk) confirm(found *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lasting = w.lasting.clone()
	for key, had := range w.lasting.had {
		maps.DeleteFunc(had, func(d retention.Digest, _ bool) bool { return !found.had[key][d] })
	}
}

// quarantined records that content was quarantined.
func (w *testDisk) quarantined(d retention.Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sizes, d)
}

// step is one operation of the disk. The power may be cut before and after it.
func (w *testDisk) step(fn func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	err := fn()
	w.tick()
	return err
}

// counted records the usage that the mirror reports.
func (w *testDisk) counted(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("%d counted", n)
}

// note logs what happens. w.mu is held.
func (w *testDisk) note(format string, args ...any) {
	if w.trace = append(w.trace, fmt.Sprintf(format, args...)); len(w.trace) > 120 {
		w.trace = w.trace[1:]
	}
}

// inheritNotes puts the notes of an earlier process before its own. The earlier
// one is not used any more.
func (w *testDisk) inheritNotes(earlier *testDisk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(earlier.trace, w.trace...)
}

func (w *testDisk) tick() {
	if w.after == 0 {
		return
	}
	if w.after--; w.after == 0 {
		w.cutPower()
	}
}

// cutPower makes the copy. w.mu is held.
func (w *testDisk) cutPower() {
	w.after = 0
	w.note("cut")
	w.cut = w.dir + "+"
	w.atCut, w.flushedAtCut = w.lasting, w.flushed
	w.drafts.atCut = w.drafts.durable()
	err := filepath.WalkDir(w.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := w.cut + path[len(w.dir):]
		switch {
		case entry.IsDir():
			return os.Mkdir(to, 0o700)
		case filepath.Dir(path) == w.dir:
			content, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(to, content, 0o600))
		case filepath.Dir(path) == filepath.Join(w.dir, draftsFolder):
			content, err := os.ReadFile(path)
			if filepath.Ext(path) != mapSuffix {
				content = w.drafts.afterCut(filepath.Base(path), content)
			}
			return errors.Join(err, os.WriteFile(to, content, 0o600))
		}
		return os.Link(path, to) // never changed once it has its name
	})
	if err != nil {
		w.t.Errorf("the power is cut: %v", err)
	}
}

var errNoRoom = fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)

// hasRoom says whether anything can be written. w.mu is held.
func (w *testDisk) hasRoom() error {
	if w.full {
		return errNoRoom
	}
	return nil
}

// hasRoomForContent says whether content can be written. w.mu is held.
func (w *testDisk) hasRoomForContent() error {
	err := w.hasRoom()
	if err != nil {
		w.refused++
	}
	return err
}

// testDiskRecords are records that are durable only once they are flushed.
type testDiskRecords struct {
	cache.Records
	power *testDisk
}

func (r testDiskRecords) Put(b cache.Bucket, key string, value []byte) {
	r.power.mu.Lock()
	defer r.power.mu.Unlock()
	r.Records.Put(b, key, value)
	if _, digest, ok := metadata.SplitKey(key); ok && b == bucketManifest {
		r.power.note("%s on record", mirrortest.Short(digest))
		r.power.came[retention.Digest(digest)] = true
	}
	if r.power.put[b] == nil {
		r.power.put[b] = map[string]string{}
	}
	r.power.put[b][key] = string(value)
}

func (r testDiskRecords) Delete(b cache.Bucket, key string) {
	r.power.mu.Lock()
	defer r.power.mu.Unlock()
	r.Records.Delete(b, key)
	if _, digest, ok := metadata.SplitKey(key); ok && b == bucketManifest {
		r.power.note("%s off record", mirrortest.Short(digest))
		r.power.went[key] = true
	}
	delete(r.power.put[b], key)
}

func (r testDiskRecords) Flush(ctx context.Context) error {
	return r.power.step(func() error {
		if err := r.power.hasRoom(); err != nil {
			return err
		}
		err := r.Records.Flush(ctx)
		if err == nil {
			r.power.note("flushed")
			r.power.flushed, r.power.lasting = clone(r.power.put), r.power.returned(r.power.now)
		}
		return err
	})
}
