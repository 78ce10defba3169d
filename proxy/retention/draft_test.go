package retention_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

var other = retention.Repository{Upstream: "hub", Name: "other"}

// noteOf is what a download notes with its draft.
func noteOf(repo retention.Repository) string {
	return fmt.Sprintf(`{"upstream":%q,"repository":%q,"etag":"\"x\""}`, repo.Upstream, repo.Name)
}

// openDraft writes n bytes in the middle of a draft, as a download for a range
// does.
func openDraft(t *testing.T, m mirrortest.Mirror, of retention.Descriptor, n int) cache.Draft {
	t.Helper()
	draft, err := m.Store.Create(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := draft.WriteAt(make([]byte, n), of.Size/2); err != nil {
		t.Fatal(err)
	}
	return draft
}

// keepDraft leaves a draft of n bytes behind.
func keepDraft(t *testing.T, m mirrortest.Mirror, of retention.Descriptor, n int, note string) {
	t.Helper()
	draft := openDraft(t, m, of, n)
	if err := m.Store.Keep(t.Context(), of.Digest, draft, []byte(note)); err != nil {
		t.Fatal(err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
}

// unpulled is a blob of 100 KiB that nobody has pulled.
func unpulled(name string) retention.Descriptor {
	return retention.Descriptor{Digest: mirrortest.IndexAlgorithm.FromString(name), Size: 100 << 10}
}

func isKept(m mirrortest.Mirror, of retention.Descriptor) bool {
	_, ok := m.Store.Kept(of.Digest)
	return ok
}

func TestDraftsAreEvictedInOneOrderWithImagesAndBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		stray := o.Put("app", "x", mirrortest.Bytes(9, 100<<10))
		var order []func() bool // whether it is here, least recently used first
		pull := func(tag string, seed byte) {
			image, _ := o.Image("app", tag, mirrortest.Bytes(seed, 10<<10))
			m.PullImage(t, mirrortest.App, tag)
			order = append(order, func() bool { return m.HasManifest(mirrortest.App, image.Digest) })
			time.Sleep(time.Minute)
		}
		keep := func(name string) {
			d := unpulled(name)
			keepDraft(t, m, d, 1000, noteOf(mirrortest.App))
			order = append(order, func() bool { return isKept(m, d) })
			time.Sleep(time.Minute)
		}
		keep("one")
		pull("1", 1)
		keep("two")
		if err := m.Read(t.Context(), mirrortest.App, stray.Digest); err != nil {
			t.Fatal(err)
		}
		order = append(order, func() bool { return m.HasContent(stray.Digest) })
		time.Sleep(time.Minute)
		keep("three")
		pull("2", 2)
		mirrortest.Wait()
		here := func() (all []bool) {
			for _, is := range order {
				all = append(all, is())
			}
			return all
		}

		// As long as there is room nothing goes, however old it is.
		time.Sleep(30 * 24 * time.Hour)
		mirrortest.Wait()
		for gone := 0; ; gone++ {
			for i, is := range here() {
				if is != (i >= gone) {
					t.Fatalf("after %d steps there is %v", gone, here())
				}
			}
			m.WantUsageExact(t)
			if gone == len(order) {
				break
			}
			before := m.BytesOnDisk(t)
			freed, err := m.Mirror.Retention.Evict(t.Context(), 1)
			if err != nil || freed != before-m.BytesOnDisk(t) {
				t.Errorf("step %d freed %d bytes of %d, %v", gone, freed, before, err)
			}
		}
	})
}

