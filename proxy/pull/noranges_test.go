package pull_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
)

// TestF38ARepositoryWithoutRangesIsAskedForARangeOnce downloads several blobs
// one after another, of each of which a part is read that is far ahead of what
// has come.
func TestF38ARepositoryWithoutRangesIsAskedForARangeOnce(t *testing.T) {
	const size = 8 << 20
	far := pull.Span{From: 6 << 20, To: 6<<20 + 100}
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.NoRange = true
		m := mirrortest.New(t, o, nil)
		seed := byte(0)
		// read returns how often a range of another blob was asked for.
		read := func(repo mirrortest.Repository) (ranges int) {
			t.Helper()
			seed++
			content := mirrortest.Bytes(seed, size)
			layer := o.Put(repo.Name, "layer", content)
			more := make(chan struct{})
			o.Bodies = func(_ string, _ mirrortest.Digest, _ int64, body []byte) io.ReadCloser {
				return io.NopCloser(io.MultiReader(bytes.NewReader(body[:1<<20]), waiting{more}, bytes.NewReader(body[1<<20:])))
			}
			done := make(chan error, 2)
			go func() { done <- m.Read(t.Context(), repo, layer.Digest) }()
			mirrortest.Wait()
			go func() {
				got, err := readPart(t, m, repo, layer.Digest, far)
				if err == nil && !bytes.Equal(got, content[far.From:far.To]) {
					t.Error("other bytes")
				}
				done <- err
			}()
			mirrortest.Wait()
			close(more)
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			mirrortest.Wait()
			asked := slices.DeleteFunc(o.Transcript(), func(line string) bool { return !strings.HasSuffix(line, "6291456+100") })
			return len(asked)
		}
		lib := mirrortest.Repository{Upstream: "hub", Name: "lib"}
		for _, c := range []struct {
			name string
			repo mirrortest.Repository
			want int
		}{
			{"the first of app", mirrortest.App, 1},
			{"the next of app", mirrortest.App, 0},
			{"the first of lib", lib, 1},
			{"the next of lib", lib, 0},
		} {
			if n := read(c.repo); n != c.want {
				t.Errorf("%s: a range was asked for %d times, want %d", c.name, n, c.want)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := read(mirrortest.App); n != 1 {
			t.Errorf("after a while: a range was asked for %d times, want once", n)
		}
		// A part that is read alone shows that there are ranges again.
		o.NoRange, o.Bodies = false, nil
		layer := o.Put("app", "layer", mirrortest.Bytes(100, size))
		if _, err := readPart(t, m, mirrortest.App, layer.Digest, far); err != nil {
			t.Error(err)
		}
		o.Transcript()
		o.NoRange = true
		if n := read(mirrortest.App); n != 1 {
			t.Errorf("after an answer with a range: a range was asked for %d times, want once", n)
		}
	})
}
