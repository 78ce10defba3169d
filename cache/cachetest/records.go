package cachetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// Records tests the contract of cache.Records. open returns an empty store and
// closes it with t.Cleanup. Each test runs twice: on records that were just
// put, and on records that are durable.
func Records(t *testing.T, open func(t *testing.T) cache.Records) {
	for _, state := range []struct {
		name  string
		flush func(t *testing.T, r cache.Records)
	}{
		{"just put", func(*testing.T, cache.Records) {}},
		{"durable", func(t *testing.T, r cache.Records) {
			t.Helper()
			if err := r.Flush(t.Context()); err != nil {
				t.Fatalf("Flush: %v", err)
			}
		}},
	} {
		run := func(name string, test func(t *testing.T, r cache.Records, flush func())) {
			t.Run(state.name+": "+name, func(t *testing.T) {
				r := open(t)
				test(t, r, func() { state.flush(t, r) })
			})
		}
		run("what was never put is not found", testRecordAbsent)
		run("a get sees the last put and delete", testRecordLast)
		run("an empty value is a value", testRecordEmptyValue)
		run("keys and values are any bytes", testRecordAnyBytes)
		run("buckets are kept apart", testRecordBuckets)
		run("a value is copied on the way in", testRecordCopied)
		run("deleting what is not there is no error", testRecordDeleteAbsent)
		run("a scan sees the keys of a prefix in their order", testScanOrder)
		run("a scan sees the last puts and deletes", testScanLast)
		run("a scan ends when fn returns false", testScanStops)
		run("a scan of thousands sees each once", testScanMany)
		run("goroutines put, get, scan and flush at once", testRecordsConcurrent)
	}
	t.Run("a flush with nothing to do returns", func(t *testing.T) {
		r := open(t)
		for range 2 {
			if err := r.Flush(t.Context()); err != nil {
				t.Errorf("Flush: %v", err)
			}
		}
	})
	t.Run("a close is allowed twice", func(t *testing.T) {
		r := open(t)
		r.Put("a", "key", []byte("value"))
		for range 2 {
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
}

func testRecordAbsent(t *testing.T, r cache.Records, flush func()) {
	r.Put("a", "key", []byte("value"))
	flush()
	for _, key := range []string{"", "ke", "key2", "KEY"} {
		_, err := r.Get("a", key)
		wantErr(t, fmt.Sprintf("Get(%q)", key), err, cache.ErrNotFound)
	}
	_, err := r.Get("nothing", "key")
	wantErr(t, "Get from a bucket that never was", err, cache.ErrNotFound)
	wantScan(t, r, "nothing", "")
}

func testRecordLast(t *testing.T, r cache.Records, flush func()) {
	r.Put("a", "key", []byte("one"))
	wantRecord(t, r, "a", "key", "one")
	flush()
	wantRecord(t, r, "a", "key", "one")
	r.Put("a", "key", []byte("two"))
	wantRecord(t, r, "a", "key", "two")
	flush()
	wantRecord(t, r, "a", "key", "two")
	r.Delete("a", "key")
	wantNoRecord(t, r, "a", "key")
	flush()
	wantNoRecord(t, r, "a", "key")
	r.Put("a", "key", []byte("three"))
	wantRecord(t, r, "a", "key", "three")
	flush()
	wantRecord(t, r, "a", "key", "three")
}

func testRecordEmptyValue(t *testing.T, r cache.Records, flush func()) {
	r.Put("a", "nil", nil)
	r.Put("a", "empty", []byte{})
	flush()
	wantRecord(t, r, "a", "nil", "")
	wantRecord(t, r, "a", "empty", "")
	wantScan(t, r, "a", "", "empty=", "nil=")
}

func testRecordAnyBytes(t *testing.T, r cache.Records, flush func()) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	keys := []string{"\x00", "\n", "\"\\", "\xff\xfe", "docker.io\x00library/alpine\x003.20", "für", string(all)}
	for _, key := range keys {
		r.Put("a", key, []byte("the value of "+key))
	}
	flush()
	for _, key := range keys {
		wantRecord(t, r, "a", key, "the value of "+key)
	}
}

func testRecordBuckets(t *testing.T, r cache.Records, flush func()) {
	r.Put("a", "key", []byte("of a"))
	r.Put("b", "key", []byte("of b"))
	r.Put("b", "other", []byte("of b"))
	flush()
	r.Delete("a", "key")
	flush()
	wantNoRecord(t, r, "a", "key")
	wantRecord(t, r, "b", "key", "of b")
	wantScan(t, r, "a", "")
	wantScan(t, r, "b", "", "key=of b", "other=of b")
}

func testRecordCopied(t *testing.T, r cache.Records, flush func()) {
	value := []byte("value")
	r.Put("a", "key", value)
	copy(value, "other")
	flush()
	wantRecord(t, r, "a", "key", "value")
}

func testRecordDeleteAbsent(t *testing.T, r cache.Records, flush func()) {
	r.Delete("a", "key")
	r.Delete("a", "key")
	flush()
	wantNoRecord(t, r, "a", "key")
	wantScan(t, r, "a", "")
}

func testScanOrder(t *testing.T, r cache.Records, flush func()) {
	for _, key := range []string{"p/b", "p/a", "q", "p/a/1", "o", "p", "p/\xff", "p0"} {
		r.Put("a", key, []byte("v"))
	}
	flush()
	wantScan(t, r, "a", "", "o=v", "p=v", "p/a=v", "p/a/1=v", "p/b=v", "p/\xff=v", "p0=v", "q=v")
	wantScan(t, r, "a", "p/", "p/a=v", "p/a/1=v", "p/b=v", "p/\xff=v")
	wantScan(t, r, "a", "p/a/1", "p/a/1=v")
	wantScan(t, r, "a", "p/\xff", "p/\xff=v")
	wantScan(t, r, "a", "r")
}

func testScanLast(t *testing.T, r cache.Records, flush func()) {
	for _, key := range []string{"a", "b", "c", "d"} {
		r.Put("a", key, []byte("old"))
	}
	flush()
	r.Put("a", "b", []byte("new"))
	r.Delete("a", "c")
	r.Put("a", "e", []byte("new"))
	r.Delete("a", "0")
	wantScan(t, r, "a", "", "a=old", "b=new", "d=old", "e=new")
	flush()
	wantScan(t, r, "a", "", "a=old", "b=new", "d=old", "e=new")
}

func testScanStops(t *testing.T, r cache.Records, flush func()) {
	for _, key := range []string{"a", "b", "c"} {
		r.Put("a", key, nil)
	}
	flush()
	r.Put("a", "bb", nil)
	var seen []string
	err := r.Scan("a", "", func(key string, _ []byte) bool {
		seen = append(seen, key)
		return len(seen) < 2
	})
	if err != nil || !slices.Equal(seen, []string{"a", "b"}) {
		t.Errorf("Scan, stopped at the second, saw %q, %v", seen, err)
	}
}

func testScanMany(t *testing.T, r cache.Records, flush func()) {
	// Half of the keys are flushed; the other half lie between them and are
	// not.
	for half := range 2 {
		for i := half; i < 3000; i += 2 {
			key := fmt.Sprintf("key %05d", i)
			r.Put("a", key, []byte(key))
		}
		if half == 0 {
			flush()
		}
	}
	var want []string
	for i := range 3000 {
		key := fmt.Sprintf("key %05d", i)
		if i%7 == 0 {
			r.Delete("a", key)
			continue
		}
		want = append(want, key+"="+key)
	}
	wantScan(t, r, "a", "key", want...)
	flush()
	wantScan(t, r, "a", "key", want...)
}

func testRecordsConcurrent(t *testing.T, r cache.Records, flush func()) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			prefix := fmt.Sprintf("%d/", i)
			for j := range 50 {
				key := fmt.Sprintf("%s%02d", prefix, j)
				r.Put("a", key, []byte(key))
				wantRecord(t, r, "a", key, key)
				if j%2 == 1 {
					r.Delete("a", key)
					wantNoRecord(t, r, "a", key)
				}
				if j%20 == 0 {
					if err := r.Flush(context.WithoutCancel(t.Context())); err != nil {
						t.Errorf("Flush: %v", err)
					}
				}
				seen := 0
				err := r.Scan("a", prefix, func(key string, value []byte) bool {
					seen++
					if key != string(value) || !strings.HasPrefix(key, prefix) {
						t.Errorf("Scan(%q) saw %q = %q", prefix, key, value)
					}
					return true
				})
				if want := j/2 + 1; seen != want || err != nil {
					t.Errorf("Scan(%q) saw %d keys, %v, want %d", prefix, seen, err, want)
				}
			}
		})
	}
	group.Wait()
	flush()
	seen := 0
	err := r.Scan("a", "", func(string, []byte) bool { seen++; return true })
	if seen != 8*25 || err != nil {
		t.Errorf("Scan saw %d keys, %v, want %d", seen, err, 8*25)
	}
}

func wantRecord(t *testing.T, r cache.Records, b cache.Bucket, key, want string) {
	t.Helper()
	if got, err := r.Get(b, key); err != nil || string(got) != want {
		t.Errorf("Get(%s, %q) = %q, %v, want %q", b, key, got, err, want)
	}
}

func wantNoRecord(t *testing.T, r cache.Records, b cache.Bucket, key string) {
	t.Helper()
	_, err := r.Get(b, key)
	wantErr(t, fmt.Sprintf("Get(%s, %q)", b, key), err, cache.ErrNotFound)
}

// wantScan fails unless a scan sees exactly want, each as "key=value".
func wantScan(t *testing.T, r cache.Records, b cache.Bucket, prefix string, want ...string) {
	t.Helper()
	var got []string
	err := r.Scan(b, prefix, func(key string, value []byte) bool {
		got = append(got, key+"="+string(value))
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Scan(%s, %q) = %d records %q, %v, want %d records %q",
			b, prefix, len(got), got[:min(10, len(got))], err, len(want), want[:min(10, len(want))])
	}
}
