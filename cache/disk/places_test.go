package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

// hangable is a cache on a disk that can be broken, with two blobs.
type hangable struct {
	*Cache
	broken   *filestest.Disk
	log      *bytes.Buffer
	downs    []bool
	mu       sync.Mutex
	d, other cache.Digest
}

func openHangable(t *testing.T, opts Options) *hangable {
	t.Helper()
	h := &hangable{broken: filestest.Over(OS()), log: &bytes.Buffer{}}
	opts.Files, opts.Log = h.broken, slog.New(slog.NewTextHandler(h.log, nil))
	opts.OnDown = func(down bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.downs = append(h.downs, down)
	}
	h.Cache = open(t, t.TempDir(), opts)
	t.Cleanup(h.broken.Mend) // before it is closed
	h.d = publish(t, h.blobs, "content", large)
	h.other = publish(t, h.blobs, "other", 1000)
	return h
}

func (h *hangable) told() []bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]bool(nil), h.downs...)
}

// Nobody can leave the kernel while it sends.
func TestWhatIsCheckedIsSentOnlyAsFarAsThePageCacheHasIt(t *testing.T) {
	h := openHangable(t, Options{})
	d := publish(t, h.blobs, "pieces", 4*pieceSize)
	b, err := h.Blobs().Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	checks := b.(guardedBlob).loadChecks()
	checks.wasResident(0) // it begins to count
	checks.markResident(0)
	checks.markResident(1)
	h.broken.Fail(filestest.Reads, syscall.EIO) // and the page cache has nothing more
	for _, c := range []struct{ off, n, want int64 }{
		{0, 4 * pieceSize, 2 * pieceSize},
		{100, 4*pieceSize - 100, 2*pieceSize - 100},
		{0, pieceSize + 1, pieceSize + 1},
		{2 * pieceSize, pieceSize, 0},
		{0, 0, 0},
	} {
		if n := b.(guardedBlob).resident(c.off, c.n); n != c.want {
			t.Errorf("of %d bytes at %d: %d, want %d", c.n, c.off, n, c.want)
		}
	}
	if err := b.(guardedBlob).fetch(2 * pieceSize); !errors.Is(err, cache.ErrUnreadable) {
		t.Errorf("what it does not have is read with %v, and can't be", err)
	}
}

// TestClientsThatLeaveAHungDiskLeaveNothingBehind: a thread of the kernel is
// held by an operation, and there are no more of these than places.
func TestClientsThatLeaveAHungDiskLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHangable(t, Options{Places: Places{Reads: 6, Writes: 2}})
		h.broken.Hang(filestest.All)
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go func() {
				if _, err := h.Blobs().Open(ctx, h.d); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a client that left: %v", err)
				}
			}()
			go func() {
				if _, err := h.Blobs().Create(ctx, descriptor("new", 100)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a client that left: %v", err)
				}
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := h.broken.Waiting(); n == 0 || n > 8 {
			t.Errorf("%d operations are in the kernel, want at most 8", n)
		}
		h.broken.Mend()
		synctest.Wait() // what was made for those that left is removed again
		if left := list(t, h.blobs.drafts); len(left) > 0 {
			t.Errorf("drafts are left: %q", left)
		}
	})
}

func TestADiskWithoutAnAnswerIsDownUntilItAnswers(t *testing.T) {
	for name, kind := range map[string]filestest.Operations{"reads": filestest.Reads, "everything": filestest.All} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := openHangable(t, Options{})
				h.broken.Hang(kind)
				began := time.Now()
				for range 3 {
					go func() {
						if _, err := h.Blobs().Open(t.Context(), h.d); !errors.Is(err, cache.ErrDown) {
							t.Errorf("Open: %v, want ErrDown", err)
						}
					}()
				}
				if _, err := h.Blobs().Stat(t.Context(), h.d); !errors.Is(err, cache.ErrDown) || errors.Is(err, cache.ErrNotFound) {
					t.Errorf("Stat: %v, want ErrDown", err)
				}
				if waited := time.Since(began); waited < downAfter || waited > downAfter+downAfter/watchesPerOutage {
					t.Errorf("it was down after %s", waited)
				}
				over := h.Outage()
				if over == nil {
					t.Fatal("it is not down")
				}
				again := time.Now()
				for range 100 {
					if _, err := h.Blobs().Open(t.Context(), h.d); !errors.Is(err, cache.ErrDown) {
						t.Errorf("Open: %v, want ErrDown", err)
					}
					if _, err := h.Records().Get("a", "unknown"); !errors.Is(err, cache.ErrDown) {
						t.Errorf("Get: %v, want ErrDown", err)
					}
					if _, err := h.Blobs().Create(t.Context(), descriptor("new", 100)); !errors.Is(err, cache.ErrDown) {
						t.Errorf("Create: %v, want ErrDown", err)
					}
				}
				if waited := time.Since(again); waited > 0 {
					t.Errorf("of a disk that is down, answers took %s", waited)
				}
				time.Sleep(time.Minute)
				h.broken.Mend()
				mended := time.Now()
				<-over
				if waited := time.Since(mended); waited > 2*downAfter/watchesPerOutage {
					t.Errorf("it was up again after %s", waited)
				}
				if h.Outage() != nil {
					t.Error("it is still down")
				}
				blob, err := h.Blobs().Open(t.Context(), h.d)
				if err != nil {
					t.Fatalf("mended: %v", err)
				}
				blob.Close()
				synctest.Wait()
				if got := h.told(); len(got) != 2 || !got[0] || got[1] {
					t.Errorf("OnDown was called with %v", got)
				}
				if n := strings.Count(h.log.String(), "disk is down"); n != 1 {
					t.Errorf("%d lines say that it is down:\n%s", n, h.log)
				}
				if n := strings.Count(h.log.String(), "disk is up"); n != 1 {
					t.Errorf("%d lines say that it is up:\n%s", n, h.log)
				}
			})
		})
	}
}

