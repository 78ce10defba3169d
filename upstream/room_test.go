package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func alwaysGrow(int64) error { return nil }
func neverLate() bool        { return false }

func TestABodyIsReadWhateverSizeIsAnnounced(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 30_000)
	for _, n := range []int{0, 1, 511, 512, 513, firstPart - 1, firstPart, firstPart + 1, 300_000} {
		for _, size := range []int64{-1, 0, 1, int64(n) - 1, int64(n), int64(n) + 1, 1 << 40} {
			for name, body := range map[string]io.Reader{
				"at once":        bytes.NewReader(content[:n]),
				"in halves":      iotest.HalfReader(bytes.NewReader(content[:n])),
				"with its error": iotest.DataErrReader(bytes.NewReader(content[:n])),
			} {
				got, err := readBody(body, size, 1<<20, alwaysGrow, neverLate)
				if err != nil || !bytes.Equal(got, content[:n]) {
					t.Errorf("%d bytes %s, announced as %d: %d, %v", n, name, size, len(got), err)
				}
				if most := 2*n + firstPart; size <= int64(n) && cap(got) > most {
					t.Errorf("%d bytes %s, announced as %d, take %d", n, name, size, cap(got))
				}
			}
		}
	}
	if got, err := readBody(bytes.NewReader(content), int64(len(content)), 100_000, alwaysGrow, neverLate); err != nil || len(got) != 100_000 {
		t.Errorf("%d bytes of at most 100000, %v", len(got), err)
	}
	broken := errors.New("broken")
	if got, err := readBody(io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)), -1, 1<<20, alwaysGrow, neverLate); !errors.Is(err, broken) || len(got) != len(content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAnAnnouncedSizeIsBelievedWhenItBegins(t *testing.T) {
	got, err := readBody(bytes.NewReader([]byte("{}")), 8<<20, 8<<20, alwaysGrow, neverLate)
	if err != nil || cap(got) > firstPart {
		t.Errorf("two bytes take %d, %v", cap(got), err)
	}
	content := bytes.Repeat([]byte("x"), 3<<20)
	if allocs := testing.AllocsPerRun(5, func() { _, _ = readBody(bytes.NewReader(content), int64(len(content)), 8<<20, alwaysGrow, neverLate) }); allocs > 5 {
		t.Errorf("%v pieces of memory were taken", allocs)
	}
}

// trickle is a body that comes when it is told.
type trickle struct {
	next chan []byte
	rest []byte
}

func (s *trickle) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		part, ok := <-s.next
		if !ok {
			return 0, io.EOF
		}
		s.rest = part
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// However many bodies come at once, and whatever they announce, what is in hand
// of them is bounded, and all of them are read in the end.
func TestWhatIsInHandAtOnceIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		bytes int
		size  int64 // as it is announced
		most  int64 // in hand, of memory bytes
	}{
		"small lists":             {200 << 10, -1, leastRoom / 4},
		"large lists":             {1 << 20, -1, leastRoom},
		"whose size is known":     {1 << 20, 1 << 20, leastRoom * 3 / 4},
		"who announce too much":   {100 << 10, 1 << 40, leastRoom},
		"who announce too little": {1 << 20, 10, leastRoom},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				room := NewRoom(0)
				var all sync.WaitGroup
				var inHand, mostAtOnce atomic.Int64
				for i := range 60 {
					all.Go(func() {
						content, done, err := room.Read(t.Context(), fmt.Sprint(i%6), bytes.NewReader(make([]byte, test.bytes)), test.size, 16<<20)
						if err != nil || len(content) != test.bytes {
							t.Errorf("%d bytes, %v", len(content), err)
						}
						mostAtOnce.Store(max(mostAtOnce.Load(), inHand.Add(int64(len(content)))))
						time.Sleep(100 * time.Millisecond)
						if taken := room.InHand(); taken > test.most || taken < inHand.Load() {
							t.Errorf("%d bytes of room are taken for %d, of %d", taken, inHand.Load(), test.most)
						}
						inHand.Add(-int64(len(content)))
						done()
						done()
					})
				}
				all.Wait()
				if room.InHand() != 0 || mostAtOnce.Load() == 0 {
					t.Errorf("%d bytes are in hand in the end", room.InHand())
				}
			})
		})
	}
}

// An upstream that sends slowly holds its own share, and not that of others.
func TestASlowUpstreamTakesNoRoomFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := NewRoom(0)
		var slow sync.WaitGroup
		var crowded, late atomic.Int64
		const many = 20
		ends := make(chan []byte)
		for range many {
			slow.Go(func() {
				body := &trickle{next: ends, rest: make([]byte, 600<<10)}
				_, done, err := room.Read(t.Context(), "slow", body, -1, 16<<20)
				defer done()
				switch {
				case errors.Is(err, ErrCrowded) && errors.Is(err, ErrUnavailable):
					crowded.Add(1)
				case errors.Is(err, ErrTimeout):
					late.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for _, size := range []int{100 << 10, 4 << 20} {
			content, done, err := room.Read(t.Context(), "other", bytes.NewReader(make([]byte, size)), int64(size), 16<<20)
			if err != nil || len(content) != size || time.Since(began) > 0 {
				t.Errorf("%d bytes of another, %v, after %s", len(content), err, time.Since(began))
			}
			done()
		}
		// Nobody else of the slow one is kept waiting for longer than clients wait.
		time.Sleep(roomWait)
		synctest.Wait()
		if n := crowded.Load(); n != many-1 {
			t.Errorf("%d were told that there is no room, want %d", n, many-1)
		}
		// It has to make way when others wait for longer.
		time.Sleep(roomTime)
		slow.Go(func() {
			if _, done, err := room.Read(t.Context(), "slow", bytes.NewReader(make([]byte, 1<<20)), 1<<20, 16<<20); err != nil {
				t.Error(err)
			} else {
				done()
			}
		})
		synctest.Wait()
		ends <- []byte("a")
		synctest.Wait()
		if late.Load() != 1 {
			t.Error("it does not make way")
		}
		close(ends)
		slow.Wait()
		if room.InHand() != 0 {
			t.Errorf("%d bytes are in hand in the end", room.InHand())
		}
	})
}

// Nobody waits for room that a client that has left waits for.
func TestWhoLeavesIsInNobodysWayForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := NewRoom(0)
		read := func(ctx context.Context, of string, size int64) (func(), error) {
			_, done, err := room.Read(ctx, of, bytes.NewReader(make([]byte, size)), size, 16<<20)
			return done, err
		}
		first, err := read(t.Context(), "a", 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		second, err := read(t.Context(), "b", 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			done, err := read(ctx, "c", 6<<20)
			done()
			left <- err
		}()
		synctest.Wait()
		came := make(chan error, 1)
		go func() {
			done, err := read(t.Context(), "d", 2<<20)
			done()
			came <- err
		}()
		synctest.Wait()
		select {
		case err := <-came:
			t.Errorf("who came last is first: %v", err) // large ones would wait for ever
		default:
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		began := time.Now()
		if err := <-came; err != nil || time.Since(began) > 0 {
			t.Errorf("%v, after %s", err, time.Since(began))
		}
		first()
		second()
	})
}