// A draft that a download took up, or that one left anew, after the snapshot was
// taken is in use.
func TestADraftThatIsUsedWhileDraftsAreEvictedStays(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, m mirrortest.Mirror, d cache.Draft){
		"it is resumed":              func(*testing.T, mirrortest.Mirror, cache.Draft) {},
		"it is resumed and released": func(t *testing.T, m mirrortest.Mirror, d cache.Draft) { keepAgain(t, m, d) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				used, idle := unpulled("used"), unpulled("idle")
				var resumed cache.Draft
				m := duringEviction(t, mirrortest.NewOrigin(), 1<<20, func(m mirrortest.Mirror) {
					draft, _, err := m.Store.Resume(context.Background(), used.Digest)
					if err != nil {
						t.Error(err)
						return
					}
					resumed = draft
					time.Sleep(time.Second)
					use(t, m, draft)
				})
				keepDraft(t, m, used, 1000, noteOf(mirrortest.App))
				time.Sleep(time.Minute)
				keepDraft(t, m, idle, 1000, noteOf(mirrortest.App))
				if _, err := m.Mirror.Retention.Evict(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				if isKept(m, idle) {
					t.Error("the one that nobody used has not gone instead")
				}
				if resumed.Pieces().Len() != 1000 {
					t.Errorf("%v is left for those that read it", resumed.Pieces())
				}
				if name == "it is resumed" {
					keepAgain(t, m, resumed)
				}
				if !isKept(m, used) {
					t.Error("what was used has gone")
				}
				m.WantUsageExact(t)
			})
		})
	}
}

func keepAgain(t *testing.T, m mirrortest.Mirror, draft cache.Draft) {
	t.Helper()
	if err := m.Store.Keep(context.Background(), unpulled("used").Digest, draft, []byte(noteOf(mirrortest.App))); err != nil {
		t.Error(err)
	}
	if err := draft.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheDraftsOfAPinnedImageStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait() // the mirror has looked for pins, or it would complete this one
		// It was begun for another repository.
		keepDraft(t, m, layer, 1000, noteOf(other))
		m.Ledger.PutPin(retention.Reference{Repository: mirrortest.App, Ref: "1"})
		if freed, err := m.Mirror.Retention.Evict(t.Context(), 1<<40); err != nil || freed != 0 {
			t.Errorf("%d bytes went, %v", freed, err)
		}
		for name, c := range map[string]struct {
			target retention.Target
			err    error
		}{
			"its digest":                       {retention.Target{Ref: layer.Digest.String()}, retention.ErrPinned},
			"its digest, where it was begun":   {retention.Target{Repository: other, Ref: layer.Digest.String()}, retention.ErrPinned},
			"the repository it was begun in":   {retention.Target{Repository: other}, retention.ErrNotCached},
			"the repository that has the pin":  {retention.Target{Repository: mirrortest.App}, retention.ErrPinned},
			"its digest, where nobody read it": {retention.Target{Repository: mirrortest.App, Ref: layer.Digest.String()}, retention.ErrNotCached},
		} {
			if gone, err := m.Purge(t.Context(), c.target, false); !errors.Is(err, c.err) {
				t.Errorf("%s: %+v, %v", name, gone, err)
			}
		}
		if !isKept(m, layer) {
			t.Error("it has gone")
		}
	})
}