// A disk may take long to make something durable, and is well.
func TestSlowWritesAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHangable(t, Options{Places: Places{Reads: 4, Writes: 2}})
		h.broken.Hang(filestest.Writes)
		var writers sync.WaitGroup
		for range 10 {
			writers.Go(func() { _, _ = h.Blobs().Create(t.Context(), descriptor("new", 100)) })
		}
		for range 60 {
			time.Sleep(time.Second)
			blob, err := h.Blobs().Open(t.Context(), h.d)
			if err != nil {
				t.Fatalf("while writes hang: %v", err)
			}
			if n, err := blob.Check(t.Context(), 0, 100); n != 100 || err != nil {
				t.Fatalf("Check = %d, %v", n, err)
			}
			blob.Close()
		}
		if h.Outage() != nil || len(h.told()) > 0 {
			t.Error("it is down")
		}
		h.broken.Mend()
		writers.Wait()
	})
}

// A disk that nobody asks for long is not down, nor one that answers slowly.
func TestASlowDiskIsNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHangable(t, Options{Places: Places{Reads: 2, Writes: 1}})
		time.Sleep(time.Hour)
		for range 20 {
			h.broken.Hang(filestest.Reads)
			for range 10 {
				go func() { _, _ = h.Blobs().Stat(t.Context(), h.d) }()
			}
			time.Sleep(4 * time.Second)
			h.broken.Mend()
			synctest.Wait()
		}
		if h.Outage() != nil || len(h.told()) > 0 {
			t.Errorf("it is down\n%s", h.log)
		}
	})
}

// A cache is closed, and its program ends, whatever the disk does.
func TestACacheOnADiskThatIsDownCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHangable(t, Options{})
		h.broken.Hang(filestest.All)
		if _, err := h.Blobs().Stat(t.Context(), h.d); !errors.Is(err, cache.ErrDown) {
			t.Fatalf("Stat: %v", err)
		}
		began := time.Now()
		err := h.Close()
		if took := time.Since(began); took > closeTimeout {
			t.Errorf("Close took %s: %v", took, err)
		}
		h.closed = nil // as the end of the test wants it
		h.broken.Mend()
	})
}

// A write that hangs is left, and what it was of goes on in memory: its hash is
// that of what was written before.
func TestADraftIsLeftWhenTheDiskGoesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openHangable(t, Options{})
		content := pattern("new", 1000)
		draft, err := h.Blobs().Create(t.Context(), descriptor("new", 1000))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := draft.Write(content[:400]); err != nil {
			t.Fatal(err)
		}
		h.broken.Hang(filestest.All)
		go func() { _, _ = h.Blobs().Stat(t.Context(), h.d) }()
		if _, err := draft.Write(content[400:]); !errors.Is(err, cache.ErrDown) {
			t.Errorf("Write: %v, want ErrDown", err)
		}
		prefix, n, err := draft.Prefix()
		if err != nil || n != 400 {
			t.Fatalf("Prefix: %d bytes, %v", n, err)
		}
		prefix.Write(content[400:])
		if got, want := prefix.Sum(nil), descriptor("new", 1000).Digest.Encoded(); hex.EncodeToString(got) != want {
			t.Errorf("the hash is %x, want %s", got, want)
		}
		if err := draft.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		h.broken.Mend()
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := list(t, h.blobs.drafts); len(left) > 0 {
			t.Errorf("the draft is still there: %q", left)
		}
	})
}

func TestReadsThatFailSaySo(t *testing.T) {
	h := openHangable(t, Options{})
	draft, err := h.Blobs().Create(t.Context(), descriptor("new", 1000))
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.Write(pattern("new", 1000)); err != nil {
		t.Fatal(err)
	}
	reader, err := draft.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	h.broken.Fail(filestest.Reads, syscall.EIO)
	if _, err := io.ReadAll(reader); !errors.Is(err, cache.ErrUnreadable) {
		t.Errorf("Read: %v, want ErrUnreadable", err)
	}
	h.broken.Mend()
	if got, err := io.ReadAll(reader); len(got) != 1000 || err != nil {
		t.Errorf("mended: %d bytes, %v", len(got), err)
	}
}

func TestPlacesFitTheLimits(t *testing.T) {
	for _, c := range []struct {
		pids int64
		cpus int
	}{{0, 1}, {0, 2}, {0, 64}, {200, 2}, {32, 2}, {10, 1}} {
		p := PlacesFor(c.pids, c.cpus)
		if p.Reads < 1 || p.Writes < 1 || c.pids > 0 && int64(p.Reads+p.Writes) > max(c.pids/4, 4) || c.cpus <= 4 && p.Reads+p.Writes > 48 {
			t.Errorf("%+v: %+v", c, p)
		}
	}
}
