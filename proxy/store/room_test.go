package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
)

func plain(bounds Bounds) *room {
	r := newRoom(bounds, func(n int64) int64 { return n }, nil)
	r.counted = true
	return r
}

func TestWhatFindsNoRoomGivesUpOnlyAfterAPassInVain(t *testing.T) {
	for name, c := range map[string]struct {
		frees int64 // each pass
		waits bool  // after the first pass
	}{
		"a pass in vain":                   {},
		"many passes that free too little": {frees: 1, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := plain(Bounds{MaxBytes: 100})
				r.used = 100
				admitted := make(chan error, 1)
				go func() { admitted <- r.waitAndReserve(t.Context(), "sha256:new", 50) }()
				synctest.Wait()
				for i := range maxPasses + 1 {
					p := r.beginPass()
					if c.frees > 0 {
						r.subtract(c.frees, true)
					}
					p.end()
					synctest.Wait()
					if waits := len(admitted) == 0; i == 0 && waits != c.waits {
						t.Errorf("after one pass it waits: %v", waits)
					}
				}
				if err := <-admitted; !errors.Is(err, cache.ErrFull) || cache.BoundOf(err) != cache.MaxSize {
					t.Errorf("admitted: %v", err)
				}
				if r.demand.waiting != 0 || len(r.queue) != 0 {
					t.Errorf("%d bytes still wait", r.demand.waiting)
				}
			})
		})
	}
}

func TestWhoWaitsForRoomGetsItAsItIsFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := plain(Bounds{MaxBytes: 1000})
		r.used = 980
		ctx, leave := context.WithCancel(t.Context())
		var got []string
		wait := func(ctx context.Context, name Digest, n int64) {
			go func() {
				if err := r.waitAndReserve(ctx, name, n); err == nil {
					got = append(got, name.String())
				}
			}()
			synctest.Wait()
		}
		wait(t.Context(), "one", 100)
		wait(ctx, "gone", 500)
		wait(t.Context(), "two", 10)
		p := r.beginPass() // a pass that goes on for long
		if len(got) != 0 || r.demand.waiting != 610 {
			t.Fatalf("%v, while %d bytes wait", got, r.demand.waiting)
		}
		r.subtract(100, true)
		synctest.Wait()
		if !slices.Equal(got, []string{"one"}) {
			t.Errorf("in the middle of the pass %v got room", got)
		}
		// Nobody goes before another, but a manifest.
		r.subtract(20, true)
		if err := r.reserveAhead(t.Context(), "manifest", 20); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(got) != 1 {
			t.Errorf("%v got room before another", got)
		}
		r.subtract(20, true)
		leave()
		synctest.Wait()
		if !slices.Equal(got, []string{"one", "two"}) || !p.IsShort() {
			t.Errorf("in the end %v got room, and the pass is short: %v", got, p.IsShort())
		}
		p.end()
		if r.demand.waiting != 0 || r.used != 970 {
			t.Errorf("%d bytes wait, %d are in use", r.demand.waiting, r.used)
		}
	})
}

// Where there is no room for a large blob, the small one behind it has some.
func TestWhoWaitsBehindAHopelessOneGetsTheRoomThatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := plain(Bounds{MaxBytes: 1000})
		r.used = 900
		large, small := make(chan error, 1), make(chan error, 1)
		go func() { large <- r.waitAndReserve(t.Context(), "large", 500) }()
		synctest.Wait()
		go func() { small <- r.waitAndReserve(t.Context(), "small", 50) }()
		synctest.Wait()
		r.beginPass().end() // in vain
		if err := <-large; !errors.Is(err, cache.ErrFull) {
			t.Errorf("the large one: %v", err)
		}
		if err := <-small; err != nil {
			t.Errorf("the small one: %v", err)
		}
		if r.used != 950 || r.demand.waiting != 0 {
			t.Errorf("%d bytes are in use, %d wait", r.used, r.demand.waiting)
		}
	})
}

func TestManifestsHaveRoomThatBlobsLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 6400
		r := plain(Bounds{MaxBytes: bound})
		blob := make(chan error, 1)
		go func() { blob <- r.waitAndReserve(t.Context(), "blob", bound-bound/headShare) }()
		synctest.Wait()
		if err := <-blob; err != nil {
			t.Fatal(err)
		}
		// A blob gets nothing of it, and keeps no manifest waiting.
		ctx, cancel := context.WithCancel(t.Context())
		go func() { blob <- r.waitAndReserve(ctx, "another", 10) }()
		synctest.Wait()
		defer func() {
			cancel()
			if err := <-blob; !errors.Is(err, context.Canceled) {
				t.Errorf("another blob: %v", err)
			}
		}()
		for range headShare {
			ctx, cancel := context.WithTimeout(t.Context(), manifestWait)
			if err := r.reserveAhead(ctx, "manifest", 10); err != nil && r.used < bound-9 {
				t.Errorf("a manifest is refused at %d bytes: %v", r.used, err)
			}
			cancel()
		}
		if r.used > bound {
			t.Errorf("%d bytes are in use", r.used)
		}
	})
}

func TestTooFewInodesAreABoundToo(t *testing.T) {
	for name, c := range map[string]struct {
		space cache.Space
		files int64 // to be removed
	}{
		"many":                       {space: cache.Space{Bytes: 1 << 30, FreeBytes: 1 << 29, Inodes: 10_000, FreeInodes: 100}},
		"few":                        {space: cache.Space{Bytes: 1 << 30, FreeBytes: 1 << 29, Inodes: 10_000, FreeInodes: 99}, files: 101},
		"none":                       {space: cache.Space{Bytes: 1 << 30, FreeBytes: 1 << 29, Inodes: 120}, files: 32},
		"no limit":                   {space: cache.Space{Bytes: 1 << 30, FreeBytes: 1 << 29}},
		"a system that tells of no":  {},
		"one that tells of no bytes": {space: cache.Space{Inodes: 10_000, FreeInodes: 5000}},
		"a system of a few files":    {space: cache.Space{Bytes: 1 << 30, FreeBytes: 1 << 29, Inodes: 16}},
	} {
		t.Run(name, func(t *testing.T) {
			space := c.space
			r := plain(Bounds{MinFree: 1 << 20, Space: func() (cache.Space, error) { return space, nil }})
			r.used = 1 << 20
			p := r.beginPass()
			if p.IsShort() != (c.files > 0) || p.wanted != (tally{files: c.files}) {
				t.Fatalf("%+v has to go", p.wanted)
			}
			if c.files == 0 {
				return
			}
			for range c.files {
				if !p.IsShort() {
					t.Fatalf("it ends after %+v", r.removed)
				}
				r.subtract(1, true)
			}
			space.FreeInodes += c.files
			if p.IsShort() {
				t.Errorf("it goes on after %+v", r.removed)
			}
			p.end()
			if p := r.beginPass(); p.IsShort() {
				t.Errorf("%+v has to go again", p.wanted)
			}
		})
	}
}

func TestAFileSystemWhoseInodesNeverChangeIsNotBelieved(t *testing.T) {
	r := plain(Bounds{Space: func() (cache.Space, error) { return cache.Space{Bytes: 1, FreeBytes: 1, Inodes: 1000}, nil }})
	r.used = 1 << 20
	p := r.beginPass()
	if !p.IsShort() {
		t.Fatal("it is believed at no time")
	}
	r.subtract(1, true)
	p.end()
	if p := r.beginPass(); p.IsShort() {
		t.Errorf("%+v has to go", p.wanted)
	}
}

// However often nothing comes of making room, it is not tried at once.
func TestWhatIsTriedInVainIsTriedEverMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := plain(Bounds{MaxBytes: 100})
		for i := range 200 {
			r.tried(cache.ErrFull)
			wait := time.Until(r.refusals.notYet)
			if i >= maxVain-1 && wait < vainWait || wait > maxVainWait || i > maxVain+doublings && wait != maxVainWait {
				t.Fatalf("after %d tries in vain the next is in %s", i+1, wait)
			}
		}
	})
}
