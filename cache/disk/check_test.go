package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/entrepot/entrepot/cache/disk/files"
)

// large has eleven pieces, the last one short.
const (
	large       = 10*pieceSize + 1000
	largePieces = 11
)

// reads counts what checks read.
type reads struct{ atomic.Int64 }

func (r *reads) faults() faults {
	return faults{read: func() error { r.Add(1); return nil }}
}

// want fails unless so many pieces were read since the last time.
func (r *reads) want(t *testing.T, what string, want int64) {
	t.Helper()
	if got := r.Swap(0); got != want {
		t.Errorf("%s: %d reads, want %d", what, got, want)
	}
}

func openKept(t *testing.T, b *blobs, d cache.Digest) cache.PublishedBlob {
	t.Helper()
	file, err := b.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// checkAll checks a file from its start, as one who sends it does, and returns
// how far that went.
func checkAll(file cache.PublishedBlob) (at int64, err error) {
	for at < file.Size() {
		n, err := file.Check(context.Background(), at, pieceSize)
		if err != nil {
			return at, err
		}
		at += n
	}
	return at, nil
}

func wantSound(t *testing.T, file cache.PublishedBlob) {
	t.Helper()
	if at, err := checkAll(file); at != file.Size() || err != nil {
		t.Errorf("checks got to %d of %d: %v", at, file.Size(), err)
	}
}

// In these tests the clock of the bubble is years away from the change times of
// the files, which count as settled for that.

func TestAHotBlobIsNotReadToBeChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reads
		dir := t.TempDir()
		opts := Options{VerifyEvery: time.Hour, faults: r.faults()}
		c := open(t, dir, opts)
		d := publish(t, c.blobs, "content", large)
		r.want(t, "publishing", 0)
		file := openKept(t, c.blobs, d)
		if _, err := file.Check(t.Context(), 3*pieceSize+5, 10); err != nil {
			t.Fatal(err)
		}
		r.want(t, "a first range of one piece", 1)
		wantSound(t, file)
		r.want(t, "a first whole, with one piece checked already", largePieces-1)
		for range 3 {
			wantSound(t, openKept(t, c.blobs, d))
		}
		r.want(t, "three more within the hour", 0)
		if n, err := file.Check(t.Context(), 7, large); n != large-7 || err != nil {
			t.Errorf("Check of all that is checked = %d, %v", n, err)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		wantSound(t, file)
		r.want(t, "one just before the hour is over", 0)
		time.Sleep(time.Nanosecond)
		wantSound(t, file)
		r.want(t, "one after an hour, of a file that was open all the time", largePieces)
		c.Close()
		c = open(t, dir, opts)
		r.want(t, "a start", 0)
		file = openKept(t, c.blobs, d)
		if _, err := file.Check(t.Context(), 0, 1); err != nil {
			t.Fatal(err)
		}
		r.want(t, "the first byte after a start", 1)
		wantSound(t, file)
		r.want(t, "the rest", largePieces-1)
	})
}

func TestAFileThatChangedIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reads
		b := open(t, t.TempDir(), Options{VerifyEvery: time.Hour, faults: r.faults()}).blobs
		d := publish(t, b, "content", large)
		path, _ := b.pathOf(d)
		file := openKept(t, b, d)
		wantSound(t, file)
		r.want(t, "a first whole", largePieces)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		wantSound(t, file)
		r.want(t, "after a change of its mode", largePieces)
		file.InvalidateChecks()
		wantSound(t, file)
		r.want(t, "after the checks were invalidated", largePieces)
		flip(t, b, d, 5*pieceSize+7)
		if at, err := checkAll(file); at != 5*pieceSize || !errors.Is(err, cache.ErrMismatch) {
			t.Errorf("checks with a bit turned over in a file that was checked got to %d: %v", at, err)
		}
		if n, err := file.Check(t.Context(), 6*pieceSize, 1); n != 1 || err != nil {
			t.Errorf("a check behind the damage = %d, %v", n, err)
		}
		if err := os.Truncate(filepath.Join(filepath.Dir(b.root), "damaged", d.Encoded()), 8*pieceSize+1); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Check(t.Context(), 8*pieceSize, 1); !errors.Is(err, cache.ErrMismatch) {
			t.Errorf("a check of a piece that was cut: %v", err)
		}
	})
}

func TestWithoutATimeEveryPieceIsReadEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reads
		b := open(t, t.TempDir(), Options{faults: r.faults()}).blobs
		file := openKept(t, b, publish(t, b, "content", large))
		for range 2 {
			wantSound(t, file)
			r.want(t, "a whole", largePieces)
		}
	})
}

func TestWhoAsksForOnePieceAtOnceSharesTheRead(t *testing.T) {
	for name, every := range map[string]time.Duration{"checked each hour": time.Hour, "checked each time": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r reads
				hold := make(chan struct{})
				b := open(t, t.TempDir(), Options{VerifyEvery: every, faults: faults{read: func() error { r.Add(1); <-hold; return nil }}}).blobs
				d := publish(t, b, "content", large)
				var group sync.WaitGroup
				for i := range 8 {
					file := openKept(t, b, d)
					group.Go(func() {
						if n, err := file.Check(context.Background(), int64(i), 1); n != 1 || err != nil {
							t.Errorf("Check = %d, %v", n, err)
						}
					})
				}
				synctest.Wait()
				left, leave := context.WithCancel(t.Context())
				file := openKept(t, b, d)
				group.Go(func() {
					if _, err := file.Check(left, 100, 1); !errors.Is(err, context.Canceled) {
						t.Errorf("a check by one who leaves: %v", err)
					}
				})
				synctest.Wait()
				leave()
				// Evicted meanwhile: that is no reason to stop.
				if err := b.Delete(t.Context(), d); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				r.want(t, "eight at once", 1)
				close(hold)
				group.Wait()
			})
		})
	}
}

func TestWhatTheDiskCannotReadBackIsDamaged(t *testing.T) {
	for _, c := range []struct {
		refusal error
		damage  bool
	}{{syscall.EIO, true}, {syscall.EBADMSG, true}, {syscall.ENOMEM, false}} {
		t.Run(c.refusal.Error(), func(t *testing.T) {
			for _, without := range []bool{false, true} {
				refuse := true
				reported := 0
				b := open(t, t.TempDir(), Options{OnDamage: func() { reported++ }, faults: faults{read: func() error {
					if refuse {
						return &os.PathError{Op: "read", Err: c.refusal}
					}
					return nil
				}}}).blobs
				d := publish(t, b, "content", large)
				path, _ := b.pathOf(d)
				if without {
					if err := os.Remove(path + sumsSuffix); err != nil {
						t.Fatal(err)
					}
				}
				file := openKept(t, b, d)
				_, err := checkAll(file)
				if errors.Is(err, cache.ErrMismatch) != c.damage || !c.damage && !errors.Is(err, c.refusal) {
					t.Errorf("checks: %v", err)
				}
				if _, err := b.Stat(t.Context(), d); errors.Is(err, cache.ErrNotFound) != c.damage {
					t.Errorf("afterwards Stat says %v", err)
				}
				if c.damage != (reported == 1) {
					t.Errorf("%d damages reported", reported)
				}
				if refuse = false; !c.damage {
					wantSound(t, file)
				}
			}
		})
	}
}

