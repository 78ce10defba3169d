package pull_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// An attestation has an empty list only if no source could ever be asked. A
// source that lists something was asked.
func TestUnreadableReferrersOfAnAttestationAreNotAnEmptyList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		unread := o.Attach(a.Of[0], "sig")
		o.List(a.Of[0].Digest, unread, o.Attach(a.Of[0], "sbom"))
		m := mirrortest.New(t, o, nil)
		m.PullPlatform(t, a, "1", 0)
		o.Fail("GET manifest app "+mirrortest.Short(unread.Digest.String()), slices.Repeat([]error{upstream.ErrInvalidResponse}, 10)...)
		if got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest); err != nil || !got.Stale || !got.Partial || len(got.Manifests) != 2 {
			t.Errorf("two are listed: %v, stale %v, partial %v, %v", mirrortest.Types(got), got.Stale, got.Partial, err)
		}
		// Nor if the API, which cannot be asked, is the first to answer.
		o.Fail("GET referrers app "+mirrortest.Short(a.Of[0].Digest.String()), upstream.ErrInvalidResponse)
		if got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest); err != nil || !got.Stale || !got.Partial || len(got.Manifests) != 2 {
			t.Errorf("two are listed, and the API fails: %v, stale %v, partial %v, %v", mirrortest.Types(got), got.Stale, got.Partial, err)
		}
		// The client that pulls continues with the tag.
		if got, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(a.Of[0].Digest)); err != nil {
			t.Errorf("the tag: %v, %v", got, err)
		}
	})
}

func TestAnAttestationWithACachedReferrersTagIsNotGivenAnEmptyList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		o.List(a.Of[0].Digest, o.Attach(a.Of[0], "sig"))
		m := mirrortest.New(t, o, nil)
		m.PullPlatform(t, a, "1", 0)
		tag := referrers.TagOf(a.Of[0].Digest)
		if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil { // BuildKit asks for no more
			t.Fatal(err)
		}
		dropList(m, a.Of[0].Digest)
		o.Fail("*", upstream.ErrRefused)
		time.Sleep(time.Hour)
		if got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("the tag lists one: %v, %v", mirrortest.Types(got), err)
		}
		if got, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil || !got.Stale {
			t.Errorf("the tag: stale %v, %v", got.Stale, err)
		}
	})
}

// An empty list is not valid once something is listed, readable or not.
func TestAnEmptyReferrersListIsNotServedWhileAListedManifestIsUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) > 0 {
			t.Fatal(got, err)
		}
		time.Sleep(time.Hour)
		sig := o.Attach(subject, "sig")
		o.Fail("GET manifest app "+mirrortest.Short(sig.Digest.String()), upstream.ErrDenied)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || !got.Stale || !got.Partial || len(got.Manifests) != 1 {
			t.Errorf("one is listed: %v, stale %v, partial %v, %v", mirrortest.Types(got), got.Stale, got.Partial, err)
		}
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("once it can be read: %v, %v", mirrortest.Types(got), err)
		}
	})
}

// An image that an index marks as an attestation is still an image, and never
// gets an empty list for an unknown answer.
func TestAnImageThatAnIndexMarksAsAnAttestationIsStillAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		other, _ := o.Image("app", "", mirrortest.Bytes(2, 50))
		image.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": other.Digest.String()}
		index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []pull.Descriptor{image, other}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		o.Put("app", mirrortest.IndexType, raw, "2")
		m := mirrortest.New(t, o, nil)
		for _, ref := range []string{"1", "2"} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, ref); err != nil {
				t.Fatal(err)
			}
		}
		o.Fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); err == nil {
			t.Errorf("it is told as %v", got)
		}
	})
}

// dropList forgets the list of a subject's referrers, and what was seen.
func dropList(m mirrortest.Mirror, subject pull.Digest) {
	for _, d := range m.Ledger.Seen(mirrortest.App, subject) {
		m.Ledger.DropSeen(mirrortest.App, subject, d.Digest)
	}
	m.Ledger.PutReferrers(mirrortest.App, subject, metadata.Referrers{})
	m.Ledger.DropEmptyReferrers(mirrortest.App, subject)
}
