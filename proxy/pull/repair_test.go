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

// rotting is a mirror over a disk, with one large layer kept.
type rotting struct {
	mirrortest.Mirror
	store   *disk.Cache
	path    string // of the layer's file
	content []byte
	layer   pull.Descriptor
	counted func() int64
}

const rottingLayer = 6<<20 + 12_345

func newRotting(t *testing.T, change func(*mirror.Options)) rotting {
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
	r := rotting{Mirror: m, store: store, content: mirrortest.Bytes(1, rottingLayer), counted: kept.Load}
	_, r.layer = o.Image("app", "1", r.content)
	m.PullImage(t, mirrortest.App, "1")
	mirrortest.Wait()
	o.Transcript()
	hex := r.layer.Digest.Encoded()
	r.path = filepath.Join(dir, "blobs", "sha256", hex[:2], hex)
	return r
}

// rot turns a bit over in the layer's file.
func (r rotting) rot(t *testing.T, off int64) {
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

// reads fails unless a range of the layer is what it should be.
func (r rotting) reads(t *testing.T, b pull.Blob, off, n int64) {
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

func (r rotting) open(t *testing.T) pull.Blob {
	t.Helper()
	b, err := r.Blob(t.Context(), mirrortest.App, r.layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r rotting) asked(from int64) string {
	line := "GET blob app " + mirrortest.Short(r.layer.Digest.String())
	if from > 0 {
		line += fmt.Sprintf(" %d+-1", from)
	}
	return line
}

// wantMended fails unless what is kept is whole and counted.
func (r rotting) wantMended(t *testing.T) {
	t.Helper()
	mirrortest.Wait()
	if size, err := r.store.Blobs().Verify(t.Context(), r.layer.Digest, func(int) error { return nil }); size != rottingLayer || err != nil {
		t.Errorf("what is kept now: %d bytes, %v", size, err)
	}
	var want int64
	if err := r.store.Blobs().Walk(t.Context(), func(_ pull.Digest, size int64) bool { want += r.store.Blobs().Weight(size); return true }); err != nil {
		t.Error(err)
	}
	if got := r.counted(); got != want {
		t.Errorf("%d bytes are kept, and %d are counted", want, got)
	}
	r.Origin.Transcript()
	b := r.open(t)
	defer b.Close()
	r.reads(t, b, 0, -1)
	if b.Outcome() != pull.Hit {
		t.Errorf("the next pull is a %s", b.Outcome())
	}
	mirrortest.WantTranscript(t, r.Origin)
}

// countedBlobs count the files that are open.
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
				r := newRotting(t, func(opts *mirror.Options) { opts.Blobs = countedBlobs{opts.Blobs, &open} })
				for _, off := range c.rot {
					r.rot(t, off)
				}
				b := r.open(t)
				r.reads(t, b, c.off, c.n)
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
				mirrortest.WantTranscript(t, r.Origin, r.asked(c.begins))
				r.reads(t, b, 1000, 2000) // the next of several ranges
				r.reads(t, b, c.off, c.n)
				r.wantMended(t)
			})
		})
	}
}

func TestManyReadersOfADamagedBlobShareOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotting(t, nil)
		var group sync.WaitGroup
		release := r.Origin.Hold(r.asked(1 << 20))
		r.rot(t, 1<<20+1)
		for i := range 8 {
			b := r.open(t)
			group.Go(func() {
				defer b.Close()
				r.reads(t, b, int64(i)*1000, -1)
			})
		}
		mirrortest.Wait()
		// One who asks now shares it as well.
		late := r.open(t)
		group.Go(func() {
			defer late.Close()
			r.reads(t, late, 0, -1)
		})
		mirrortest.Wait()
		release()
		group.Wait()
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.asked(1<<20))
		r.wantMended(t)
	})
}

func TestWithoutAnUpstreamADamagedBlobEndsInAnError(t *testing.T) {
	for name, offline := range map[string]bool{"it is away": false, "it is not to be asked": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRotting(t, nil)
				r.rot(t, 1<<20+1)
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
				mirrortest.WantTranscript(t, r.Origin, r.asked(0))
				r.wantMended(t)
			})
		})
	}
}