func TestContentWithoutChecksumsGetsThem(t *testing.T) {
	for _, lack := range []struct {
		name string
		make func(path string) error
	}{
		{"of an entrepot that made none", os.Remove},
		{"half of them", func(path string) error { return os.Truncate(path, 30) }},
		{"damaged", func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte{7}, int(sumsLength(large))), 0o600)
		}},
		{"a folder in their place", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
	} {
		prepare := func(t *testing.T, opts Options) (b *blobs, d cache.Digest, path string, before []byte) {
			b = open(t, t.TempDir(), opts).blobs
			d = publish(t, b, "content", large)
			path, _ = b.pathOf(d)
			path += sumsSuffix
			before, err := os.ReadFile(path)
			if err = errors.Join(err, lack.make(path)); err != nil {
				t.Fatal(err)
			}
			return b, d, path, before
		}
		wantSums := func(t *testing.T, path string, before []byte) {
			t.Helper()
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				return // a stranger's
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, before) {
				t.Errorf("the checksums made again are other ones than those of the writer: %v", err)
			}
		}
		t.Run(lack.name+": at its first check, which proves it", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r reads
				b, d, path, before := prepare(t, Options{VerifyEvery: time.Hour, faults: r.faults()})
				var group sync.WaitGroup
				for range 4 {
					file := openKept(t, b, d)
					group.Go(func() {
						if _, err := checkAll(file); err != nil {
							t.Error(err)
						}
					})
				}
				group.Wait()
				r.want(t, "four at once", largePieces)
				wantSums(t, path, before)
			})
		})
		t.Run(lack.name+": also when whoever asked leaves", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold := make(chan struct{})
				b, d, path, before := prepare(t, Options{VerifyEvery: time.Hour, faults: faults{read: func() error { <-hold; return nil }}})
				ctx, leave := context.WithCancel(t.Context())
				file := openKept(t, b, d)
				go func() {
					if _, err := file.Check(ctx, 0, 1); !errors.Is(err, context.Canceled) {
						t.Errorf("a check by one who leaves: %v", err)
					}
					file.Close()
				}()
				synctest.Wait()
				leave()
				synctest.Wait()
				close(hold)
				synctest.Wait()
				wantSums(t, path, before)
			})
		})
		t.Run(lack.name+": when it is scrubbed", func(t *testing.T) {
			b, d, path, before := prepare(t, Options{})
			if _, err := b.Verify(t.Context(), d, func(int) error { return nil }); err != nil {
				t.Fatal(err)
			}
			wantSums(t, path, before)
		})
		t.Run(lack.name+": and is quarantined where it does not prove", func(t *testing.T) {
			b, d, _, _ := prepare(t, Options{VerifyEvery: time.Hour})
			flip(t, b, d, large-1)
			if at, err := checkAll(openKept(t, b, d)); at != 0 || !errors.Is(err, cache.ErrQuarantined) {
				t.Errorf("checks got to %d: %v", at, err)
			}
			if _, err := b.Stat(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("afterwards Stat says %v", err)
			}
		})
	}
}

func TestAProofThatTakesLongLetsAllButTheEndPass(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprint("damaged: ", damaged), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const each = 2 * time.Second
				b := open(t, t.TempDir(), Options{VerifyEvery: time.Hour, faults: faults{read: func() error { time.Sleep(each); return nil }}}).blobs
				d := publish(t, b, "content", large)
				path, _ := b.pathOf(d)
				if err := os.Remove(path + sumsSuffix); err != nil {
					t.Fatal(err)
				}
				if damaged {
					flip(t, b, d, 100)
				}
				began := time.Now()
				file := openKept(t, b, d)
				if n, err := file.Check(t.Context(), 0, 10); n != 10 || err != nil || time.Since(began) != proofTimeout {
					t.Errorf("a first check = %d, %v after %s", n, err, time.Since(began))
				}
				if n, err := file.Check(t.Context(), 10, large); n <= 0 || n > 3*pieceSize || err != nil || time.Since(began) > proofTimeout {
					t.Errorf("a second = %d, %v after %s", n, err, time.Since(began))
				}
				if n, err := file.Check(t.Context(), 4*pieceSize, 1); n != 1 || err != nil || time.Since(began) != 5*each {
					t.Errorf("one of what is not read yet = %d, %v after %s", n, err, time.Since(began))
				}
				time.Sleep(largePieces*each - time.Since(began) - proofTimeout/2)
				var group sync.WaitGroup
				defer group.Wait()
				other := openKept(t, b, d)
				group.Go(func() {
					_, err := other.Check(context.Background(), 0, 1)
					if errors.Is(err, cache.ErrMismatch) != damaged || errors.Is(err, cache.ErrUnproven) {
						t.Errorf("a check by one who waited for less: %v", err)
					}
				})
				at, err := checkAll(file)
				if since := time.Since(began); since != largePieces*each {
					t.Errorf("the end passed after %s", since)
				}
				if !damaged {
					if at != large || err != nil {
						t.Errorf("checks got to %d: %v", at, err)
					}
					return
				}
				if at != large-proofHoldback || !errors.Is(err, cache.ErrMismatch) || !errors.Is(err, cache.ErrUnproven) {
					t.Errorf("checks got to %d: %v", at, err)
				}
			})
		})
	}
}

