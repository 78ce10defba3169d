package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// onDisk is the size of the files of records, without what bbolt has only set
// aside.
func onDisk(t *testing.T, c *Cache, dir string) int64 {
	t.Helper()
	journal, err := os.Stat(filepath.Join(dir, "records.journal"))
	if err != nil {
		t.Fatal(err)
	}
	return c.records.current().size.Load() + journal.Size()
}

// Somebody reads all the time meanwhile.
func TestWhatRecordsNoLongerNeedIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{Journal: []cache.Bucket{"durable"}, FlushEvery: time.Hour})
	value := bytes.Repeat([]byte("x"), 10_000)
	for i := range 2000 {
		c.Records().Put("durable", fmt.Sprintf("%04d", i), value)
	}
	c.Records().Put("other", "key", []byte("stays"))
	flush(t, c)
	full := onDisk(t, c, dir)
	if full < 38<<20 || c.RecordBytes() != full {
		t.Fatalf("%d bytes are on disk, and %d are counted", full, c.RecordBytes())
	}

	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	var reads atomic.Int64
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if got, err := c.Records().Get("durable", "1999"); err != nil || !bytes.Equal(got, value) {
					t.Errorf("read: %d bytes, %v", len(got), err)
					return
				}
				n := 0
				if err := c.Records().Scan("durable", "199", func(string, []byte) bool { n++; return true }); err != nil || n != 10 {
					t.Errorf("scan: %d, %v", n, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	for i := range 1990 {
		c.Records().Delete("durable", fmt.Sprintf("%04d", i))
	}
	flush(t, c)
	flush(t, c)
	for reads.Load() < 10 && !t.Failed() {
		flush(t, c)
	}
	if now := onDisk(t, c, dir); now > 1<<20 || c.RecordBytes() > 1<<20 {
		t.Errorf("%d bytes of %d are still on disk, and %d are counted", now, full, c.RecordBytes())
	}
	stop()
	readers.Wait()
	wantRecord(t, c, "other", "key", "stays")
	wantNoRecord(t, c, "durable", "0000")
	c.Records().Put("other", "later", []byte("too"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "records.*")); err != nil || len(left) != 2 {
		t.Errorf("there are %v, %v", left, err)
	}
	c = open(t, dir, Options{})
	wantRecord(t, c, "other", "later", "too")
	wantRecord(t, c, "durable", "1999", string(value))
	if c.Rebuilt() {
		t.Error("the database is new")
	}
}

// Both databases are on disk while one is written anew.
func TestADatabaseThatIsWrittenAnewIsCountedTwice(t *testing.T) {
	var c *Cache
	var looks atomic.Bool
	var most atomic.Int64
	c = open(t, t.TempDir(), Options{FlushEvery: time.Hour, faults: faults{records: func() error {
		if looks.Load() {
			beside := c.RecordBytes() - c.records.journal.bytes.Load() - c.records.current().bytes()
			most.Store(max(most.Load(), beside))
		}
		return nil
	}}})
	value := bytes.Repeat([]byte("x"), 10_000)
	for i := range 2000 {
		c.Records().Put("bucket", fmt.Sprintf("%04d", i), value)
	}
	flush(t, c)
	for i := range 1600 {
		c.Records().Delete("bucket", fmt.Sprintf("%04d", i))
	}
	looks.Store(true)
	flush(t, c)
	flush(t, c)
	if got := most.Load(); got < 3<<20 {
		t.Errorf("%d bytes of the new database are counted while it is written", got)
	}
	if c.records.fresh.Load() != nil || c.RecordBytes() > 10<<20 {
		t.Errorf("afterwards, %d bytes are counted", c.RecordBytes())
	}
}

func TestWhatWasSetAsideIsCountedAndCanBeRemoved(t *testing.T) {
	dir := t.TempDir()
	name := "records.db.damaged-20200101T000000.000000000Z"
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "records.db"), make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir, Options{})
	if all := c.Aside(); len(all) != 2 || c.AsideBytes() != 101_000 {
		t.Fatalf("%d bytes in %v", c.AsideBytes(), all)
	}
	if err := c.DropAside(name); err != nil {
		t.Fatal(err)
	}
	if all := c.Aside(); len(all) != 1 || c.AsideBytes() != 100_000 {
		t.Errorf("%d bytes in %v", c.AsideBytes(), all)
	}
	for _, not := range []string{"records.db", "../" + filepath.Base(dir) + "/records.db", "lock", name} {
		if err := c.DropAside(not); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was removed: %v", not, err)
		}
	}
}

