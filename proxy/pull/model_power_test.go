package pull

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
)

// power stands between a Puller and its cache. It can be cut: at an instant
// chosen beforehand a copy of the folder is made, which is what a power cut
// would leave, while the process that has lost its power goes on without
// knowing. And it can let the disk be full.
type power struct {
	t   *testing.T
	dir string

	mu    sync.Mutex
	after int    // steps to the disk until it is cut; 0 means never
	cut   string // the folder as it was then; empty before

	// now is what the model knows, and lasting what it knew when the records
	// were durable last. They are replaced, never changed.
	now, lasting *known
	atCut        *known
	// put are the records as they are, flushed those that are durable.
	put, flushed, flushedAtCut map[cache.Bucket]map[string]string

	trace []string        // what was published, deleted and counted last
	came  map[Digest]bool // manifests that went on record since the last look
	went  map[string]bool // manifests that went off the records since the last look, if only for a moment

	full    bool // nothing more can be written
	refused int  // writes of content
	sizes   map[Digest]int64
	bound   int64
	over    int64 // the most that was kept above the bound
}

func newPower(t *testing.T, dir string, bound int64, records map[cache.Bucket]map[string]string, blobs cache.Blobs) *power {
	w := &power{t: t, dir: dir, bound: bound, put: clone(records), flushed: clone(records), sizes: map[Digest]int64{}, went: map[string]bool{}, came: map[Digest]bool{}}
	err := blobs.Walk(t.Context(), func(d Digest, size int64) bool { w.sizes[d] = size; return true })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// begin is what the model knows at the start: a manifest whose file has gone is
// not kept, and if it comes back it comes anew.
func (w *power) begin(k *known) *known {
	k = k.clone()
	maps.DeleteFunc(k.had, func(key string, _ map[Digest]bool) bool {
		_, digest, _ := metadata.SplitKey(key)
		return w.sizes[Digest(digest)] == 0
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

// arm cuts the power at the n-th step from now.
func (w *power) arm(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after = n
}

// learn notes what the model knows now.
func (w *power) learn(k *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = k
	clear(w.went)
	clear(w.came)
}

// cameNow says whether a manifest went on record since the last look.
func (w *power) cameNow(d Digest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.came[d]
}

// wentNow are the manifests that went off the records since the last look.
func (w *power) wentNow() (all []Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.went {
		_, digest, _ := metadata.SplitKey(key)
		all = append(all, Digest(digest))
	}
	return all
}

// returned is k without what went, and may have come back, since the last look.
// w.mu is held.
func (w *power) returned(k *known) *known {
	if len(w.went) == 0 {
		return k
	}
	k = k.clone()
	for key := range w.went {
		delete(k.had, key)
	}
	return k
}

// still takes from what lasted what was not found any more after a crash.
func (w *power) still(found *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lasting = w.lasting.clone()
	for key, had := range w.lasting.had {
		maps.DeleteFunc(had, func(d Digest, _ bool) bool { return !found.had[key][d] })
	}
}

// lost notes that content was set aside.
func (w *power) lost(d Digest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sizes, d)
}

// step is one thing that happens to the disk. Before and after it the power
// may be cut.
func (w *power) step(fn func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	err := fn()
	w.tick()
	return err
}

// counted notes how many bytes the mirror believes to be kept.
func (w *power) counted(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("%d counted", n)
}

// note says what happens. w.mu is held.
func (w *power) note(format string, args ...any) {
	if w.trace = append(w.trace, fmt.Sprintf(format, args...)); len(w.trace) > 120 {
		w.trace = w.trace[1:]
	}
}

// goOn puts the notes of an earlier life before its own. Nothing happens to the
// earlier one any more.
func (w *power) goOn(earlier *power) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(earlier.trace, w.trace...)
}

func (w *power) tick() {
	if w.after == 0 {
		return
	}
	if w.after--; w.after == 0 {
		w.cutNow()
	}
}

// cutNow makes the copy. w.mu is held.
func (w *power) cutNow() {
	w.after = 0
	w.note("cut")
	w.cut = w.dir + "+"
	w.atCut, w.flushedAtCut = w.lasting, w.flushed
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
		}
		return os.Link(path, to) // never changed once it has its name
	})
	if err != nil {
		w.t.Errorf("the power is cut: %v", err)
	}
}

