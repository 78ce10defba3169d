package memory_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
)

func newContent(tb testing.TB, maxBytes int64) *memory.Content {
	tb.Helper()
	c, err := memory.NewContent(maxBytes)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func TestContent(t *testing.T) {
	d := digest.FromString("content")
	t.Run("what was put is got until it is deleted", func(t *testing.T) {
		c := newContent(t, 1<<20)
		if _, ok := c.Get(d); ok {
			t.Error("something was there before")
		}
		c.Put(d, []byte("content"))
		c.Wait()
		if b, ok := c.Get(d); !ok || string(b) != "content" {
			t.Errorf("Get = %q, %t", b, ok)
		}
		c.Delete(d)
		c.Wait()
		if b, ok := c.Get(d); ok {
			t.Errorf("Get after Del = %q", b)
		}
	})
	t.Run("is bounded by its bytes", func(t *testing.T) {
		const bound = 1 << 20
		c := newContent(t, bound)
		var put []cache.Digest
		for i := range 100 {
			b := bytes.Repeat(fmt.Appendf(nil, "%08d", i), 50<<10/8)
			put = append(put, digest.FromBytes(b))
			c.Put(put[i], b)
			c.Wait()
		}
		held := 0
		for _, d := range put {
			if b, ok := c.Get(d); ok {
				held += len(b)
				if digest.FromBytes(b) != d {
					t.Errorf("other bytes under %s", d)
				}
			}
		}
		if held > bound || held < bound/2 {
			t.Errorf("%d bytes are held with a bound of %d", held, bound)
		}
	})
	t.Run("larger than the bound is not kept", func(t *testing.T) {
		c := newContent(t, 1000)
		c.Put(d, make([]byte, 1001))
		c.Wait()
		if _, ok := c.Get(d); ok {
			t.Error("it was kept")
		}
	})
	t.Run("with a bound of zero keeps nothing", func(t *testing.T) {
		c := newContent(t, 0)
		c.Put(d, []byte("content"))
		c.Wait()
		if _, ok := c.Get(d); ok {
			t.Error("it was kept")
		}
		c.Delete(d)
	})
}

// What the bound allows is what the process gets, for many small entries as for
// a few large ones.
func TestContentTakesWhatItCosts(t *testing.T) {
	for _, size := range []int{10, 500, 2_000, 9_000, 33_000, 60 << 10} {
		t.Run(fmt.Sprintf("%d bytes each", size), func(t *testing.T) {
			const bound = 16 << 20
			before := live()
			c := newContent(t, bound)
			for i := 0; c.Bytes() < bound-memory.Cost(size) && i < 200_000; i++ {
				b := make([]byte, size, size+size/3) // as from a buffer that grew
				copy(b, strconv.Itoa(i))
				c.Put(digest.FromBytes(b), b)
			}
			c.Wait()
			taken := live() - before
			if c.Bytes() > bound || c.Bytes() < bound*9/10 {
				t.Errorf("it counts %d bytes with a bound of %d", c.Bytes(), bound)
			}
			if taken > bound*105/100 || taken < bound/2 {
				t.Errorf("it takes %d bytes of memory with a bound of %d", taken, bound)
			}
			runtime.KeepAlive(c)
		})
	}
}

// live is what is reachable, in bytes.
func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestContentShrinksAtOnce(t *testing.T) {
	c := newContent(t, 8<<20)
	for i := range 1000 {
		b := fmt.Appendf(make([]byte, 0, 4000), "%04000d", i)
		c.Put(digest.FromBytes(b), b)
	}
	if c.Bytes() < 4<<20 {
		t.Fatalf("it holds %d bytes", c.Bytes())
	}
	c.Limit(1 << 20)
	if c.Bytes() > 1<<20 {
		t.Errorf("it holds %d bytes with a limit of 1 MiB", c.Bytes())
	}
	c.Limit(1 << 30)
	for i := range 5000 {
		b := fmt.Appendf(make([]byte, 0, 4000), "%04000d", i)
		c.Put(digest.FromBytes(b), b)
	}
	if c.Bytes() > 8<<20 || c.Bytes() < 4<<20 {
		t.Errorf("it holds %d bytes, and may hold 8 MiB again", c.Bytes())
	}
}

func BenchmarkContentGet(b *testing.B) {
	c := newContent(b, 64<<20)
	digests := make([]cache.Digest, 1000)
	for i := range digests {
		content := bytes.Repeat(fmt.Appendf(nil, "%08d", i), 512)
		digests[i] = digest.FromBytes(content)
		c.Put(digests[i], content)
		c.Wait()
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := c.Get(digests[i%len(digests)]); !ok {
				b.Error("a miss with room for all")
				return
			}
		}
	})
}