func TestAPurgeTakesTheDraftsOfWhatItNames(t *testing.T) {
	// one and two are images of app that nobody has pulled the layers of. They
	// share a layer. stray is of app too, elsewhere was begun in other, and
	// unknown has a note that cannot be read.
	const layerOne, shared, stray, elsewhere, unknown = "layer of one", "shared layer", "stray", "elsewhere", "unknown"
	for name, c := range map[string]struct {
		target func(digests map[string]retention.Digest) retention.Target
		gone   []string
	}{
		"a digest": {
			func(d map[string]retention.Digest) retention.Target { return retention.Target{Ref: d[stray].String()} },
			[]string{stray},
		},
		"a digest that images need": {
			func(d map[string]retention.Digest) retention.Target { return retention.Target{Ref: d[shared].String()} },
			[]string{shared},
		},
		"a digest whose note cannot be read": {
			func(d map[string]retention.Digest) retention.Target {
				return retention.Target{Ref: d[unknown].String()}
			},
			[]string{unknown},
		},
		"a digest in the repository it was begun in": {
			func(d map[string]retention.Digest) retention.Target {
				return retention.Target{Repository: other, Ref: d[elsewhere].String()}
			},
			[]string{elsewhere},
		},
		"a digest in another repository": {
			func(d map[string]retention.Digest) retention.Target {
				return retention.Target{Repository: mirrortest.App, Ref: d[elsewhere].String()}
			},
			nil,
		},
		"a digest whose note cannot be read, in a repository": {
			func(d map[string]retention.Digest) retention.Target {
				return retention.Target{Repository: mirrortest.App, Ref: d[unknown].String()}
			},
			nil,
		},
		"a repository": {
			func(map[string]retention.Digest) retention.Target {
				return retention.Target{Repository: mirrortest.App}
			},
			[]string{layerOne, shared, stray},
		},
		"a repository without images": {
			func(map[string]retention.Digest) retention.Target { return retention.Target{Repository: other} },
			[]string{elsewhere},
		},
		"an image": {
			func(map[string]retention.Digest) retention.Target {
				return retention.Target{Repository: mirrortest.App, Ref: "one"}
			},
			[]string{layerOne},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				m := mirrortest.New(t, o, nil)
				blobs := map[string]retention.Descriptor{stray: unpulled(stray), elsewhere: unpulled(elsewhere), unknown: unpulled(unknown)}
				blobs[layerOne], blobs[shared] = putImages(t, o)
				for _, tag := range []string{"one", "two"} {
					if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
						t.Fatal(err)
					}
				}
				mirrortest.Wait()
				notes := map[string]string{elsewhere: noteOf(other), unknown: "nothing"}
				digests := map[string]retention.Digest{}
				for name, of := range blobs {
					note, special := notes[name]
					if !special {
						note = noteOf(mirrortest.App)
					}
					keepDraft(t, m, of, 1000, note)
					digests[name] = of.Digest
				}
				target := c.target(digests)
				before := m.BytesOnDisk(t)
				dry, dryErr := m.Purge(t.Context(), target, true)
				if m.BytesOnDisk(t) != before {
					t.Error("a dry run took something away")
				}
				done, err := m.Purge(t.Context(), target, false)
				if fmt.Sprint(dry, dryErr) != fmt.Sprint(done, err) {
					t.Errorf("a dry run says %+v, %v\nthe purge says %+v, %v", dry, dryErr, done, err)
				}
				if c.gone == nil != errors.Is(err, retention.ErrNotCached) || done.Drafts != len(c.gone) || done.Bytes != before-m.BytesOnDisk(t) {
					t.Errorf("%+v, %v, and %d bytes less", done, err, before-m.BytesOnDisk(t))
				}
				for name, of := range blobs {
					if isKept(m, of) == slices.Contains(c.gone, name) {
						t.Errorf("%s is kept: %v", name, isKept(m, of))
					}
				}
				m.WantUsageExact(t)
			})
		})
	}
}

// putImages puts two images whose second layer is the same.
func putImages(t *testing.T, o *mirrortest.Origin) (layerOne, shared retention.Descriptor) {
	t.Helper()
	shared = o.Put("app", "x", mirrortest.Bytes(3, 100<<10))
	for _, tag := range []string{"two", "one"} {
		image, layer := o.Image("app", tag, mirrortest.Bytes(tag[0], 100<<10))
		body := string(o.Content["app "+image.Digest.String()].Body)
		more := fmt.Sprintf(`"layers":[{"mediaType":"x","digest":%q,"size":%d},`, shared.Digest, shared.Size)
		changed := strings.Replace(body, `"layers":[`, more, 1)
		if changed == body {
			t.Fatalf("%s has no layers", body)
		}
		o.Put("app", image.MediaType, []byte(changed), tag)
		layerOne = layer
	}
	return layerOne, shared
}

func TestAPurgeLeavesTheDraftOfARunningDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mirrortest.New(t, mirrortest.NewOrigin(), nil)
		used := unpulled("used")
		keepDraft(t, m, used, 1000, noteOf(mirrortest.App))
		draft, _, err := m.Store.Resume(t.Context(), used.Digest)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []retention.Target{{Ref: used.Digest.String()}, {Repository: mirrortest.App}} {
			if gone, err := m.Purge(t.Context(), target, false); !errors.Is(err, retention.ErrNotCached) {
				t.Errorf("%+v, %v", gone, err)
			}
		}
		if draft.Pieces().Len() != 1000 {
			t.Errorf("%v is left for those that read it", draft.Pieces())
		}
		keepAgain(t, m, draft)
		if gone, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App}, false); err != nil || gone.Drafts != 1 {
			t.Errorf("once the download has ended: %+v, %v", gone, err)
		}
	})
}

