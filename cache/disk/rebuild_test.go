package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// durable is the one bucket that the tests keep in the journal.
var durable = Options{Journal: []cache.Bucket{"durable"}, FlushEvery: 10 * time.Millisecond}

// copied opens a copy of the database as it lies on the disk now.
func copied(t *testing.T, dir string) *database {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(kernel{}, newPlaces(Options{}.withDefaults(), nil), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.close() })
	return db
}

// fill keeps records of both kinds, enough for many pages, and some that are
// changed or deleted again.
func fill(t *testing.T, c *Cache) {
	t.Helper()
	for round := range 2 {
		for i := range 500 {
			for _, b := range []cache.Bucket{"durable", "other"} {
				c.Records().Put(b, fmt.Sprintf("key %03d", i), fmt.Appendf(nil, "%s %d %d", b, i, round))
			}
		}
		flush(t, c)
	}
	for i := 400; i < 500; i++ {
		c.Records().Delete("durable", fmt.Sprintf("key %03d", i))
	}
	flush(t, c)
}

// wantDurable fails unless everything durable of fill is there, and nothing else.
func wantDurable(t *testing.T, c *Cache) {
	t.Helper()
	n := 0
	err := c.Records().Scan("durable", "", func(key string, value []byte) bool {
		if want := fmt.Sprintf("key %03d", n); key != want || string(value) != fmt.Sprintf("durable %d 1", n) {
			t.Errorf("Scan: %q = %q in the place of %q", key, value, want)
			return false
		}
		n++
		return true
	})
	if n != 400 || err != nil {
		t.Errorf("Scan saw %d durable records, %v, want 400", n, err)
	}
	wantRecord(t, c, "durable", "key 123", "durable 123 1")
	wantNoRecord(t, c, "durable", "key 450")
}

func TestRecordsDamagedAtStart(t *testing.T) {
	overwrite := func(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }
	for name, damage := range map[string]func(path string) error{
		"missing":          os.Remove,
		"emptied":          func(path string) error { return os.Truncate(path, 0) },
		"cut in the head":  func(path string) error { return os.Truncate(path, 5000) },
		"cut in the first": func(path string) error { return os.Truncate(path, 100) },
		"cut at the end":   func(path string) error { return os.Truncate(path, 4*4096) },
		"all zeros":        func(path string) error { return overwrite(path, make([]byte, 1<<20)) },
		"text":             func(path string) error { return overwrite(path, []byte(strings.Repeat("entrepot ", 10_000))) },
	} {
		t.Run("a database that is "+name+" does not stop a start", func(t *testing.T) {
			dir := t.TempDir()
			c := open(t, dir, durable)
			fill(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(dir, "records.db")); err != nil {
				t.Fatal(err)
			}

			var log bytes.Buffer
			opts := durable
			opts.Log = slog.New(slog.NewTextHandler(&log, nil))
			c = open(t, dir, opts)
			wantDurable(t, c)
			if !c.Rebuilt() {
				t.Error("Rebuilt is false")
			}
			if !strings.Contains(log.String(), "restored from the journal") {
				t.Errorf("the log says %q", log.String())
			}
			flush(t, c)
			wantDurable(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}

			c = open(t, dir, durable)
			wantDurable(t, c)
			if c.Rebuilt() {
				t.Error("Rebuilt at the second start as well")
			}
		})
	}
}

