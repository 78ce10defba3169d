package pull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// damagedMirror is a mirror over a disk, with one large cached layer.
type damagedMirror struct {
	mirrortest.Mirror
	store   *disk.Cache
	path    string // of the layer's file
	content []byte
	layer   pull.Descriptor
	counted func() int64
}

const rottingLayer = 6<<20 + 12_345

func newDamagedMirror(t *testing.T, change func(*mirror.Options)) damagedMirror {
	t.Helper()
	dir := t.TempDir()
	store, err := disk.Open(dir, disk.Options{VerifyEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	o := mirrortest.NewOrigin()
	var kept atomic.Int64
	m := mirrortest.New(t, o, func(opts *mirror.Options) {
		opts.Blobs, opts.Records = store.Blobs(), store.Records()
		opts.Rules.TagTTL = time.Hour * 1000
		opts.Events.Usage = kept.Store
		if change != nil {
			change(opts)
		}
	})
	t.Cleanup(m.Close)
	r := damagedMirror{Mirror: m, store: store, content: mirrortest.Bytes(1, rottingLayer), counted: kept.Load}
	_, r.layer = o.Image("app", "1", r.content)
	m.PullImage(t, mirrortest.App, "1")
	mirrortest.Wait()
	o.Transcript()
	hex := r.layer.Digest.Encoded()
	r.path = filepath.Join(dir, "blobs", "sha256", hex[:2], hex)
	return r
}

// damage flips a bit in the layer's file.
func (r damagedMirror) damage(t *testing.T, off int64) {
	t.Helper()
	file, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{^r.content[off]}, off); err != nil {
		t.Fatal(err)
	}
}

// wantRange fails unless a range of the layer has the right bytes.
func (r damagedMirror) wantRange(t *testing.T, b pull.Blob, off, n int64) {
	t.Helper()
	want := r.content[off:]
	if n >= 0 {
		want = want[:n]
	}
	var got bytes.Buffer
	written, err := b.WriteRange(context.WithoutCancel(t.Context()), &got, off, n)
	if err != nil || written != int64(len(want)) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("of %d bytes at %d came %d, the right ones %v: %v", len(want), off, written, bytes.Equal(got.Bytes(), want), err)
	}
}

func (r damagedMirror) open(t *testing.T) pull.Blob {
	t.Helper()
	b, err := r.Blob(t.Context(), mirrortest.App, r.layer.Digest, pull.Want{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r damagedMirror) request(from int64) string {
	line := "GET blob app " + mirrortest.Short(r.layer.Digest.String())
	if from > 0 {
		line += fmt.Sprintf(" %d+%d", from, rottingLayer-from)
	}
	return line
}

// wantRepaired fails unless the cached layer is intact and counted.
func (r damagedMirror) wantRepaired(t *testing.T) {
	t.Helper()
	mirrortest.Wait()
	if size, err := r.store.Blobs().Verify(t.Context(), r.layer.Digest, func(int) error { return nil }); size != rottingLayer || err != nil {
		t.Errorf("what is cached now: %d bytes, %v", size, err)
	}
	var want int64
	if err := r.store.Blobs().Walk(t.Context(), func(_ pull.Digest, size int64) bool { want += r.store.Blobs().Weight(size); return true }); err != nil {
		t.Error(err)
	}
	if got := r.counted(); got != want {
		t.Errorf("%d bytes are cached, and %d are counted", want, got)
	}
	r.Origin.Transcript()
	b := r.open(t)
	defer b.Close()
	r.wantRange(t, b, 0, -1)
	if b.Outcome() != pull.Hit {
		t.Errorf("the next pull is a %s", b.Outcome())
	}
	mirrortest.WantTranscript(t, r.Origin)
}

// countedBlobs counts open files.
type countedBlobs struct {
	cache.Blobs
	open *atomic.Int32
}

type countedFile struct {
	cache.PublishedBlob
	of countedBlobs
}

func (b countedBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	b.open.Add(1)
	return countedFile{kept, b}, nil
}

func (f countedFile) Close() error {
	f.of.open.Add(-1)
	return f.PublishedBlob.Close()
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What is known for a moment is not for a client that reads slowly.
func TestABlobThatIsDamagedWhileASlowClientReadsItIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const piece = 256 << 10
		r := newDamagedMirror(t, nil)
		first := r.open(t)
		r.wantRange(t, first, 0, -1) // all is checked
		first.Close()
		b := r.open(t)
		defer b.Close()
		var got bytes.Buffer
		damaged := false
		written, err := b.WriteRange(t.Context(), writerFunc(func(p []byte) (int, error) {
			got.Write(p)
			if got.Len() >= piece && !damaged {
				damaged = true
				r.damage(t, piece+5)
				time.Sleep(2 * time.Second)
			}
			return len(p), nil
		}), 0, -1)
		if err != nil || written != rottingLayer || !bytes.Equal(got.Bytes(), r.content) || b.Outcome() != pull.Repaired {
			t.Errorf("%d bytes, the right ones %v: %v, %s", written, bytes.Equal(got.Bytes(), r.content), err, b.Outcome())
		}
	})
}