// What has to be durable is dropped only if there is nothing else, and the disk
// refuses it.
func TestWhatMustNotBeLostIsDroppedLast(t *testing.T) {
	var full atomic.Bool
	c := open(t, t.TempDir(), Options{
		Journal: []cache.Bucket{"durable"}, MaxPending: 100, FlushEvery: time.Hour, FlushAt: 1 << 20,
		faults: faults{records: func() error {
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}},
	})
	for i := range 50 {
		c.Records().Put("durable", fmt.Sprint(i), []byte("value"))
	}
	for i := range 1000 {
		c.Records().Put("other", fmt.Sprint(i), []byte("value"))
	}
	for i := 50; i < 150; i++ {
		c.Records().Put("durable", fmt.Sprint(i), []byte("value"))
	}
	for i := range 150 {
		wantRecord(t, c, "durable", fmt.Sprint(i), "value")
	}
	if n := c.records.count; n > 200 {
		t.Errorf("%d are waiting", n)
	}
	full.Store(true)
	if err := c.Records().Flush(t.Context()); !errors.Is(err, cache.ErrFull) {
		t.Fatal(err)
	}
	for i := range 1000 {
		c.Records().Put("durable", fmt.Sprint(1000+i), []byte("value"))
	}
	if n := c.records.count; n > 150 {
		t.Errorf("%d are waiting for a disk that takes none", n)
	}
	for i := range 3 {
		c.Records().Put("other", fmt.Sprint("late ", i), []byte("value"))
	}
	for i, before := 0, 0; c.records.count > before; i++ {
		before = c.records.count
		c.Records().Put("durable", fmt.Sprint(5000+i), []byte("value"))
	}
	for i := range 3 {
		wantNoRecord(t, c, "other", fmt.Sprint("late ", i))
	}
	full.Store(false)
}

func TestWhoPutsManyRecordsIsSlowed(t *testing.T) {
	var full atomic.Bool
	c := open(t, t.TempDir(), Options{
		Journal: []cache.Bucket{"durable"}, MaxPending: 100, FlushEvery: time.Hour, FlushAt: 1 << 20,
		faults: faults{records: func() error {
			if full.Load() {
				return syscall.ENOSPC
			}
			return nil
		}},
	})
	for i := range 1000 {
		c.Records().Pace(t.Context())
		c.Records().Put("durable", fmt.Sprint(i), []byte("value"))
		c.records.mu.Lock()
		waiting := c.records.count
		c.records.mu.Unlock()
		if waiting > 51 {
			t.Fatalf("%d are waiting", waiting)
		}
	}
	full.Store(true)
	for i := range 60 {
		c.Records().Put("durable", fmt.Sprint(1000+i), []byte("value"))
	}
	c.Records().Pace(t.Context()) // it does not wait for a disk that takes none
	full.Store(false)
}

// TestADatabaseIsMeasuredWhileItIsClosed has a writer that the kernel let go late
// come to an end when the process does.
func TestADatabaseIsMeasuredWhileItIsClosed(t *testing.T) {
	db, err := openDatabase(kernel{}, newPlaces(Options{}.withDefaults(), nil), filepath.Join(t.TempDir(), "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	size := db.size.Load()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			if err := recoverDamage(func() error { db.measure(); return nil }); err != nil {
				t.Errorf("measured while it is closed: %v", err)
				return
			}
		}
	}()
	if err := db.close(); err != nil {
		t.Error(err)
	}
	<-done
	if got := db.size.Load(); got != size || size == 0 {
		t.Errorf("it has %d bytes, had %d", got, size)
	}
}