// eachBranch calls fn for every page of a database that has others below it, and
// writes what that makes of them.
func eachBranch(t *testing.T, dir string, fn func(page []byte, elements int)) {
	t.Helper()
	path := filepath.Join(dir, "records.db")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	branches := 0
	for page := range slices.Chunk(content, os.Getpagesize()) {
		if binary.NativeEndian.Uint16(page[8:]) != branchPage {
			continue
		}
		branches++
		fn(page, int(binary.NativeEndian.Uint16(page[10:])))
	}
	if branches == 0 {
		t.Fatal("no page has others below it")
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bbolt itself would follow some of them until its stack is full, which ends the
// process.
func TestRecordsWhosePagesLeadBackAreNotReadForEver(t *testing.T) {
	// The page that an element names is in the second half of its 16 bytes.
	child := func(page []byte, i int) []byte {
		return page[pageHeader+i*pageElement+8 : pageHeader+(i+1)*pageElement]
	}
	for name, damage := range map[string]func(page []byte, elements int){
		"all elements name one page": func(page []byte, elements int) {
			for i := range elements {
				copy(child(page, i), child(page, 0))
			}
		},
		"a page names itself": func(page []byte, elements int) {
			for i := range elements {
				copy(child(page, i), page[:8])
			}
		},
		"a page names itself first": func(page []byte, _ int) { copy(child(page, 0), page[:8]) },
		"a page names itself last":  func(page []byte, elements int) { copy(child(page, elements-1), page[:8]) },
		"a page names none":         func(page []byte, _ int) { clear(page[10:12]) },
		"a page names one that is not there": func(page []byte, elements int) {
			for i := range elements {
				binary.NativeEndian.PutUint64(child(page, i), 1<<62)
			}
		},
		"a page is larger than the file": func(page []byte, _ int) { binary.NativeEndian.PutUint32(page[12:], 1<<31) },
		"an element is beyond its page": func(page []byte, elements int) {
			for i := range elements {
				binary.NativeEndian.PutUint32(page[pageHeader+i*pageElement:], 1<<31)
			}
		},
	} {
		for first, use := range map[string]func(c *Cache){
			"it is read":    func(*Cache) {},
			"it is changed": func(c *Cache) { c.Records().Put("other", "key 499", []byte("changed")); flushAgain(c) },
			"it is deleted": func(c *Cache) { c.Records().Delete("other", "key 250"); flushAgain(c) },
			"it is added to": func(c *Cache) {
				for i := range 1000 {
					c.Records().Put("other", fmt.Sprintf("key %03d and more", i), []byte("value"))
				}
				flushAgain(c)
			},
		} {
			t.Run(name+": "+first, func(t *testing.T) {
				dir := t.TempDir()
				c := open(t, dir, durable)
				fill(t, c)
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				eachBranch(t, dir, damage)
				c = open(t, dir, durable)
				use(c)
				wantDurable(t, c)
				if _, err := c.Records().Get("other", "key 000"); err == nil {
					t.Error("a record is there that no journal has")
				}
				if !c.Rebuilt() {
					t.Error("Rebuilt is false")
				}
			})
		}
	}
}

// flushAgain flushes: the first time may find out that the database is damaged.
func flushAgain(c *Cache) {
	for range 2 {
		_ = c.Records().Flush(context.Background())
	}
}

func TestRecordsDamagedAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	source := t.TempDir()
	c := open(t, source, durable)
	fill(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(filepath.Join(source, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	for round := range 40 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(sound)
		for range 1 + random.IntN(20) {
			at := random.IntN(len(bad))
			for i := at; i < min(at+1+random.IntN(64), len(bad)); i++ {
				bad[i] = byte(random.Uint32())
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "records.db"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, dir, durable)
		n := 0
		err := c.Records().Scan("other", "", func(key string, value []byte) bool {
			var i, last int
			if _, err := fmt.Sscanf(string(value), "other %d %d", &i, &last); err != nil || key != fmt.Sprintf("key %03d", i) {
				t.Errorf("round %d: a record reads %q = %q", round, key, value)
			}
			n++
			return true
		})
		if err != nil {
			t.Errorf("round %d: Scan: %v", round, err)
		}
		if c.Rebuilt() {
			wantDurable(t, c)
		}
		for i := range 500 {
			// Sound or absent, and never anything else.
			key := fmt.Sprintf("key %03d", i)
			for _, b := range []cache.Bucket{"durable", "other"} {
				value, err := c.Records().Get(b, key)
				if err == nil && string(value) != fmt.Sprintf("%s %d 1", b, i) {
					t.Errorf("round %d: Get(%s, %q) = %q", round, b, key, value)
				}
				if err != nil && !errors.Is(err, cache.ErrNotFound) {
					t.Errorf("round %d: Get(%s, %q): %v", round, b, key, err)
				}
			}
		}
		c.Records().Put("other", "new", []byte("value"))
		c.Records().Flush(t.Context()) // may be what finds the damage
		flush(t, c)
		wantRecord(t, c, "other", "new", "value")
		if err := c.Close(); err != nil {
			t.Errorf("round %d: Close: %v", round, err)
		}
	}
}

func TestRecordsDamagedWhileOpen(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut to nothing": func(path string) error { return os.Truncate(path, 0) },
		"cut short":      func(path string) error { return os.Truncate(path, 2*4096) },
		"overwritten": func(path string) error {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = io.Copy(file, io.LimitReader(rand.NewChaCha8([32]byte{1}), 200_000))
			return errors.Join(err, file.Close())
		},
	} {
		finders := map[string]func(t *testing.T, c *Cache){
			"a get":   func(t *testing.T, c *Cache) { wantRecord(t, c, "durable", "key 001", "durable 1 1") },
			"a scan":  func(t *testing.T, c *Cache) { wantDurable(t, c) },
			"a flush": func(t *testing.T, c *Cache) { _ = c.Records().Flush(t.Context()) },
			"all at once": func(t *testing.T, c *Cache) {
				var group sync.WaitGroup
				for i := range 12 {
					group.Go(func() {
						switch i % 3 {
						case 0:
							wantRecord(t, c, "durable", "key 001", "durable 1 1")
						case 1:
							wantDurable(t, c)
						case 2:
							_ = c.Records().Flush(t.Context())
						}
					})
				}
				group.Wait()
			},
		}
		for finder, find := range finders {
			t.Run(fmt.Sprintf("a database that is %s, found by %s, is started again", name, finder), func(t *testing.T) {
				dir := t.TempDir()
				c := open(t, dir, durable)
				fill(t, c)
				if err := damage(filepath.Join(dir, "records.db")); err != nil {
					t.Fatal(err)
				}
				c.Records().Put("other", "during", []byte("value"))
				find(t, c)
				wantRecord(t, c, "other", "during", "value")
				wantDurable(t, c)
				c.Records().Flush(t.Context()) // a writer may find it last
				flush(t, c)
				wantDurable(t, c)
				if !c.Rebuilt() {
					t.Error("Rebuilt is false")
				}
				damaged, err := filepath.Glob(filepath.Join(dir, "records.db.damaged-*"))
				if err != nil || len(damaged) != 1 {
					t.Errorf("quarantined: %q, %v, want one", damaged, err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				c = open(t, dir, durable)
				wantRecord(t, c, "other", "during", "value")
				wantDurable(t, c)
			})
		}
	}
}

func TestWriterOfABrokenDatabaseIsLetGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.db")
	db, err := openDatabase(kernel{}, newPlaces(Options{}.withDefaults(), nil), path)
	if err != nil {
		t.Fatal(err)
	}
	// Stuck, as a writer is when a reader's panic left a lock behind.
	stuck, release := make(chan struct{}), make(chan struct{})
	written := make(chan error, 1)
	go func() {
		written <- db.update(func(*bbolt.Tx) error {
			close(stuck)
			<-release
			return errors.New("released")
		})
	}()
	<-stuck
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := db.get("a", "key"); !errors.Is(err, errDamaged) {
		t.Errorf("get: %v, want errDamaged", err)
	}
	if err := <-written; !errors.Is(err, errDamaged) {
		t.Errorf("update: %v, want errDamaged", err)
	}
	close(release)
	if err := db.update(nil); !errors.Is(err, errDamaged) {
		t.Errorf("update of a broken database: %v, want errDamaged", err)
	}
	if err := db.close(); err != nil {
		t.Error(err)
	}
}

func TestDamagedDatabasesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for range maxDamagedDatabases + 2 {
		if err := os.WriteFile(filepath.Join(dir, "records.db"), make([]byte, 100_000), 0o600); err != nil {
			t.Fatal(err)
		}
		open(t, dir, Options{}).Close()
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "records.db.damaged-*"))
	if err != nil || len(damaged) != maxDamagedDatabases {
		t.Errorf("quarantined: %q, %v, want %d", damaged, err, maxDamagedDatabases)
	}
}

func TestRebuildThatWasInterrupted(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, durable)
	fill(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "records.db")); err != nil {
		t.Fatal(err)
	}
	// As a process leaves it that is killed after it made the database and
	// before it had everything back.
	db, err := openDatabase(kernel{}, newPlaces(Options{}.withDefaults(), nil), filepath.Join(dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir, durable)
	wantDurable(t, c)
	if !c.Rebuilt() {
		t.Error("Rebuilt is false")
	}
}

func TestStartWithoutRecords(t *testing.T) {
	t.Run("a new folder is not rebuilt", func(t *testing.T) {
		if open(t, t.TempDir(), durable).Rebuilt() {
			t.Error("Rebuilt is true")
		}
	})
	t.Run("records that can't be opened are kept in memory, and moved when they can", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, durable)
		fill(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		// A folder in its place: the kernel refuses to open it, as it would
		// refuse for want of room.
		path := filepath.Join(dir, "records.db")
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir, durable)
		wantDurable(t, c)
		c.Records().Put("other", "key", []byte("value"))
		if err := c.Records().Flush(t.Context()); err == nil {
			t.Error("Flush without a database: no error")
		}
		wantRecord(t, c, "other", "key", "value")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		flush(t, c)
		wantDurable(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir, durable)
		wantDurable(t, c)
		wantRecord(t, c, "other", "key", "value")
	})
}

