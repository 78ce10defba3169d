package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// pullWhole pulls an image as a runtime does: the tag, the children, the blobs.
func (m mirror) pullWhole(t *testing.T, repo Repository, tag string) Digest {
	t.Helper()
	root, err := m.Manifest(t.Context(), repo, tag)
	if err != nil {
		t.Fatalf("pull %s: %v", tag, err)
	}
	for queue := []Manifest{root}; len(queue) > 0; queue = queue[1:] {
		children, blobs, _, err := referrers.Names(queue[0].Descriptor.MediaType, queue[0].Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range children {
			child, err := m.Manifest(t.Context(), repo, c.Digest.String())
			if err != nil {
				t.Fatalf("pull %s: %v", tag, err)
			}
			queue = append(queue, child)
		}
		for _, b := range blobs {
			if err := m.read(t.Context(), repo, b.Digest); err != nil {
				t.Fatalf("pull %s: %v", tag, err)
			}
		}
	}
	return root.Descriptor.Digest
}

func (m mirror) read(ctx context.Context, repo Repository, d Digest) error {
	b, err := m.Blob(ctx, repo, d)
	if err != nil {
		return err
	}
	defer b.Close()
	hash := d.Algorithm().Hash()
	if _, err := b.WriteRange(ctx, hash, 0, -1); err != nil {
		return err
	}
	if got := Digest(fmt.Sprintf("%s:%x", d.Algorithm(), hash.Sum(nil))); got != d {
		return fmt.Errorf("the bytes of %s have the digest %s", d, got)
	}
	return nil
}

// bytesKept is what really lies in the cache.
func (m mirror) bytesKept(t *testing.T) (total int64) {
	t.Helper()
	if err := m.opts.Blobs.Walk(t.Context(), func(_ Digest, size int64) bool { total += size; return true }); err != nil {
		t.Fatal(err)
	}
	return total
}

func (m mirror) keepsManifest(repo Repository, d Digest) bool {
	_, ok := m.meta.Manifest(repo, d)
	return ok
}

// settleDown waits until nothing is under way.
func settleDown() { synctest.Wait() }

func TestImagesGoLeastRecentlyPulledFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 450 << 10; opts.TagTTL = time.Hour * 1000 })
		digests := map[string]Digest{}
		layers := map[string]Descriptor{}
		for i, tag := range []string{"a", "b", "c", "d"} {
			_, layers[tag] = o.image("app", tag, bytesOf(byte(i), 100<<10))
			digests[tag] = m.pullWhole(t, hubApp, tag)
			time.Sleep(time.Minute)
		}
		// A HEAD of the tag is a use of the whole image, and so is a blob that
		// only it has.
		if _, err := m.Manifest(t.Context(), hubApp, "a"); err != nil {
			t.Fatal(err)
		}
		if err := m.read(t.Context(), hubApp, layers["b"].Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		o.image("app", "e", bytesOf(9, 100<<10))
		m.pullWhole(t, hubApp, "e")
		settleDown()
		for tag, want := range map[string]bool{"a": true, "b": true, "c": false, "d": true} {
			if m.keepsManifest(hubApp, digests[tag]) != want {
				t.Errorf("the image %s is kept: %v", tag, !want)
			}
			if m.has(t.Context(), layers[tag].Digest) != want {
				t.Errorf("the layer of %s is kept: %v", tag, !want)
			}
		}
		// What was evicted is fetched again.
		o.transcript()
		m.pullWhole(t, hubApp, "c")
		if asked := o.transcript(); !slices.Contains(asked, "GET blob app "+short(layers["c"].Digest.String())) {
			t.Errorf("what was evicted was not fetched again: %v", asked)
		}
	})
}

func TestSharedLayersStayWhileAnyoneNeedsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 350 << 10; opts.TagTTL = time.Hour * 1000 })
		shared := bytesOf(1, 100<<10)
		_, layer := o.image("app", "old", shared)
		old := m.pullWhole(t, hubApp, "old")
		time.Sleep(time.Minute)
		o.image("app", "new", shared)
		kept := m.pullWhole(t, hubApp, "new")
		time.Sleep(time.Minute)
		for i := range 3 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(10+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
			if _, err := m.Manifest(t.Context(), hubApp, "new"); err != nil {
				t.Fatal(err)
			}
		}
		settleDown()
		if m.keepsManifest(hubApp, old) {
			t.Error("the image that was pulled least recently is still kept")
		}
		if !m.keepsManifest(hubApp, kept) || !m.has(t.Context(), layer.Digest) {
			t.Error("an image in use has lost the layer that it shared")
		}
	})
}