var errNoRoom = fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)

// room says whether something can be written. w.mu is held.
func (w *power) room() error {
	if w.full {
		return errNoRoom
	}
	return nil
}

// roomFor is room for content. w.mu is held.
func (w *power) roomFor() error {
	err := w.room()
	if err != nil {
		w.refused++
	}
	return err
}

// poweredBlobs are the blobs of a cache whose power may be cut.
type poweredBlobs struct {
	cache.Blobs
	power *power
}

func (b poweredBlobs) Create(ctx context.Context, want Descriptor) (draft cache.Draft, err error) {
	err = b.power.step(func() (err error) {
		if err = b.power.roomFor(); err == nil {
			draft, err = b.Blobs.Create(ctx, want)
		}
		return err
	})
	return poweredDraft{draft, want.Digest, b.power}, err
}

func (b poweredBlobs) Delete(ctx context.Context, d Digest) error {
	return b.power.step(func() error {
		err := b.Blobs.Delete(ctx, d)
		if err == nil {
			b.power.note("%s of %d deleted", short(d.String()), b.power.sizes[d])
			delete(b.power.sizes, d)
		}
		return err
	})
}

type poweredDraft struct {
	cache.Draft
	digest Digest
	power  *power
}

func (d poweredDraft) Write(b []byte) (n int, err error) {
	err = d.power.step(func() (err error) {
		if err = d.power.roomFor(); err != nil {
			b = b[:len(b)/2] // of a write that fails a part may be there
		}
		wrote, writeErr := d.Draft.Write(b)
		n = wrote
		return errors.Join(err, writeErr)
	})
	return n, err
}

func (d poweredDraft) Commit() error {
	return d.power.step(func() error {
		if err := d.power.roomFor(); err != nil {
			return err
		}
		if err := d.Draft.Commit(); err != nil {
			return err
		}
		d.power.note("%s of %d published", short(d.digest.String()), d.Written())
		d.power.sizes[d.digest] = d.Written()
		var total int64
		for _, size := range d.power.sizes {
			total += size
		}
		d.power.over = max(d.power.over, total-d.power.bound)
		return nil
	})
}

func (d poweredDraft) Close() error {
	if d.Draft == nil {
		return nil
	}
	d.power.mu.Lock()
	defer d.power.mu.Unlock()
	return d.Draft.Close()
}

// poweredRecords are records that last once they are flushed, and not before.
type poweredRecords struct {
	cache.Records
	power *power
}

func (r poweredRecords) Put(b cache.Bucket, key string, value []byte) {
	r.power.mu.Lock()
	defer r.power.mu.Unlock()
	r.Records.Put(b, key, value)
	if _, digest, ok := metadata.SplitKey(key); ok && b == bucketManifest {
		r.power.note("%s on record", short(digest))
		r.power.came[Digest(digest)] = true
	}
	if r.power.put[b] == nil {
		r.power.put[b] = map[string]string{}
	}
	r.power.put[b][key] = string(value)
}

func (r poweredRecords) Delete(b cache.Bucket, key string) {
	r.power.mu.Lock()
	defer r.power.mu.Unlock()
	r.Records.Delete(b, key)
	if _, digest, ok := metadata.SplitKey(key); ok && b == bucketManifest {
		r.power.note("%s off record", short(digest))
		r.power.went[key] = true
	}
	delete(r.power.put[b], key)
}

func (r poweredRecords) Flush(ctx context.Context) error {
	return r.power.step(func() error {
		if err := r.power.room(); err != nil {
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
