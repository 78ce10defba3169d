package warm_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

func TestPinnedImagesStayAndAreCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		bypassed := 0
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = 250 << 10
			opts.Rules.TagTTL = time.Hour * 1000
			opts.Pins.Matches = func(repo warm.Repository, ref string) bool { return repo == mirrortest.App && ref == "configured" }
			opts.Events.Bypassed = func(string) { bypassed++ }
		})
		_, first := o.Image("app", "configured", mirrortest.Bytes(1, 100<<10))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "configured"); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		if !m.Store.Has(t.Context(), first.Digest) {
			t.Error("of an image that a pattern pins only what was asked for is cached")
		}
		_, second := o.Image("app", "commanded", mirrortest.Bytes(2, 100<<10))
		done, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "commanded"})
		if err != nil || done.Manifests != 1 || done.Blobs != 2 || done.Fetched != 3 {
			t.Errorf("pinned: %+v, %v", done, err)
		}
		mirrortest.Wait()
		// There is room for nothing else, but clients get their bytes.
		for i := range 5 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(10+i), 100<<10))
			m.PullImage(t, warm.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		mirrortest.Wait()
		for name, d := range map[string]warm.Digest{"configured": first.Digest, "commanded": second.Digest} {
			if !m.Store.Has(t.Context(), d) {
				t.Errorf("the layer of the pinned image %s is gone", name)
			}
		}
		if bypassed < 5 {
			t.Errorf("%d blobs were counted as not cached, want 5 at least", bypassed)
		}
		if got := m.BytesOnDisk(t); got > 250<<10 {
			t.Errorf("%d bytes are cached", got)
		}
		if was, err := m.Unpin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "commanded"}); !was || err != nil {
			t.Errorf("unpinned: %v, %v", was, err)
		}
		m.PullImage(t, warm.Repository{Upstream: "hub", Name: "other"}, "0")
		mirrortest.Wait()
		if m.Store.Has(t.Context(), second.Digest) {
			t.Error("an image that is unpinned makes no room")
		}
	})
}

func TestAPinnedTagThatMovesIsCompletedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		o.Image("app", "1", mirrortest.Bytes(1, 10<<10))
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); err != nil {
			t.Fatal(err)
		}
		_, layer := o.Image("app", "1", mirrortest.Bytes(2, 10<<10))
		time.Sleep(2 * time.Minute)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		if !m.Store.Has(t.Context(), layer.Digest) {
			t.Error("the layer of what the tag means now was not fetched")
		}
	})
}

func TestAPinStaysUntilItsImageIsAvailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		synctest.Wait() // the look at the start finds no pin
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 10<<10))
		o.Fail("*", slices.Repeat([]error{upstream.ErrRefused}, 10)...)
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, warm.ErrIncomplete) || !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("pin without an upstream: %v", err)
		}
		o.ClearFailures()
		time.Sleep(warm.PinInterval + time.Second)
		mirrortest.Wait()
		if !m.Store.Has(t.Context(), layer.Digest) {
			t.Error("it was not tried again")
		}
	})
}

// The referrers of a pinned image are part of it. If they cannot be looked up,
// that does not mean that there are none.
func TestAPinnedImageIsIncompleteUntilItsReferrersAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		m := mirrortest.New(t, o, nil)
		synctest.Wait() // what tends pins has looked
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		signature := o.Attach(subject, "sig")
		ask := "GET referrers app " + mirrortest.Short(subject.Digest.String())
		o.Fail(ask, upstream.ErrInvalidResponse)
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, warm.ErrIncomplete) {
			t.Errorf("pin without the API: %v", err)
		}
		time.Sleep(5 * warm.PinInterval)
		mirrortest.Wait()
		if !m.Store.Has(t.Context(), signature.Digest) {
			t.Error("what refers to it was not asked for again")
		}
		// If the upstream keeps failing, it is not asked each time.
		other, _ := o.Image("app", "2", mirrortest.Bytes(2, 50))
		ask = "GET referrers app " + mirrortest.Short(other.Digest.String())
		o.Fail(ask, slices.Repeat([]error{upstream.ErrInvalidResponse}, 1000)...)
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "2"}); !errors.Is(err, warm.ErrIncomplete) {
			t.Errorf("pin without the API: %v", err)
		}
		o.Transcript()
		time.Sleep(2 * time.Hour)
		if n := mirrortest.Count(o.Transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in two hours it was asked %d times", n)
		}
		// Nor if only a part is known.
		third, _ := o.Image("app", "3", mirrortest.Bytes(3, 50))
		o.List(third.Digest, o.Attach(third, "sig"))
		ask = "GET referrers app " + mirrortest.Short(third.Digest.String())
		o.Fail(ask, slices.Repeat([]error{upstream.ErrInvalidResponse}, 1000)...)
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "3"}); !errors.Is(err, warm.ErrIncomplete) {
			t.Errorf("pin of what the tag alone lists: %v", err)
		}
		o.Transcript()
		time.Sleep(2 * time.Hour)
		if n := mirrortest.Count(o.Transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in two hours it was asked %d times, with a part of the answer", n)
		}
	})
}

func TestAMissingImageIsNotPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mirrortest.New(t, mirrortest.NewOrigin(), nil)
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("pin of nothing: %v", err)
		}
		if pins, err := m.Pins(); len(pins) > 0 || err != nil {
			t.Errorf("pins: %v, %v", pins, err)
		}
	})
}

func TestAPinnedImageThatDoesNotFitIsNotDownloadedForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 50 << 10 })
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, cache.ErrFull) {
			t.Errorf("pin: %v", err)
		}
		o.Transcript()
		time.Sleep(12 * time.Hour)
		mirrortest.Wait()
		line := "GET blob app " + mirrortest.Short(layer.Digest.String())
		asked := slices.DeleteFunc(o.Transcript(), func(asked string) bool { return asked != line })
		if len(asked) == 0 || len(asked) > 12 {
			t.Errorf("in twelve hours it was downloaded %d times", len(asked))
		}
	})
}

// loud is a log whose code panics about a digest.
type loud struct {
	slog.Handler
	about warm.Digest
	now   *atomic.Bool
}

func (l loud) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "digest" && a.Value.String() == l.about.String() && l.now.Load() {
			panic("broken")
		}
	}
	return l
}

// TestAPanicAboutABlobOfAPinnedImageIsItsFailure (13.1): the image is not
// complete, everything else of it is fetched, and it is tried again.
func TestAPanicAboutABlobOfAPinnedImageIsItsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		panics.Handle(func(string, any, []byte) { told.Add(1) })
		defer panics.Handle(nil)
		o := mirrortest.NewOrigin()
		image, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		var now atomic.Bool
		now.Store(true)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Logger = slog.New(loud{slog.DiscardHandler, layer.Digest, &now})
		})
		if done, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, warm.ErrIncomplete) || !errors.Is(err, panics.ErrPanic) || told.Load() == 0 {
			t.Errorf("pinned: %+v, %v, and %d panics were told of", done, err, told.Load())
		}
		mirrortest.Wait()
		for _, d := range m.BlobsOf(t, image.Digest) {
			if m.HasContent(d) == (d == layer.Digest) {
				t.Errorf("%s is kept: %v", d, m.HasContent(d))
			}
		}
		now.Store(false)
		time.Sleep(time.Hour)
		if !m.HasContent(layer.Digest) {
			t.Error("it was not tried again")
		}
	})
}

// A hit of a long list is the bytes that are sent: what it names is on record.
func TestAPinnedImageWhoseLongListIsKeptIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100 // of which the list has more than 16 KiB
		o := mirrortest.NewOrigin()
		o.API = true
		m := mirrortest.New(t, o, nil)
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 100))
		for i := range many {
			o.Attach(image, fmt.Sprint("application/vnd.example.type", i))
		}
		if got, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); err != nil || len(got.Manifests) != many {
			t.Fatalf("%d are listed, %v", len(got.Manifests), err)
		}
		if got, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); err != nil || got.Manifests != nil {
			t.Fatalf("%d are named by a hit, %v: the list is not a long one", len(got.Manifests), err)
		}
		done, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"})
		if err != nil || done.Manifests != many+1 {
			t.Errorf("pinned: %+v, %v", done, err)
		}
	})
}
