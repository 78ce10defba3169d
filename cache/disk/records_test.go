package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// transactions is how many write transactions a database has seen.
func transactions(t *testing.T, r *records) (n int) {
	t.Helper()
	err := r.current().view(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRecordsAreGrouped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, t.TempDir(), Options{FlushEvery: time.Second, FlushAt: 100}).records
		before := transactions(t, r)
		for i := range 99 {
			r.Put("a", fmt.Sprint(i), []byte("value"))
		}
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if n := transactions(t, r) - before; n != 0 {
			t.Errorf("%d transactions before the moment is over, want none", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := transactions(t, r) - before; n != 1 {
			t.Errorf("%d transactions for 99 records of one moment, want 1", n)
		}

		for i := range 100 {
			r.Put("a", fmt.Sprint(i), []byte("other"))
		}
		synctest.Wait()
		if n := transactions(t, r) - before; n != 2 {
			t.Errorf("%d transactions after many records, want the second at once", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := transactions(t, r) - before; n != 2 {
			t.Errorf("%d transactions after a minute without records, want 2", n)
		}
	})
}

func TestRecordsReportHowFarTheyAreBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		c := open(t, t.TempDir(), Options{FlushEvery: time.Second, faults: faults{records: func() error {
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}}})
		want := func(when string, want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := c.Behind(); got != want {
				t.Errorf("%s: %s behind, want %s", when, got, want)
			}
		}
		time.Sleep(time.Hour)
		want("nothing waits", 0)
		c.records.Put("a", "1", []byte("value"))
		time.Sleep(600 * time.Millisecond)
		want("one waits", 600*time.Millisecond)
		c.records.Put("a", "1", []byte("other")) // what it said before is as little durable
		time.Sleep(300 * time.Millisecond)
		want("one was put again", 900*time.Millisecond)
		time.Sleep(100 * time.Millisecond)
		want("flushed", 0)

		full.Store(true)
		c.records.Put("a", "2", nil)
		time.Sleep(20 * time.Second)
		want("the disk takes none", 20*time.Second)
		full.Store(false)
		time.Sleep(retryFactor * time.Second)
		want("the disk takes records again", 0)
	})
}

func TestRecordsAreDurable(t *testing.T) {
	t.Run("what was flushed is there without a close", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{FlushEvery: time.Hour})
		c.Records().Put("a", "key", []byte("value"))
		c.Records().Put("a", "gone", []byte("value"))
		flush(t, c)
		c.Records().Delete("a", "gone")
		flush(t, c)
		// Behind its back, as another process would after a crash.
		db := copied(t, dir)
		if value, err := db.get("a", "key"); string(value) != "value" || err != nil {
			t.Errorf("the file holds %q, %v", value, err)
		}
		if _, err := db.get("a", "gone"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("a deleted record in the file: %v, want ErrNotFound", err)
		}
	})
	t.Run("what was put is there after a close", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{FlushEvery: time.Hour})
		c.Records().Put("a", "key", []byte("value"))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Records().Get("a", "key"); !errors.Is(err, errRecordsClosed) {
			t.Errorf("Get after Close: %v", err)
		}
		if err := c.Records().Scan("a", "", nil); !errors.Is(err, errRecordsClosed) {
			t.Errorf("Scan after Close: %v", err)
		}
		if err := c.Records().Flush(t.Context()); !errors.Is(err, errRecordsClosed) {
			t.Errorf("Flush after Close: %v", err)
		}
		c.Records().Put("a", "late", nil)
		c = open(t, dir, Options{})
		wantRecord(t, c, "a", "key", "value")
		wantNoRecord(t, c, "a", "late")
		if c.Rebuilt() {
			t.Error("Rebuilt after a clean close")
		}
	})
	t.Run("a key that bbolt can't keep is refused and stops no other", func(t *testing.T) {
		var failures atomic.Int32
		c := open(t, t.TempDir(), Options{OnRecordsError: func(error) { failures.Add(1) }})
		c.Records().Put("a", "", []byte("value"))
		c.Records().Put("", "key", []byte("value"))
		c.Records().Put("a", strings.Repeat("x", bbolt.MaxKeySize+1), []byte("value"))
		c.Records().Put("a", strings.Repeat("x", bbolt.MaxKeySize), []byte("long"))
		c.Records().Put("a", "key", []byte("value"))
		flush(t, c)
		wantRecord(t, c, "a", strings.Repeat("x", bbolt.MaxKeySize), "long")
		wantRecord(t, c, "a", "key", "value")
		if failures.Load() != 3 {
			t.Errorf("%d failures were counted, want 3", failures.Load())
		}
	})
	t.Run("a flush ends with its context", func(t *testing.T) {
		reason := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		release := make(chan struct{})
		c := open(t, t.TempDir(), Options{faults: faults{records: func() error { <-release; return nil }}})
		c.Records().Put("a", "key", nil)
		// Whether it is taken up or not: nobody answers until the release.
		if err := c.Records().Flush(ctx); !errors.Is(err, reason) {
			t.Errorf("Flush: %v, want %v", err, reason)
		}
		close(release)
	})
}