func TestChecksumsComeAndGoWithTheirContent(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{}).blobs
	small := publish(t, b, "small", pieceSize)
	path, _ := b.pathOf(small)
	if _, err := os.Lstat(path + sumsSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("content of one piece has checksums beside it: %v", err)
	}
	d := publish(t, b, "content", large)
	if got, want := used(t, dir), b.Weight(pieceSize)+b.Weight(large); got != want {
		t.Errorf("%d bytes lie in the folder, and %d are said to", got, want)
	}
	path, _ = b.pathOf(d)
	if err := b.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + sumsSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Delete there are checksums: %v", err)
	}
	publish(t, b, "content", large)
	flip(t, b, d, 0)
	if _, err := checkAll(openKept(t, b, d)); !errors.Is(err, cache.ErrQuarantined) {
		t.Fatal(err)
	}
	if left := list(t, filepath.Dir(path)); slices.Contains(left, filepath.Base(path)+sumsSuffix) {
		t.Errorf("after it was quarantined there are %q", left)
	}
	// As an entrepot that knows no checksums would delete it.
	publish(t, b, "content", large)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := b.Walk(t.Context(), func(cache.Digest, int64) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if left := list(t, filepath.Dir(path)); len(left) > 0 {
		t.Errorf("after a walk there are %q", left)
	}
	// Deleted between its name and its checksums.
	draft := create(t, b, descriptor("content", large)).(*draft)
	if _, err := draft.Write(pattern("content", large)); err != nil {
		t.Fatal(err)
	}
	if err := draft.moveTo(path); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	b.saveSums(d, path, draft.file, draft.sums.sums())
	if left := list(t, b.drafts); len(left) > 0 {
		t.Errorf("after it was deleted while it was published there are %q", left)
	}
	if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it was deleted while it was published its folder is there: %v", err)
	}
}

func TestAChangeTimeSettles(t *testing.T) {
	at := time.Unix(1_000_000_000, 500_000_000)
	fine := files.Identity{Seconds: at.Unix(), Nanos: 500_000_000}
	coarse := files.Identity{Seconds: at.Unix()}
	for _, c := range []struct {
		of    files.Identity
		after time.Duration
		want  bool
	}{
		{fine, 0, false}, {fine, 10 * time.Millisecond, false}, {fine, 25 * time.Millisecond, true},
		{fine, -10 * time.Millisecond, false}, {fine, -time.Hour, true},
		{coarse, 2 * time.Second, false}, {coarse, 3 * time.Second, true}, {coarse, -time.Hour, true},
	} {
		if got := settled(c.of, at.Add(c.after)); got != c.want {
			t.Errorf("%+v, %s later: settled is %v", c.of, c.after, got)
		}
	}
}

func TestWhatIsKnownOfFilesIsBounded(t *testing.T) {
	b := open(t, t.TempDir(), Options{VerifyEvery: time.Hour}).blobs
	for i := range 20 {
		d := publish(t, b, string(rune('a'+i)), 1000)
		file := openKept(t, b, d).(*publishedBlob)
		file.blob.size = 1 << 40 // as far as its checks know
		file.loadChecks()
		if b.checks.bytes > maxCheckCacheBytes+file.checks.memory() {
			t.Fatalf("%d bytes are known of %d files", b.checks.bytes, b.checks.files.Len())
		}
	}
	if n := b.checks.files.Len(); n == 0 || n > 3 {
		t.Errorf("%d files of a terabyte are known", n)
	}
	for b.checks.files.Len() > 0 {
		b.checks.files.RemoveOldest()
	}
	if b.checks.bytes != 0 {
		t.Errorf("nothing is known, in %d bytes", b.checks.bytes)
	}
}