func TestAnImageGoesWithItsPlatformsAndWhatHangsOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 500 << 10; opts.TagTTL = time.Hour * 1000 })
		amd, _ := o.image("app", "1-amd64", bytesOf(1, 100<<10))
		arm, _ := o.image("app", "1-arm64", bytesOf(2, 100<<10))
		o.remove("app", "1-arm64")
		raw, _ := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []Descriptor{amd, arm}})
		index := o.put("app", ocispec.MediaTypeImageIndex, raw, "1")
		signature := o.attach(index, "signature")
		o.list(index.Digest, signature)
		m.pullWhole(t, hubApp, "1")
		if _, err := m.Referrers(t.Context(), hubApp, index.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.pullWhole(t, hubApp, "1-amd64") // a child that has a name of its own
		time.Sleep(time.Minute)
		for i := range 3 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(10+i), 100<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		settleDown()
		for name, d := range map[string]Descriptor{"the index": index, "its nameless child": arm, "its signature": signature} {
			if m.keepsManifest(hubApp, d.Digest) || m.has(t.Context(), d.Digest) {
				t.Errorf("%s is still kept", name)
			}
		}
		if _, ok := m.meta.Tag(hubApp, referrers.TagOf(index.Digest)); ok {
			t.Error("its referrers tag is still on record")
		}
		if rec, ok := m.meta.Referrers(hubApp, index.Digest); ok {
			t.Errorf("its referrers are still on record: %v", rec)
		}
		if !m.keepsManifest(hubApp, amd.Digest) {
			t.Error("a child with a name of its own went, too")
		}
	})
}

func TestWhatIsEvictedIsToldAsItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const layer, images = 20 << 10, 10
		o := newOrigin()
		var m mirror
		var told []int64
		var kept []int64 // at each telling
		m = newMirror(t, o, func(opts *Options) {
			opts.Room.MaxBytes = (images + 1) * layer
			opts.Events.Evicted = func(bytes int64) {
				told, kept = append(told, bytes), append(kept, m.bytesKept(t))
			}
		})
		for i := range images {
			o.image("app", fmt.Sprint(i), bytesOf(byte(i), layer))
			m.pullWhole(t, hubApp, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		o.image("app", "large", bytesOf(99, 5*layer))
		m.pullWhole(t, hubApp, "large")
		settleDown()
		if len(told) < 4 {
			t.Fatalf("told of %d bytes, which are four images at least", told)
		}
		if first, last := kept[0], kept[len(kept)-1]; first-last < 3*layer {
			t.Errorf("%d bytes were kept when the first image had gone, and %d when the last had", first, last)
		}
	})
}

func TestPinnedImagesStayAndAreMadeWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		bypassed := 0
		m := newMirror(t, o, func(opts *Options) {
			opts.Room.MaxBytes = 250 << 10
			opts.TagTTL = time.Hour * 1000
			opts.Room.Pinned = func(repo Repository, ref string) bool { return repo == hubApp && ref == "configured" }
			opts.Events.Bypassed = func(string) { bypassed++ }
		})
		_, first := o.image("app", "configured", bytesOf(1, 100<<10))
		if _, err := m.Manifest(t.Context(), hubApp, "configured"); err != nil {
			t.Fatal(err)
		}
		settleDown()
		if !m.has(t.Context(), first.Digest) {
			t.Error("of an image that a pattern pins only what was asked for is kept")
		}
		_, second := o.image("app", "commanded", bytesOf(2, 100<<10))
		done, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "commanded"})
		if err != nil || done.Manifests != 1 || done.Blobs != 2 || done.Fetched != 3 {
			t.Errorf("pinned: %+v, %v", done, err)
		}
		settleDown()
		// There is room for nothing else: clients get their bytes all the same.
		for i := range 5 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(10+i), 100<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		settleDown()
		for name, d := range map[string]Digest{"configured": first.Digest, "commanded": second.Digest} {
			if !m.has(t.Context(), d) {
				t.Errorf("the layer of the pinned image %s is gone", name)
			}
		}
		if bypassed < 5 {
			t.Errorf("%d blobs were counted as not kept, want 5 at least", bypassed)
		}
		if got := m.bytesKept(t); got > 250<<10 {
			t.Errorf("%d bytes are kept", got)
		}
		if was, err := m.Unpin(t.Context(), Reference{Repository: hubApp, Ref: "commanded"}); !was || err != nil {
			t.Errorf("unpinned: %v, %v", was, err)
		}
		m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, "0")
		settleDown()
		if m.has(t.Context(), second.Digest) {
			t.Error("an image that is unpinned makes no room")
		}
	})
}