func TestRecordsWithoutRoom(t *testing.T) {
	t.Run("are served from memory, tried again, and durable once there is room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var full atomic.Bool
			var failures atomic.Int32
			var log bytes.Buffer
			dir := t.TempDir()
			c := open(t, dir, Options{
				Log:            slog.New(slog.NewTextHandler(&log, nil)),
				FlushEvery:     time.Second,
				OnRecordsError: func(error) { failures.Add(1) },
				faults: faults{records: func() error {
					if full.Load() {
						return syscall.ENOSPC
					}
					return nil
				}},
			})
			c.Records().Put("a", "before", []byte("value"))
			c.Records().Put("a", "deleted", []byte("value"))
			flush(t, c)
			full.Store(true)
			c.Records().Put("a", "key", []byte("value"))
			c.Records().Delete("a", "deleted")
			if err := c.Records().Flush(t.Context()); !errors.Is(err, cache.ErrFull) {
				t.Errorf("Flush without room: %v, want ErrFull", err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			wantRecord(t, c, "a", "before", "value")
			wantRecord(t, c, "a", "key", "value")
			wantNoRecord(t, c, "a", "deleted")
			if n := failures.Load(); n < 10 || n > 20 {
				t.Errorf("%d failures in a minute, want one every five times FlushEvery", n)
			}
			if n := strings.Count(log.String(), "can't be written"); n != 1 {
				t.Errorf("it was logged %d times, want once", n)
			}

			full.Store(false)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if !strings.Contains(log.String(), "records can be written again") {
				t.Error("that it mended was not logged")
			}
			db := copied(t, dir)
			if value, err := db.get("a", "key"); string(value) != "value" || err != nil {
				t.Errorf("the file holds %q, %v with room again", value, err)
			}
		})
	})
	t.Run("are bounded: the oldest go first", func(t *testing.T) {
		var dropped atomic.Int32
		full := func() error { return syscall.ENOSPC }
		c := open(t, t.TempDir(), Options{
			MaxPending:     100,
			FlushEvery:     time.Hour,
			faults:         faults{records: full},
			OnRecordsError: func(error) { dropped.Add(1) },
		})
		for i := range 101 {
			c.Records().Put("a", fmt.Sprintf("%03d", i), []byte("value"))
		}
		for i := range 101 {
			if key := fmt.Sprintf("%03d", i); i < 10 {
				wantNoRecord(t, c, "a", key)
			} else {
				wantRecord(t, c, "a", key, "value")
			}
		}
		if dropped.Load() != 1 {
			t.Errorf("%d failures were counted, want 1", dropped.Load())
		}
		if c.records.count != 91 || c.records.unjournaled != 91 {
			t.Errorf("%d wait, %d loose, want 91", c.records.count, c.records.unjournaled)
		}
		c.records.opts.faults = faults{} // so that the close can write
	})
}

func flush(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Records().Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

func wantRecord(t *testing.T, c *Cache, b cache.Bucket, key, want string) {
	t.Helper()
	if value, err := c.Records().Get(b, key); string(value) != want || err != nil {
		t.Errorf("Get(%s, %.40q) = %q, %v, want %q", b, key, value, err, want)
	}
}

func wantNoRecord(t *testing.T, c *Cache, b cache.Bucket, key string) {
	t.Helper()
	if value, err := c.Records().Get(b, key); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Get(%s, %.40q) = %q, %v, want ErrNotFound", b, key, value, err)
	}
}