func TestWhatTheUpstreamSendsForADamagedPieceIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotting(t, nil)
		r.rot(t, 1<<20+1)
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
			t.Error("it is kept")
		}
	})
}

// fadingBlobs are those of a disk that loses what was checked. Reads of the
// layer fail until its checks are invalidated. Then it is found damaged, or the
// disk comes back.
type fadingBlobs struct {
	cache.Blobs
	layer   pull.Digest
	fades   *atomic.Bool
	forGood bool
}

type fading struct {
	cache.PublishedBlob
	of fadingBlobs
}

func (b fadingBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err != nil || d != b.layer {
		return kept, err
	}
	return &fading{PublishedBlob: kept, of: b}, nil
}

func (f *fading) Read(p []byte) (int, error) {
	if f.of.fades.Load() {
		return 0, &os.PathError{Op: "read", Path: "layer", Err: syscall.EIO}
	}
	return f.PublishedBlob.Read(p)
}

func (f *fading) InvalidateChecks() {
	if !f.of.forGood {
		f.of.fades.Store(false)
	}
	f.PublishedBlob.InvalidateChecks()
}

func TestAFailedReadIsCheckedForDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fades atomic.Bool
		blobs := fadingBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), fades: &fades}
		r := newRotting(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		b := r.open(t)
		defer b.Close()
		r.reads(t, b, 0, 1000)
		fades.Store(true)
		r.reads(t, b, 0, -1)
		mirrortest.WantTranscript(t, r.Origin) // the disk has come back

		r.rot(t, 1<<20+1)
		fades.Store(true)
		r.reads(t, b, 1<<20, -1)
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.asked(1<<20))
		r.wantMended(t)
	})
}

func TestARepeatedlyFailingReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fades atomic.Bool
		blobs := fadingBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), fades: &fades, forGood: true}
		r := newRotting(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		fades.Store(true)
		b := r.open(t)
		defer b.Close()
		if written, err := b.WriteRange(t.Context(), new(bytes.Buffer), 0, -1); written != 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("%d bytes, %v", written, err)
		}
	})
}

// hastyBlobs let bytes of the layer pass before they know that it is damaged.
type hastyBlobs struct {
	cache.Blobs
	layer pull.Digest
}

type hasty struct{ cache.PublishedBlob }

func (h hasty) Check(_ context.Context, off, n int64) (int64, error) {
	if off+n < h.Size() {
		return n, nil
	}
	return 0, fmt.Errorf("%w: %w: %w", cache.ErrUnproven, cache.ErrQuarantined, cache.ErrMismatch)
}

func (b hastyBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err == nil && d == b.layer {
		return hasty{kept}, nil
	}
	return kept, err
}

func TestABlobWhosePiecesAreUnverifiedIsNotRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blobs := hastyBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer))}
		r := newRotting(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
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

// stuckBlobs are those of a disk on which nothing can be set aside: whatever is
// published, the layer that is found is the damaged one until it is replaced.
type stuckBlobs struct {
	cache.Blobs
	layer pull.Digest
	stuck *atomic.Bool
}

type stuck struct{ cache.PublishedBlob }

func (stuck) Check(context.Context, int64, int64) (int64, error) { return 0, cache.ErrMismatch }

func (b stuckBlobs) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	kept, err := b.Blobs.Open(ctx, d)
	if err == nil && d == b.layer && b.stuck.Load() {
		return stuck{kept}, nil
	}
	return kept, err
}

func TestABlobThatCannotBeQuarantinedIsStillRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var is atomic.Bool
		blobs := stuckBlobs{layer: mirrortest.IndexAlgorithm.FromBytes(mirrortest.Bytes(1, rottingLayer)), stuck: &is}
		r := newRotting(t, func(opts *mirror.Options) { blobs.Blobs = opts.Blobs; opts.Blobs = blobs })
		is.Store(true)
		b := r.open(t)
		defer b.Close()
		r.reads(t, b, 0, -1)
		mirrortest.Wait()
		mirrortest.WantTranscript(t, r.Origin, r.asked(0))
	})
}
