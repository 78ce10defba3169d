package pull

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAPurgeOfARepositoryTakesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		o.put("app", "application/json", []byte("{}"), "tags")
		stray := o.put("app", "x", bytesOf(1, 100<<10))
		shared := o.put("app", "x", bytesOf(2, 100<<10))
		o.image("other", "1", bytesOf(2, 100<<10))
		m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, "1")
		for _, d := range []Descriptor{stray, shared} {
			if err := m.read(t.Context(), hubApp, d.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.Tags(t.Context(), hubApp, nil); err != nil {
			t.Fatal(err)
		}
		settleDown()
		gone, err := m.Purge(t.Context(), Target{Repository: hubApp, Ref: ""}, false)
		if err != nil || gone.Blobs != 1 || gone.Bytes != stray.Size {
			t.Errorf("%+v, %v", gone, err)
		}
		if !m.has(t.Context(), shared.Digest) {
			t.Error("what another repository needs went, too")
		}
		o.unplug()
		for _, d := range []Descriptor{stray, shared} {
			if m.read(t.Context(), hubApp, d.Digest) == nil {
				t.Error("a blob of the repository is still served")
			}
		}
		if list, err := m.Tags(t.Context(), hubApp, nil); err == nil {
			t.Errorf("its tags are still told: %v", list.Tags)
		}
	})
}

func TestAPurgeSparesWhatOthersNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		amd, layer := o.image("app", "1-amd64", bytesOf(1, 100<<10))
		raw, _ := json.Marshal(ocispec.Index{MediaType: indexType, Manifests: []Descriptor{amd}})
		index := o.put("app", indexType, raw, "1")
		m.pullWhole(t, hubApp, "1")
		m.pullWhole(t, hubApp, "1-amd64")
		settleDown()
		// Of a platform with a name of its own only the name goes.
		gone, err := m.Purge(t.Context(), Target{Repository: hubApp, Ref: "1-amd64"}, false)
		if err != nil || len(gone.Tags) != 1 || len(gone.Manifests) != 0 || gone.Bytes != 0 {
			t.Errorf("the tag of a platform: %+v, %v", gone, err)
		}
		if !m.whole(t.Context(), Reference{Repository: hubApp, Ref: "1"}, false) {
			t.Error("the index has lost its platform")
		}
		// Of a pinned image no part goes.
		m.meta.PutPin(Reference{Repository: hubApp, Ref: "1"})
		for name, target := range map[string]Target{
			"a platform":           {Repository: hubApp, Ref: amd.Digest.String()},
			"a platform, anywhere": {Ref: amd.Digest.String()},
			"a blob":               {Ref: layer.Digest.String()},
			"the index":            {Repository: hubApp, Ref: index.Digest.String()},
		} {
			if _, err := m.Purge(t.Context(), target, false); !errors.Is(err, ErrPinned) {
				t.Errorf("%s of a pinned image: %v", name, err)
			}
		}
		if !m.whole(t.Context(), Reference{Repository: hubApp, Ref: "1"}, false) {
			t.Error("the pinned image has lost something")
		}
	})
}

func TestATagThatWasDroppedIsNotTouchedBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		o.image("app", "1", bytesOf(1, 10))
		m.pullWhole(t, hubApp, "1")
		rec, _ := m.meta.Tag(hubApp, "1")
		m.meta.DropTag(hubApp, "1")
		m.meta.TouchTag(hubApp, "1", rec) // by a check that was under way
		if rec, ok := m.meta.Tag(hubApp, "1"); ok {
			t.Errorf("it points at %s again", rec.Descriptor.Digest)
		}
	})
}