// What was known before a read failed counts no more.
func TestAfterAReadThatFailedABlobIsCheckedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDamagedMirror(t, nil)
		first := r.open(t)
		r.wantRange(t, first, 0, -1) // all is checked
		first.Close()
		b := r.open(t)
		defer b.Close()
		var got bytes.Buffer
		failed := false
		written, err := b.WriteRange(t.Context(), writerFunc(func(p []byte) (int, error) {
			if !failed {
				failed = true
				r.damage(t, 5)
				return 0, syscall.EIO
			}
			return got.Write(p)
		}), 0, -1)
		if err != nil || written != rottingLayer || !bytes.Equal(got.Bytes(), r.content) {
			t.Errorf("%d bytes, the right ones %v: %v", written, bytes.Equal(got.Bytes(), r.content), err)
		}
	})
}

func TestADamagedBlobIsRepairedWithoutTheClientNoticing(t *testing.T) {
	const pieces = 256 << 10
	for _, c := range []struct {
		name    string
		rot     []int64
		off, n  int64
		begins  int64 // of the download; -1 for none
		outcome pull.Outcome
	}{
		{"at its start", []int64{7}, 0, -1, 0, pull.Repaired},
		{"in its middle", []int64{3*pieces + 5}, 0, -1, 3 * pieces, pull.Repaired},
		{"in its last byte", []int64{rottingLayer - 1}, 0, -1, 24 * pieces, pull.Repaired},
		{"in two places", []int64{rottingLayer - 1, 2 * pieces}, 0, -1, 2 * pieces, pull.Repaired},
		{"in a range", []int64{3*pieces + 5}, 3*pieces + 100, 50_000, 3 * pieces, pull.Repaired},
		{"in a range, and before it", []int64{9, 3*pieces + 5}, 3*pieces + 100, 50_000, 0, pull.Repaired},
		{"in a range far from the start", []int64{20*pieces + 5}, 20*pieces + 1, 1000, 20 * pieces, pull.Repaired},
		{"behind a range", []int64{3*pieces + 5}, 0, 3 * pieces, -1, pull.Hit},
		{"before a range", []int64{3*pieces + 5}, 4 * pieces, -1, -1, pull.Hit},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open atomic.Int32
				r := newDamagedMirror(t, func(opts *mirror.Options) { opts.Blobs = countedBlobs{opts.Blobs, &open} })
				for _, off := range c.rot {
					r.damage(t, off)
				}
				b := r.open(t)
				r.wantRange(t, b, c.off, c.n)
				if b.Outcome() != c.outcome {
					t.Errorf("the outcome is %s", b.Outcome())
				}
				mirrortest.Wait()
				defer func() {
					b.Close()
					if files := open.Load(); files != 0 {
						t.Errorf("%d files are still open", files)
					}
				}()
				if c.begins < 0 {
					mirrortest.WantTranscript(t, r.Origin)
					return
				}
				mirrortest.WantTranscript(t, r.Origin, r.request(c.begins))
				r.wantRange(t, b, 1000, 2000) // the next of several ranges
				r.wantRange(t, b, c.off, c.n)
				r.wantRepaired(t)
			})
		})
	}
}

func TestManyReadersOfADamagedBlobShareOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDamagedMirror(t, nil)
		var group sync.WaitGroup
		release := r.Origin.Hold(r.request(1 << 20))
		r.damage(t, 1<<20+1)
		for i := range 8 {
			b := r.open(t)
			group.Go(func() {
				defer b.Close()
				r.wantRange(t, b, int64(i)*1000, -1)
			})
		}
		mirrortest.Wait()
		// A request now shares it as well.
		late := r.open(t)
		group.Go(func() {
			defer late.Close()
			r.wantRange(t, late, 0, -1)
		})
		mirrortest.Wait()
		release()
		group.Wait()
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.request(1<<20))
		r.wantRepaired(t)
	})
}

func TestWithoutAnUpstreamADamagedBlobEndsInAnError(t *testing.T) {
	for name, offline := range map[string]bool{"it is away": false, "it is not to be asked": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newDamagedMirror(t, nil)
				r.damage(t, 1<<20+1)
				r.Origin.Fail("*", upstream.ErrRefused)
				r.SetOffline(offline)
				b := r.open(t)
				defer b.Close()
				var got bytes.Buffer
				written, err := b.WriteRange(t.Context(), &got, 0, -1)
				if err == nil || written >= rottingLayer || !bytes.Equal(got.Bytes(), r.content[:written]) {
					t.Errorf("%d bytes came: %v", written, err)
				}
				mirrortest.Wait()
				if asked := r.Origin.Transcript(); offline && len(asked) > 0 {
					t.Errorf("it was asked: %q", asked)
				}
				r.SetOffline(false)
				r.Origin.ClearFailures()
				r.Origin.Transcript()
				if err := r.Read(t.Context(), mirrortest.App, r.layer.Digest); err != nil {
					t.Errorf("once it is back: %v", err)
				}
				mirrortest.Wait()
				from := int64(1 << 20) // the sound part is kept as a draft
				if offline {
					from = 0
				}
				mirrortest.WantTranscript(t, r.Origin, r.request(from))
				r.wantRepaired(t)
			})
		})
	}
}

