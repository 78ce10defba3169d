package warm_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

func TestImagesAreFetchedByPatternAndWhatFailsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		for i, tag := range []string{"v1.1", "v1.0", "v2.0", "other"} {
			o.Image("app", tag, mirrortest.Bytes(byte(i), 1000))
		}
		o.Put("app", "", nil, "tags", "sha256-aa", "v1.0-old")
		o.Put("empty", "", nil, "tags")
		m := mirrortest.New(t, o, nil)
		var events told
		want := func(ref string) warm.Wanted { return warm.Wanted{Selection: selection(t, ref)} }
		elsewhere := want("1")
		elsewhere.Selection.Image.Repository.Upstream = "unknown.example"
		of := want("v*")
		of.Selection.Image.Repository.Name = "empty"
		result, _ := m.Mirror.Pinner.FetchAll(t.Context(), []warm.Wanted{want("v1.?"), want("gone"), want("other"), elsewhere, of, want("["), want("*aa")}, warm.FetchOptions{Report: events.add})
		var names []string
		for _, i := range result.Images {
			name := i.Image
			if i.Error != "" {
				name = "!" + name
			}
			names = append(names, name)
		}
		if !slices.Equal(names, []string{"hub/app:v1.0", "hub/app:v1.1", "!hub/app:gone", "hub/app:other", "!unknown.example/app:1", "!hub/empty:v*", "!hub/app:[", "!hub/app:*aa"}) {
			t.Errorf("%q", names)
		}
		if result.Err() == nil || len(result.Failed()) != 5 || !strings.Contains(result.Err().Error(), "5 of 8 images") || result.Fetched != 9 {
			t.Errorf("%+v: %v", result, result.Err())
		}
		if failed := result.Failed()[2]; !strings.Contains(failed.Error, "none of the 1 tags of hub/empty matches v*") && !strings.Contains(failed.Error, "none of the 0 tags") {
			t.Errorf("a pattern that nothing matches: %s", failed.Error)
		}
		if ended := events.of(warm.EventImage); len(ended) != 8 {
			t.Errorf("%d images were told to have ended", len(ended))
		}
		over, end := context.WithCancel(t.Context())
		end()
		if result, _ := m.Mirror.Pinner.FetchAll(over, []warm.Wanted{want("v1.0"), want("v1.1")}, warm.FetchOptions{}); len(result.Failed()) != 2 {
			t.Errorf("when it is over: %+v", result)
		}
	})
}

// What completes pins must not fetch what was left out.
func TestAPinIsForWhatWasSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		o.Attest("2")
		m := mirrortest.New(t, o, nil)
		s := selection(t, "1", "linux/amd64")
		pin := func(w warm.Wanted) {
			_, _ = m.Mirror.Pinner.FetchAll(t.Context(), []warm.Wanted{w}, warm.FetchOptions{})
		}
		pin(warm.Wanted{Selection: s, Pin: true})
		time.Sleep(time.Hour)
		if !m.Ledger.HasPin(mirrortest.App, "1") || !m.Mirror.Retention.HasAllOf(t.Context(), s, true) {
			t.Error("it is not pinned, or not complete")
		}
		if m.Store.Has(t.Context(), a.Blobs[1].Digest) {
			t.Error("a platform that was left out was fetched for the pin")
		}
		o.Transcript()
		// The layer that is wanted comes back.
		m.Store.Delete(t.Context(), a.Blobs[0].Digest, a.Blobs[0].Size)
		time.Sleep(2 * time.Hour)
		if !m.Store.Has(t.Context(), a.Blobs[0].Digest) {
			t.Error("what was selected is not completed")
		}
		// An image that can't be had is not pinned, and an old pin stays as it was.
		pin(warm.Wanted{Selection: selection(t, "gone"), Pin: true})
		pin(warm.Wanted{Selection: selection(t, "2", "linux/s390x"), Pin: true})
		if m.Ledger.HasPin(mirrortest.App, "gone") || m.Ledger.HasPin(mirrortest.App, "2") {
			t.Error("what can't be had is pinned")
		}
		pin(warm.Wanted{Selection: selection(t, "1", "linux/s390x"), Pin: true})
		if got := m.Ledger.PinScope(image("1")); !slices.Equal(got.Platforms, []string{"linux/amd64"}) {
			t.Errorf("the pin is for %+v", got)
		}
		if _, err := m.Pin(t.Context(), image("1")); err != nil || len(m.Ledger.PinScope(image("1")).Platforms) > 0 || !m.Mirror.Retention.HasAllOf(t.Context(), retention.EverythingOf(image("1")), true) {
			t.Errorf("the pin command pins all of it: %v", err)
		}
	})
}