func TestAPinnedTagThatMovesIsMadeWholeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		o.image("app", "1", bytesOf(1, 10<<10))
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "1"}); err != nil {
			t.Fatal(err)
		}
		_, layer := o.image("app", "1", bytesOf(2, 10<<10))
		time.Sleep(2 * time.Minute)
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		settleDown()
		if !m.has(t.Context(), layer.Digest) {
			t.Error("the layer of what the tag means now was not fetched")
		}
	})
}

func TestAPinHoldsUntilItsImageCanBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		synctest.Wait() // the look at the start finds no pin
		_, layer := o.image("app", "1", bytesOf(1, 10<<10))
		o.fail("*", slices.Repeat([]error{upstream.ErrRefused}, 10)...)
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "1"}); !errors.Is(err, ErrNotWhole) || !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("pin without an upstream: %v", err)
		}
		o.mu.Lock()
		o.failures = map[string][]error{}
		o.mu.Unlock()
		time.Sleep(tendPins + time.Second)
		settleDown()
		if !m.has(t.Context(), layer.Digest) {
			t.Error("it was not tried again")
		}
	})
}

// What refers to a pinned image is part of it: that it could not be asked for is
// not that there is none.
func TestAPinIsNotWholeUntilItsReferrersAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		m := newMirror(t, o, nil)
		synctest.Wait() // what tends pins has looked
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		signature := o.attach(subject, "sig")
		ask := "GET referrers app " + short(subject.Digest.String())
		o.fail(ask, upstream.ErrBadAnswer)
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "1"}); !errors.Is(err, ErrNotWhole) {
			t.Errorf("pin without the API: %v", err)
		}
		time.Sleep(5 * tendPins)
		settleDown()
		if !m.has(t.Context(), signature.Digest) {
			t.Error("what refers to it was not asked for again")
		}
		// Where the upstream goes on failing, it is not asked each time.
		other, _ := o.image("app", "2", bytesOf(2, 50))
		ask = "GET referrers app " + short(other.Digest.String())
		o.fail(ask, slices.Repeat([]error{upstream.ErrBadAnswer}, 1000)...)
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "2"}); !errors.Is(err, ErrNotWhole) {
			t.Errorf("pin without the API: %v", err)
		}
		o.transcript()
		time.Sleep(2 * time.Hour)
		if n := count(o.transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in two hours it was asked %d times", n)
		}
		// Nor where a part is known, which is not all.
		third, _ := o.image("app", "3", bytesOf(3, 50))
		o.list(third.Digest, o.attach(third, "sig"))
		ask = "GET referrers app " + short(third.Digest.String())
		o.fail(ask, slices.Repeat([]error{upstream.ErrBadAnswer}, 1000)...)
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "3"}); !errors.Is(err, ErrNotWhole) {
			t.Errorf("pin of what the tag alone lists: %v", err)
		}
		o.transcript()
		time.Sleep(2 * time.Hour)
		if n := count(o.transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in two hours it was asked %d times, with a part of the answer", n)
		}
	})
}

func TestWhatIsNotThereIsNotPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMirror(t, newOrigin(), nil)
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "1"}); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("pin of nothing: %v", err)
		}
		if pins, err := m.Pins(); len(pins) > 0 || err != nil {
			t.Errorf("pins: %v, %v", pins, err)
		}
	})
}

