package pull

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Of an attestation an empty list is told where nobody could ever be asked
// about it. Whoever lists something was asked.
func TestWhatIsListedOfAnAttestationAndCannotBeReadIsNotNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		unread := o.attach(a.of[0], "sig")
		o.list(a.of[0].Digest, unread, o.attach(a.of[0], "sbom"))
		m := newMirror(t, o, nil)
		m.pull(t, a, "1", 0)
		o.fail("GET manifest app "+short(unread.Digest.String()), slices.Repeat([]error{upstream.ErrBadAnswer}, 10)...)
		if got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("two are listed: %v, %v", types(got), err)
		}
		// Nor when the API, which cannot be asked, is the first to say so.
		o.fail("GET referrers app "+short(a.of[0].Digest.String()), upstream.ErrBadAnswer)
		if got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("two are listed, and the API fails: %v, %v", types(got), err)
		}
		// Who pulls goes on with the tag.
		if got, err := m.Manifest(t.Context(), hubApp, referrers.TagOf(a.of[0].Digest)); err != nil {
			t.Errorf("the tag: %v, %v", got, err)
		}
	})
}

func TestAnAttestationWhoseTagIsKeptIsNotSaidToHaveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		o.list(a.of[0].Digest, o.attach(a.of[0], "sig"))
		m := newMirror(t, o, nil)
		m.pull(t, a, "1", 0)
		tag := referrers.TagOf(a.of[0].Digest)
		if _, err := m.Manifest(t.Context(), hubApp, tag); err != nil { // BuildKit asks for no more
			t.Fatal(err)
		}
		o.fail("*", upstream.ErrRefused)
		time.Sleep(time.Hour)
		if got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("the tag lists one: %v, %v", types(got), err)
		}
		if got, err := m.Manifest(t.Context(), hubApp, tag); err != nil || !got.Stale {
			t.Errorf("the tag: stale %v, %v", got.Stale, err)
		}
	})
}

// That nothing referred is no answer once something is listed, read or not.
func TestThatNothingRefersIsDoubtedWhereWhatIsListedCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		m := newMirror(t, o, nil)
		if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || len(got.Manifests) > 0 {
			t.Fatal(got, err)
		}
		time.Sleep(time.Hour)
		sig := o.attach(subject, "sig")
		o.fail("GET manifest app "+short(sig.Digest.String()), upstream.ErrDenied)
		if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("one is listed: %v, stale %v, %v", types(got), got.Stale, err)
		}
		if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || fmt.Sprint(types(got)) != "[sig]" {
			t.Errorf("once it can be read: %v, %v", types(got), err)
		}
	})
}

// An index that marks an image as an attestation makes none of it: of an image
// unknown is never told as none.
func TestAnImageThatAnIndexCallsAnAttestationIsStillAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		image, _ := o.image("app", "1", bytesOf(1, 50))
		other, _ := o.image("app", "", bytesOf(2, 50))
		image.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": other.Digest.String()}
		index := ocispec.Index{MediaType: indexType, Manifests: []Descriptor{image, other}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		o.put("app", indexType, raw, "2")
		m := newMirror(t, o, nil)
		for _, ref := range []string{"1", "2"} {
			if _, err := m.Manifest(t.Context(), hubApp, ref); err != nil {
				t.Fatal(err)
			}
		}
		o.fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), hubApp, image.Digest); err == nil {
			t.Errorf("it is told as %v", got)
		}
	})
}