func TestTheJournalIsRestoredInGroups(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, durable)
	const keys = 3 * restoreChanges
	put := func(from, to int, value string) {
		for i := from; i < to; i++ {
			c.Records().Put("durable", fmt.Sprintf("key %05d", i), []byte(value))
		}
		flush(t, c)
	}
	put(0, keys, "first")
	put(0, keys/2, "second")
	for i := range keys / 4 {
		c.Records().Delete("durable", fmt.Sprintf("key %05d", i))
	}
	flush(t, c)
	put(0, 10, "third")
	if err := errors.Join(c.Close(), os.Remove(filepath.Join(dir, "records.db"))); err != nil {
		t.Fatal(err)
	}
	want := func(t *testing.T) {
		t.Helper()
		n := 0
		err := c.Records().Scan("durable", "", func(key string, value []byte) bool {
			if n == 10 {
				n = keys / 4
			}
			want := "first"
			switch {
			case n < 10:
				want = "third"
			case n < keys/2:
				want = "second"
			}
			if key != fmt.Sprintf("key %05d", n) || string(value) != want {
				t.Errorf("%q = %q in the place of key %05d = %q", key, value, n, want)
				return false
			}
			n++
			return true
		})
		if n != keys || err != nil {
			t.Errorf("%d of %d, %v", n, keys, err)
		}
	}
	t.Run("into memory while the disk has no room, and to the disk when it has", func(t *testing.T) {
		opts := durable
		var mended atomic.Bool
		var groups atomic.Int64
		opts.faults.records = func() error {
			if groups.Add(1) > 2 && !mended.Load() {
				return syscall.ENOSPC
			}
			return nil
		}
		c = open(t, dir, opts)
		want(t)
		mended.Store(true)
		flush(t, c)
		want(t)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = open(t, dir, durable)
		want(t)
		if c.Rebuilt() {
			t.Error("it is restored once more")
		}
	})
	if err := errors.Join(c.Close(), os.Remove(filepath.Join(dir, "records.db"))); err != nil {
		t.Fatal(err)
	}
	t.Run("to the disk, of which no record waits", func(t *testing.T) {
		c = open(t, dir, durable)
		if c.Behind() != 0 {
			t.Error("restored records wait to be written")
		}
		want(t)
	})
}
