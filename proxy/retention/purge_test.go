package retention_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

func TestPurgingARepositoryRemovesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		o.Put("app", "application/json", []byte("{}"), "tags")
		stray := o.Put("app", "x", mirrortest.Bytes(1, 100<<10))
		shared := o.Put("app", "x", mirrortest.Bytes(2, 100<<10))
		o.Image("other", "1", mirrortest.Bytes(2, 100<<10))
		m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, "1")
		for _, d := range []retention.Descriptor{stray, shared} {
			if err := m.Read(t.Context(), mirrortest.App, d.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		gone, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: ""}, false)
		if err != nil || gone.Blobs != 1 || gone.Bytes != stray.Size {
			t.Errorf("%+v, %v", gone, err)
		}
		if !m.Store.Has(t.Context(), shared.Digest) {
			t.Error("what another repository needs went, too")
		}
		o.FailAll()
		for _, d := range []retention.Descriptor{stray, shared} {
			if m.Read(t.Context(), mirrortest.App, d.Digest) == nil {
				t.Error("a blob of the repository is still served")
			}
		}
		if list, err := m.Tags(t.Context(), mirrortest.App, nil); err == nil {
			t.Errorf("its tags are still told: %v", list.Tags)
		}
	})
}

func TestAPurgeLeavesWhatOthersNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		amd, layer := o.Image("app", "1-amd64", mirrortest.Bytes(1, 100<<10))
		raw, _ := json.Marshal(ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []retention.Descriptor{amd}})
		index := o.Put("app", mirrortest.IndexType, raw, "1")
		m.PullImage(t, mirrortest.App, "1")
		m.PullImage(t, mirrortest.App, "1-amd64")
		mirrortest.Wait()
		// If a platform has a tag of its own, only the tag is removed.
		gone, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: "1-amd64"}, false)
		if err != nil || len(gone.Tags) != 1 || len(gone.Manifests) != 0 || gone.Bytes != 0 {
			t.Errorf("the tag of a platform: %+v, %v", gone, err)
		}
		if !m.Mirror.Retention.IsComplete(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}, false) {
			t.Error("the index has lost its platform")
		}
		// No part of a pinned image is removed.
		m.Ledger.PutPin(retention.Reference{Repository: mirrortest.App, Ref: "1"})
		for name, target := range map[string]retention.Target{
			"a platform":           {Repository: mirrortest.App, Ref: amd.Digest.String()},
			"a platform, anywhere": {Ref: amd.Digest.String()},
			"a blob":               {Ref: layer.Digest.String()},
			"the index":            {Repository: mirrortest.App, Ref: index.Digest.String()},
		} {
			if _, err := m.Purge(t.Context(), target, false); !errors.Is(err, retention.ErrPinned) {
				t.Errorf("%s of a pinned image: %v", name, err)
			}
		}
		if !m.Mirror.Retention.IsComplete(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}, false) {
			t.Error("the pinned image has lost something")
		}
	})
}

func TestTouchingADroppedTagDoesNotRestoreIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		o.Image("app", "1", mirrortest.Bytes(1, 10))
		m.PullImage(t, mirrortest.App, "1")
		rec, _ := m.Ledger.Tag(mirrortest.App, "1")
		m.Ledger.DropTag(mirrortest.App, "1")
		m.Ledger.TouchTag(mirrortest.App, "1", rec, time.Time{}) // by a check that was under way
		if rec, ok := m.Ledger.Tag(mirrortest.App, "1"); ok {
			t.Errorf("it points at %s again", rec.Descriptor.Digest)
		}
	})
}

// Somebody asked what refers to a manifest, and did not pull it.
func TestWhatIsKnownOfAManifestThatIsNotCachedCanBePurged(t *testing.T) {
	subject, other := mirrortest.IndexAlgorithm.FromString("a subject"), mirrortest.IndexAlgorithm.FromString("another")
	elsewhere := retention.Repository{Upstream: "hub", Name: "elsewhere"}
	for _, c := range []struct {
		name   string
		target retention.Target
		gone   []string
	}{
		{"by its digest in a repository", retention.Target{Repository: mirrortest.App, Ref: subject.String()}, []string{"hub/app@" + subject.String()}},
		{"by its digest everywhere", retention.Target{Ref: subject.String()}, []string{"hub/app@" + subject.String(), "hub/elsewhere@" + subject.String()}},
		{"with its repository", retention.Target{Repository: mirrortest.App}, []string{"hub/app@" + subject.String(), "hub/app@" + other.String()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				m := mirrortest.New(t, o, nil)
				ask := func() (known []string) {
					list, err := m.Inventory(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					for _, k := range list.Referrers {
						known = append(known, k.Upstream+"/"+k.Repository+"@"+k.Subject.String())
					}
					return known
				}
				all := []retention.Reference{{Repository: mirrortest.App, Ref: subject.String()}, {Repository: mirrortest.App, Ref: other.String()}, {Repository: elsewhere, Ref: subject.String()}}
				for _, r := range all {
					if _, err := m.Referrers(t.Context(), r.Repository, retention.Digest(r.Ref)); err != nil {
						t.Fatal(err)
					}
				}
				before := ask()
				if len(before) != len(all) {
					t.Fatalf("listed: %q", before)
				}
				for _, dryRun := range []bool{true, false} {
					gone, err := m.Purge(t.Context(), c.target, dryRun)
					slices.Sort(gone.Referrers)
					slices.Sort(c.gone)
					if err != nil || !slices.Equal(gone.Referrers, c.gone) {
						t.Errorf("%+v, %v; want %q", gone, err, c.gone)
					}
					if dryRun && len(ask()) != len(before) {
						t.Error("it is gone without having been purged")
					}
				}
				left := ask()
				for _, name := range before {
					if slices.Contains(left, name) == slices.Contains(c.gone, name) {
						t.Errorf("left: %q", left)
					}
				}
				if _, err := m.Purge(t.Context(), c.target, false); !errors.Is(err, retention.ErrNotCached) {
					t.Errorf("once more: %v", err)
				}
			})
		})
	}
}

