package flight_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
)

// TestASourceThatHadNoRangesIsAskedForNoneBesideTheFill downloads the whole, of
// which a part has come, and then a part that is far ahead is read. A source that
// ignores the Range begins with the whole once more.
func TestASourceThatHadNoRangesIsAskedForNoneBesideTheFill(t *testing.T) {
	far := cache.Span{From: 6 * mib, To: 6*mib + 100}
	for name, c := range map[string]struct {
		known bool // that it had no ranges
		asked []string
		told  []bool
	}{
		"nobody knows": {false, []string{"0+-1", "6291456+100"}, []bool{false}},
		"it is known":  {true, []string{"0+-1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				more := make(chan struct{})
				s := &scripted{content: bytesOf(1, largeSize), noRange: true, bodies: heldAt(mib, more)}
				g := newGroup(t, newTestSink(memory.New()))
				start := s.start()
				start.NoRanges = c.known
				f, _ := g.join(t, s.want(), start)
				defer f.Release()
				whole := follow(f, io.Discard)
				synctest.Wait()
				var reader sync.WaitGroup
				reader.Go(func() {
					if err := readParts(f, s.content, far); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				s.wantAsked(t, c.asked...)
				close(more)
				reader.Wait()
				if err := <-whole; err != nil {
					t.Error(err)
				}
				if s.wantAsked(t); !slices.Equal(s.hasRanges, c.told) {
					t.Errorf("the observer was told %v, want %v", s.hasRanges, c.told)
				}
			})
		})
	}
}

// TestASourceThatHasRangesAgainIsBelieved: who reads a part alone asks for it by
// its range whatever is known, because the answer is of use either way. If it is
// the part, others are asked for beside the fill again.
func TestASourceThatHasRangesAgainIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		more := make(chan struct{})
		s := &scripted{content: bytesOf(1, 4*largeSize), gate: make(chan struct{})}
		s.bodies = func(from int64, body []byte) io.ReadCloser {
			if from == 0 {
				return heldAt(mib, more)(from, body)
			}
			return cutAfter(body, len(body), io.EOF)
		}
		g := newGroup(t, newTestSink(memory.New()))
		start := s.look()
		start.NoRanges = true
		f, _ := g.join(t, s.want(), start)
		defer f.Release()
		var readers sync.WaitGroup
		read := func(part cache.Span) {
			readers.Go(func() {
				if err := readParts(f, s.content, part); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		read(cache.Span{From: 20 * mib, To: 20*mib + 100})
		read(cache.Span{From: 10 * mib, To: 10*mib + 100})
		f.Fill()
		synctest.Wait()
		s.wantAsked(t, "20971520+100") // until it is answered
		close(s.gate)
		synctest.Wait()
		if !slices.Contains(s.hasRanges, true) || slices.Contains(s.hasRanges, false) {
			t.Errorf("the observer was told %v", s.hasRanges)
		}
		read(cache.Span{From: 28 * mib, To: 28*mib + 100})
		if asked := s.transcript(); !slices.Contains(asked, "29360128+100") {
			t.Errorf("beside the fill it was asked %q", asked)
		}
		close(more)
		readers.Wait()
		if _, err := f.Follow(context.Background(), io.Discard, 0, -1); err != nil {
			t.Error(err)
		}
	})
}

// All of the content may be the answer to a range that is all of it, from a
// source that has ranges (RFC 9110, section 14.2).
func TestAWholeAnswerToARangeOfAllOfItSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), noRange: true}
		g := newGroup(t, newTestSink(memory.New()))
		if err := g.readParts(t, s, cache.Span{From: 0, To: largeSize}); err != nil {
			t.Fatal(err)
		}
		if len(s.hasRanges) > 0 {
			t.Errorf("the observer was told %v", s.hasRanges)
		}
		s.wantAsked(t, "0+8388608")
	})
}