func TestTheBoundHoldsWhileImagesStreamIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		const bound = 1 << 20
		var worst int64
		m := newMirror(t, o, func(opts *Options) {
			opts.Room.MaxBytes = bound
			opts.Events.Kept = func(bytes int64) { worst = max(worst, bytes) }
		})
		for i := range 60 {
			tag := fmt.Sprint(i)
			o.image("app", tag, bytesOf(byte(i), 100<<10))
			m.pullWhole(t, hubApp, tag)
			if got := m.bytesKept(t); got > bound {
				t.Fatalf("after %d images %d bytes are kept", i+1, got)
			}
		}
		settleDown()
		if got := m.bytesKept(t); got > bound || got < bound*7/10 {
			t.Errorf("%d bytes are kept of %d that may be", got, bound)
		}
		if worst > bound {
			t.Errorf("%d bytes were kept for a moment", worst)
		}
		m.checkNothingHalf(t)
	})
}

// checkNothingHalf checks that for every manifest on record all that it names
// is here. It is for mirrors whose clients pull images whole.
func (m mirror) checkNothingHalf(t *testing.T) {
	t.Helper()
	err := m.opts.Records.Scan(bucketManifest, "", func(key string, value []byte) bool {
		var rec metadata.Manifest
		if err := json.Unmarshal(value, &rec); err != nil {
			t.Error(err)
		}
		for _, b := range rec.Blobs {
			if !m.has(context.Background(), b.Digest) {
				t.Errorf("%s is kept without its blob %s", strings.ReplaceAll(key, "\x00", " "), b.Digest)
			}
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWhatIsTooLargeForTheBoundIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 50 << 10 })
		_, small := o.image("app", "small", bytesOf(1, 10<<10))
		m.pullWhole(t, hubApp, "small")
		_, large := o.image("app", "large", bytesOf(2, 100<<10))
		m.pullWhole(t, hubApp, "large")
		settleDown()
		if m.has(t.Context(), large.Digest) {
			t.Error("it is kept")
		}
		if !m.has(t.Context(), small.Digest) {
			t.Error("others had to go for it")
		}
	})
}

func TestAFileSystemThatFillsUpIsRelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var free atomic.Int64
		free.Store(10 << 20)
		m := newMirror(t, o, func(opts *Options) {
			opts.Room.MinFree = 1 << 20
			opts.Room.Free = func() (int64, error) { return free.Load(), nil }
		})
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		free.Store(1<<20 - 1) // others fill it
		time.Sleep(lookAround + time.Second)
		settleDown()
		if m.has(t.Context(), layer.Digest) {
			t.Error("nothing was evicted")
		}
	})
}

func TestBlobsOfNoImageGoByTheirOwnUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 350 << 10 })
		stray := o.put("app", "x", bytesOf(1, 100<<10))
		if err := m.read(t.Context(), hubApp, stray.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for i := range 3 {
			o.image("app", fmt.Sprint(i), bytesOf(byte(10+i), 100<<10))
			m.pullWhole(t, hubApp, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		settleDown()
		if m.has(t.Context(), stray.Digest) {
			t.Error("the blob that was used least recently is still kept")
		}
		m.checkNothingHalf(t)
	})
}