func TestPurgingAnImageForgetsItsReferrersWithoutNamingThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 10))
		m.PullImage(t, mirrortest.App, "1")
		if _, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); err != nil {
			t.Fatal(err)
		}
		if list, err := m.Inventory(t.Context()); err != nil || len(list.Referrers) != 0 {
			t.Errorf("listed beside its image: %+v, %v", list.Referrers, err)
		}
		gone, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: image.Digest.String()}, false)
		if err != nil || len(gone.Manifests) != 1 || len(gone.Referrers) != 0 {
			t.Errorf("%+v, %v", gone, err)
		}
		if rec, ok := m.Ledger.Referrers(mirrortest.App, image.Digest); ok {
			t.Errorf("its referrers are still known: %+v", rec)
		}
	})
}

// What lacks a name by mistake does not stand for more.
func TestATargetThatNamesNothingPurgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		before := m.BytesOnDisk(t)
		for name, target := range map[string]retention.Target{
			"nothing":                 {},
			"a tag of no repository":  {Ref: "1"},
			"an upstream":             {Repository: retention.Repository{Upstream: mirrortest.App.Upstream}},
			"a tag of an upstream":    {Repository: retention.Repository{Upstream: mirrortest.App.Upstream}, Ref: "1"},
			"a name without upstream": {Repository: retention.Repository{Name: mirrortest.App.Name}},
			"an unknown word":         {Ref: "**"},
		} {
			if gone, err := m.Purge(t.Context(), target, false); !errors.Is(err, retention.ErrNoTarget) {
				t.Errorf("%s: %+v, %v", name, gone, err)
			}
		}
		if after := m.BytesOnDisk(t); after != before {
			t.Errorf("%d bytes are left of %d", after, before)
		}
	})
}

func TestEverythingIsPurgedWhereThatIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		other := retention.Repository{Upstream: mirrortest.App.Upstream, Name: "other"}
		o.Put("app", "application/json", []byte("{}"), "tags")
		o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		o.Image("other", "1", mirrortest.Bytes(2, 100<<10))
		stray := o.Put("strays", "x", mirrortest.Bytes(3, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		m.PullImage(t, other, "1")
		if err := m.Read(t.Context(), retention.Repository{Upstream: mirrortest.App.Upstream, Name: "strays"}, stray.Digest); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		before := m.BytesOnDisk(t)
		m.Ledger.PutPin(retention.Reference{Repository: other, Ref: "1"})
		if _, err := m.Purge(t.Context(), retention.Everything(), false); !errors.Is(err, retention.ErrPinned) || m.BytesOnDisk(t) != before {
			t.Errorf("while an image is pinned: %v", err)
		}
		m.Ledger.DropPin(retention.Reference{Repository: other, Ref: "1"})
		if would, err := m.Purge(t.Context(), retention.Everything(), true); err != nil || would.Bytes != before || m.BytesOnDisk(t) != before {
			t.Errorf("it would purge %+v of %d bytes, %v", would, before, err)
		}
		gone, err := m.Purge(t.Context(), retention.Everything(), false)
		if err != nil || gone.Bytes != before || len(gone.Tags) != 2 || len(gone.Manifests) != 2 || m.BytesOnDisk(t) != 0 {
			t.Errorf("%+v of %d bytes, %v; %d are left", gone, before, err, m.BytesOnDisk(t))
		}
		if err := m.Ledger.Check(); err != nil {
			t.Error(err)
		}
		if _, err := m.Purge(t.Context(), retention.Everything(), false); !errors.Is(err, retention.ErrNotCached) {
			t.Errorf("again: %v", err)
		}
		o.FailAll()
		if list, err := m.Tags(t.Context(), mirrortest.App, nil); err == nil {
			t.Errorf("tags are still told: %v", list.Tags)
		}
		if _, known := m.Ledger.Member(retention.Repository{Upstream: mirrortest.App.Upstream, Name: "strays"}, stray.Digest); known {
			t.Error("it is still known what a repository holds")
		}
	})
}