func TestWhatTheUpstreamSendsForADamagedPieceIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDamagedMirror(t, nil)
		r.damage(t, 1<<20+1)
		r.Origin.Put("app", "", r.content)
		wrong := slices.Clone(r.content)
		wrong[1<<20+2] ^= 1
		r.Origin.Replace("app", r.layer.Digest, "", wrong)
		b := r.open(t)
		defer b.Close()
		var got bytes.Buffer
		if written, err := b.WriteRange(t.Context(), &got, 0, -1); err == nil || written >= rottingLayer {
			t.Errorf("%d bytes came, %v", written, err)
		}
		mirrortest.Wait()
		if r.Store.Has(t.Context(), r.layer.Digest) {
			t.Error("it is cached")
		}
	})
}

// failingReadBlobs is a disk on which checked content can no longer be read.
// Reads of the layer fail until its checks are repeated; then it is found
// damaged, or the disk recovers.
type failingReadBlobs struct {
	cache.Blobs
	layer   pull.Digest
	fades   *atomic.Bool
	forGood bool
}

type failingRead struct {
	cache.PublishedBlob
	of failingReadBlobs
}

func (b failingReadBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err != nil || d != b.layer {
		return kept, err
	}
	return &failingRead{PublishedBlob: kept, of: b}, nil
}

func (f *failingRead) Read(p []byte) (int, error) {
	if f.of.fades.Load() {
		return 0, &os.PathError{Op: "read", Path: "layer", Err: syscall.EIO}
	}
	return f.PublishedBlob.Read(p)
}

func (f *failingRead) InvalidateChecks() {
	if !f.of.forGood {
		f.of.fades.Store(false)
	}
	f.PublishedBlob.InvalidateChecks()
}

func TestAFailedReadIsCheckedForDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fades atomic.Bool
		blobs := failingReadBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), fades: &fades}
		r := newDamagedMirror(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		b := r.open(t)
		defer b.Close()
		r.wantRange(t, b, 0, 1000)
		fades.Store(true)
		r.wantRange(t, b, 0, -1)
		mirrortest.WantTranscript(t, r.Origin) // the disk has come back

		r.damage(t, 1<<20+1)
		fades.Store(true)
		r.wantRange(t, b, 1<<20, -1)
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.request(1<<20))
		r.wantRepaired(t)
	})
}

func TestARepeatedlyFailingReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fades atomic.Bool
		blobs := failingReadBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), fades: &fades, forGood: true}
		r := newDamagedMirror(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		fades.Store(true)
		b := r.open(t)
		defer b.Close()
		if written, err := b.WriteRange(t.Context(), new(bytes.Buffer), 0, -1); written != 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("%d bytes, %v", written, err)
		}
	})
}

// unverifiedBlobs serves bytes of the layer before it detects the damage.
type unverifiedBlobs struct {
	cache.Blobs
	layer pull.Digest
}

type unverified struct{ cache.PublishedBlob }

func (h unverified) Check(_ context.Context, off, n int64) (int64, error) {
	if off+n < h.Size() {
		return n, nil
	}
	return 0, fmt.Errorf("%w: %w: %w", cache.ErrUnproven, cache.ErrQuarantined, cache.ErrMismatch)
}

func (b unverifiedBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err == nil && d == b.layer {
		return unverified{kept}, nil
	}
	return kept, err
}

func TestABlobWhosePiecesAreUnverifiedIsNotRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blobs := unverifiedBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer))}
		r := newDamagedMirror(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		b := r.open(t)
		defer b.Close()
		before := r.counted()
		if written, err := b.WriteRange(t.Context(), new(bytes.Buffer), 0, -1); written == rottingLayer || !errors.Is(err, cache.ErrUnproven) {
			t.Errorf("%d bytes came, %v", written, err)
		}
		mirrortest.WantTranscript(t, r.Origin)
		if gone := before - r.counted(); gone != r.store.Blobs().Weight(rottingLayer) {
			t.Errorf("%d bytes are counted less", gone)
		}
	})
}

// unquarantinableBlobs is a disk on which nothing can be quarantined: whatever
// is published, the damaged layer is found until it is replaced.
type unquarantinableBlobs struct {
	cache.Blobs
	layer pull.Digest
	stuck *atomic.Bool
}

type unquarantinable struct{ cache.PublishedBlob }

func (unquarantinable) Check(context.Context, int64, int64) (int64, error) {
	return 0, cache.ErrMismatch
}

func (b unquarantinableBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err == nil && d == b.layer && b.stuck.Load() {
		return unquarantinable{kept}, nil
	}
	return kept, err
}

func TestABlobThatCannotBeQuarantinedIsStillRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var is atomic.Bool
		blobs := unquarantinableBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), stuck: &is}
		r := newDamagedMirror(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		is.Store(true)
		b := r.open(t)
		defer b.Close()
		r.wantRange(t, b, 0, -1)
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.request(0))
	})
}