func TestPurge(t *testing.T) {
	type state struct {
		mirror
		o            *origin
		one, two     Descriptor // manifests
		layer, other Descriptor // of the first, of the second
	}
	for name, c := range map[string]struct {
		target func(s state) Target
		check  func(t *testing.T, s state, gone Purged, err error)
	}{
		"one of two tags": {
			func(state) Target { return Target{Repository: hubApp, Ref: "also"} },
			func(t *testing.T, s state, gone Purged, err error) {
				if err != nil || len(gone.Tags) != 1 || gone.Bytes != 0 || !s.keepsManifest(hubApp, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"the only tag": {
			func(state) Target { return Target{Repository: hubApp, Ref: "two"} },
			func(t *testing.T, s state, gone Purged, err error) {
				if err != nil || len(gone.Manifests) != 1 || s.keepsManifest(hubApp, s.two.Digest) || s.has(t.Context(), s.other.Digest) || !s.has(t.Context(), s.layer.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"a repository": {
			func(state) Target { return Target{Repository: hubApp, Ref: ""} },
			func(t *testing.T, s state, gone Purged, err error) {
				if err != nil || len(gone.Manifests) != 2 || len(gone.Tags) != 3 || s.bytesKept(t) != 0 {
					t.Errorf("%+v, %v, %d bytes kept", gone, err, s.bytesKept(t))
				}
			},
		},
		"a digest of a manifest": {
			func(s state) Target { return Target{Ref: s.one.Digest.String()} },
			func(t *testing.T, s state, gone Purged, err error) {
				if err != nil || len(gone.Manifests) != 1 || len(gone.Tags) != 2 || s.has(t.Context(), s.layer.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"a digest of a blob": {
			func(s state) Target { return Target{Ref: s.layer.Digest.String()} },
			func(t *testing.T, s state, gone Purged, err error) {
				if err != nil || gone.Blobs != 1 || s.has(t.Context(), s.layer.Digest) || !s.keepsManifest(hubApp, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
				if err := s.read(t.Context(), hubApp, s.layer.Digest); err != nil {
					t.Errorf("it is not fetched again: %v", err)
				}
			},
		},
		"what is not kept": {
			func(state) Target { return Target{Repository: hubApp, Ref: "three"} },
			func(t *testing.T, _ state, gone Purged, err error) {
				if !errors.Is(err, ErrNotKept) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"what is pinned": {
			func(s state) Target {
				s.meta.PutPin(Reference{Repository: hubApp, Ref: "two"})
				return Target{Repository: hubApp, Ref: ""}
			},
			func(t *testing.T, s state, gone Purged, err error) {
				if !errors.Is(err, ErrPinned) || !s.keepsManifest(hubApp, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				s := state{mirror: newMirror(t, o, nil), o: o}
				s.one, s.layer = o.image("app", "one", bytesOf(1, 100<<10))
				o.put("app", s.one.MediaType, o.content["app one"].body, "also")
				s.two, s.other = o.image("app", "two", bytesOf(2, 100<<10))
				for _, tag := range []string{"one", "also", "two"} {
					s.pullWhole(t, hubApp, tag)
				}
				settleDown()
				target := c.target(s)
				before := s.bytesKept(t)
				dry, dryErr := s.Purge(t.Context(), target, true)
				if s.bytesKept(t) != before {
					t.Error("a dry run took something away")
				}
				gone, err := s.Purge(t.Context(), target, false)
				if fmt.Sprint(dry, dryErr) != fmt.Sprint(gone, err) {
					t.Errorf("a dry run says %+v, %v\nthe purge says %+v, %v", dry, dryErr, gone, err)
				}
				c.check(t, s, gone, err)
			})
		})
	}
}

func TestInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		_, layer := o.image("app", "whole", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "whole")
		at := time.Now()
		time.Sleep(2 * time.Minute)
		o.image("app", "half", bytesOf(2, 100<<10))
		if _, err := m.Manifest(t.Context(), hubApp, "half"); err != nil {
			t.Fatal(err)
		}
		m.meta.PutPin(Reference{Repository: hubApp, Ref: "whole"})
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		half, whole := list.Images[0], list.Images[1]
		if half.Whole || half.Pinned || !half.Fresh || half.Tags[0] != "half" {
			t.Errorf("half: %+v", half)
		}
		if !whole.Whole || !whole.Pinned || whole.Fresh || !whole.LastPulled.Equal(at) || whole.Alone < layer.Size || whole.Size != whole.Alone {
			t.Errorf("whole: %+v", whole)
		}
		if list.Bytes != m.bytesKept(t) || list.Strays != 0 {
			t.Errorf("%+v, while %d bytes are kept", list, m.bytesKept(t))
		}
	})
}

func TestScrubSetsDamageAsideAndItIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		m.store.Damage(layer.Digest)
		began := time.Now()
		steps := 0
		done, err := m.Scrub(t.Context(), 50<<10, func(Scrubbed) { steps++ })
		if err != nil || len(done.Damaged) != 1 || done.Damaged[0] != layer.Digest || done.Files != 3 || steps != 3 {
			t.Errorf("scrubbed: %+v, %v, in %d steps", done, err, steps)
		}
		if took := time.Since(began); took < time.Second || took > 4*time.Second {
			t.Errorf("100 KiB at 50 KiB a second took %s", took)
		}
		if m.has(t.Context(), layer.Digest) {
			t.Error("what is damaged is still kept")
		}
		o.transcript()
		if err := m.read(t.Context(), hubApp, layer.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "GET blob app "+short(layer.Digest.String()))
	})
}