func TestInventoryListsDrafts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		if list, err := m.Inventory(t.Context()); err != nil || list.Drafts == nil || len(list.Drafts) > 0 {
			t.Errorf("an empty cache has the drafts %#v, %v", list.Drafts, err)
		}
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		before, err := m.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().UTC()
		unknown := unpulled("unknown")
		keepDraft(t, m, layer, 700, noteOf(mirrortest.App))
		keepDraft(t, m, unknown, 30, `{"upstream":"hub","repository":7}`)
		list, err := m.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []retention.CachedDraft{
			{Digest: unknown.Digest, Size: unknown.Size, Bytes: 30, KeptAt: at},
			{Digest: layer.Digest, Upstream: "hub", Repository: "app", Size: layer.Size, Bytes: 700, KeptAt: at},
		}
		if !slices.Equal(list.Drafts, want) {
			t.Errorf("the drafts are\n%+v, want\n%+v", list.Drafts, want)
		}
		if list.Bytes != before.Bytes+730 || list.Bytes != m.BytesOnDisk(t) {
			t.Errorf("%d bytes, %d before, %d on disk", list.Bytes, before.Bytes, m.BytesOnDisk(t))
		}
		// The image refers to one of them, and nothing to the other.
		if list.Strays != before.Strays+30 {
			t.Errorf("%d bytes belong to no image, %d before", list.Strays, before.Strays)
		}
		was, is := before.Images[0], list.Images[0]
		if is.Size != was.Size+700 || is.Alone != was.Alone+700 || is.Whole {
			t.Errorf("the image is %+v, and was %+v", is, was)
		}
	})
}

func TestADraftThatGoesLeavesNoRecordOfItsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mirrortest.New(t, mirrortest.NewOrigin(), nil)
		used := unpulled("used")
		keepDraft(t, m, used, 1000, noteOf(mirrortest.App))
		m.Ledger.UseBlob(used.Digest)
		if _, err := m.Mirror.Retention.Evict(t.Context(), 1); err != nil || isKept(m, used) {
			t.Errorf("it is kept, %v", err)
		}
		m.Ledger.SaveUses()
		if n := m.CountRecords(t, bucketUsed); n != 0 {
			t.Errorf("%d uses are on record", n)
		}
	})
}

// An image that only loses a tag keeps its drafts.
func TestAPurgedTagOfTwoLeavesTheDrafts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		image, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		o.Put("app", image.MediaType, o.Content["app 1"].Body, "also")
		for _, tag := range []string{"1", "also"} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
				t.Fatal(err)
			}
		}
		keepDraft(t, m, layer, 1000, noteOf(mirrortest.App))
		gone, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: "also"}, false)
		if err != nil || len(gone.Tags) != 1 || gone.Drafts != 0 || !isKept(m, layer) {
			t.Errorf("%+v, %v", gone, err)
		}
		var left []string
		if err := m.Ledger.EachTag(func(_ metadata.Repository, tag string, _ retention.Digest) { left = append(left, tag) }); err != nil || len(left) != 1 {
			t.Errorf("the tags %v are left, %v", left, err)
		}
	})
}

// What a purge refuses has no part done.
func TestARefusedPurgeRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		o.Image("app", "2", mirrortest.Bytes(2, 100<<10))
		for _, tag := range []string{"1", "2"} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
				t.Fatal(err)
			}
		}
		mirrortest.Wait() // the mirror has looked for pins, or it would complete this one
		keepDraft(t, m, layer, 1000, noteOf(mirrortest.App))
		m.Ledger.PutPin(retention.Reference{Repository: mirrortest.App, Ref: "2"})
		before := m.BytesOnDisk(t)
		if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App}, false); !errors.Is(err, retention.ErrPinned) || m.BytesOnDisk(t) != before {
			t.Errorf("%v, and %d bytes of %d are left", err, m.BytesOnDisk(t), before)
		}
	})
}
