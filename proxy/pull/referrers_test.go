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

// attach puts a referrer of subject into the origin, without any list of it.
func (o *origin) attach(subject Descriptor, artifactType string) Descriptor {
	empty := o.put("app", ocispec.MediaTypeEmptyJSON, []byte("{}"))
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: empty, Layers: []Descriptor{empty},
		Annotations: map[string]string{"made-by": artifactType},
	}
	if subject.Digest != "" {
		m.Subject = &subject
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return o.put("app", ocispec.MediaTypeImageManifest, raw)
}

// list puts a referrers tag into the origin, with descriptors as bare as wild
// ones are (wire fact W51).
func (o *origin) list(subject Digest, children ...Descriptor) {
	index := ocispec.Index{MediaType: indexType, Manifests: []Descriptor{}}
	index.SchemaVersion = 2
	for _, c := range children {
		c.ArtifactType = ocispec.MediaTypeEmptyJSON
		index.Manifests = append(index.Manifests, c)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		panic(err)
	}
	o.put("app", indexType, raw, referrers.TagOf(subject))
}

func types(r Referrers) []string {
	var all []string
	for _, d := range r.Manifests {
		all = append(all, d.ArtifactType)
	}
	slices.Sort(all)
	return all
}

func TestReferrersOfA10Upstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		signature := o.attach(subject, "sig")
		other := o.attach(Descriptor{Digest: indexAlgorithm.FromString("other"), MediaType: "x", Size: 1}, "other")
		gone := Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: indexAlgorithm.FromString("gone"), Size: 9}
		o.list(subject.Digest, signature, other, gone)
		m := newMirror(t, o, nil)
		tag := referrers.TagOf(subject.Digest)
		got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || fmt.Sprint(types(got)) != "[sig]" || got.Manifests[0].Annotations["made-by"] != "sig" {
			t.Errorf("got %v and %v", got.Manifests, err)
		}
		wantTranscript(
			t, o,
			"GET referrers app "+short(subject.Digest.String()),
			"HEAD manifest app "+tag, // most are not there, and a HEAD is not counted (W42)
			"GET manifest app "+short(indexAlgorithm.FromBytes(o.content["app "+tag].body).String()),
			"GET manifest app "+short(signature.Digest.String()),
			"GET manifest app "+short(other.Digest.String()),
			"GET manifest app "+short(gone.Digest.String()),
		)
		// A hit asks nothing.
		if got, err = m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || got.Outcome != Hit {
			t.Errorf("outcome %v, %v", got.Outcome, err)
		}
		wantTranscript(t, o)
		// For a while it is known that there is no API, in this repository.
		second, _ := o.image("app", "2", bytesOf(2, 50))
		if _, err := m.Referrers(t.Context(), hubApp, second.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "HEAD manifest app "+referrers.TagOf(second.Digest))
		// A registry may be upgraded: the API is asked for again within a minute.
		time.Sleep(6 * time.Minute)
		if _, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "GET referrers app "+short(subject.Digest.String()), "HEAD manifest app "+tag, "GET manifest app "+short(gone.Digest.String()))
	})
}

func TestThatNothingRefersIsBelievedAsLongAsAnyAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		m := newMirror(t, o, nil)
		list := func(want ...string) {
			t.Helper()
			got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
			if err != nil || fmt.Sprint(types(got)) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v, %v", types(got), want, err)
			}
		}
		list()
		o.attach(subject, "sig")
		time.Sleep(m.opts.NegativeTTL / 2)
		list() // absent a moment ago
		time.Sleep(m.opts.NegativeTTL)
		list("sig")
	})
}

// W44: a HEAD has no body that tells a registry.
func TestWhatPassedThroughIsNotForgottenOnAHEADsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		signature := o.attach(subject, "sig")
		m := newMirror(t, o, nil)
		if _, err := m.Manifest(t.Context(), hubApp, signature.Digest.String()); err != nil {
			t.Fatal(err)
		}
		head := "HEAD manifest app " + short(signature.Digest.String())
		o.fail(head, upstream.ErrNotFound)
		if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || fmt.Sprint(types(got)) != "[sig]" {
			t.Errorf("on a HEAD's word: %v, %v", types(got), err)
		}
		o.remove("app", signature.Digest.String())
		time.Sleep(time.Hour)
		if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("once it is gone: %v, %v", types(got), err)
		}
	})
}

// What an upstream says of one repository says nothing of another.
func TestThatThereIsNoAPIIsNotLearntFromOneRepositoryForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		app, _ := o.image("app", "1", bytesOf(1, 50))
		other := o.put("other", "manifest", fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q}`, ocispec.MediaTypeImageManifest))
		m := newMirror(t, o, nil)
		if _, err := m.Referrers(t.Context(), hubApp, app.Digest); err != nil {
			t.Error(err)
		}
		o.transcript()
		if _, err := m.Referrers(t.Context(), Repository{Upstream: "hub", Name: "other"}, other.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "GET referrers other "+short(other.Digest.String()), "HEAD manifest other "+referrers.TagOf(other.Digest))
	})
}

func TestReferrersOfA11Upstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		signature := o.attach(subject, "sig")
		m := newMirror(t, o, nil)
		tag := referrers.TagOf(subject.Digest)
		got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || fmt.Sprint(types(got)) != "[sig]" {
			t.Errorf("got %v and %v", got.Manifests, err)
		}
		wantTranscript(
			t, o,
			"GET referrers app "+short(subject.Digest.String()),
			"HEAD manifest app "+tag,
			"GET manifest app "+short(signature.Digest.String()),
		)
		// W57: the tag that the upstream does not have is made from the API.
		made, err := m.Manifest(t.Context(), hubApp, tag)
		if err != nil || made.Descriptor.MediaType != indexType {
			t.Fatalf("the referrers tag: %v, %v", made.Descriptor, err)
		}
		list, err := referrers.Decode(made.Bytes)
		if err != nil || len(list) != 1 || list[0].Digest != signature.Digest {
			t.Errorf("the referrers tag lists %v, %v", list, err)
		}
		if again, err := m.Manifest(t.Context(), hubApp, made.Descriptor.Digest.String()); err != nil || string(again.Bytes) != string(made.Bytes) {
			t.Errorf("by its own digest: %v", err)
		}
		wantTranscript(t, o)
		// W56: a list under the tag and a list of the API are one.
		sbom := o.attach(subject, "sbom")
		o.list(subject.Digest, sbom)
		time.Sleep(6 * time.Minute)
		if got, err = m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || fmt.Sprint(types(got)) != "[sbom sig]" {
			t.Errorf("got %v and %v", types(got), err)
		}
	})
}

func TestAReferrersTagThatTheUpstreamHasGoesThroughUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		o.attach(subject, "sig")
		o.list(subject.Digest)
		m := newMirror(t, o, nil)
		got, err := m.Manifest(t.Context(), hubApp, referrers.TagOf(subject.Digest))
		if err != nil {
			t.Fatal(err)
		}
		if want := o.content["app "+referrers.TagOf(subject.Digest)].body; string(got.Bytes) != string(want) {
			t.Errorf("got %s", got.Bytes)
		}
	})
}

func TestNobodyReferring(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprintf("API %v", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				o.api = api
				subject, _ := o.image("app", "1", bytesOf(1, 50))
				m := newMirror(t, o, nil)
				got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
				if err != nil || len(got.Manifests) != 0 || got.Stale {
					t.Errorf("got %v and %v", got, err)
				}
				if _, err := m.Manifest(t.Context(), hubApp, referrers.TagOf(subject.Digest)); !errors.Is(err, upstream.ErrNotFound) {
					t.Errorf("the referrers tag: %v", err)
				}
			})
		})
	}
}

// Each source with each fault, with and without an earlier whole answer: the
// list is stale, or the answer is an error; it never says that it is all.
func TestUnknownIsNotNone(t *testing.T) {
	limited := &upstream.RateLimitedError{RetryAfter: time.Minute}
	for source, line := range map[string]func(subject, child Descriptor) string{
		"the API":   func(s, _ Descriptor) string { return "GET referrers app " + short(s.Digest.String()) },
		"the tag":   func(s, _ Descriptor) string { return "HEAD manifest app " + referrers.TagOf(s.Digest) },
		"a child":   func(_, c Descriptor) string { return "GET manifest app " + short(c.Digest.String()) },
		"all of it": func(Descriptor, Descriptor) string { return "*" },
	} {
		for fault, err := range map[string]error{
			"unavailable": upstream.ErrUnavailable,
			"silent":      upstream.ErrTimeout,
			"no registry": upstream.ErrBadAnswer,
			"limited":     limited,
			"denied":      upstream.ErrDenied,
		} {
			for _, kept := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s is %s, kept before: %v", source, fault, kept), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						o := newOrigin()
						subject, _ := o.image("app", "1", bytesOf(1, 50))
						first := o.attach(subject, "first")
						m := newMirror(t, o, nil)
						if kept {
							o.list(subject.Digest, first)
							if _, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil {
								t.Fatal(err)
							}
							time.Sleep(20 * time.Minute)
						}
						second := o.attach(subject, "second")
						o.list(subject.Digest, first, second)
						o.fail(line(subject, second), err, err)
						got, gotErr := m.Referrers(t.Context(), hubApp, subject.Digest)
						switch {
						case source == "the API" && !kept:
							// The tag has a list: proof in itself, though not of being all.
							if gotErr != nil || !got.Stale || fmt.Sprint(types(got)) != "[first second]" {
								t.Errorf("got %v, stale %v, %v", types(got), got.Stale, gotErr)
							}
						case errors.Is(err, upstream.ErrDenied) && source != "the API":
							if !errors.Is(gotErr, upstream.ErrDenied) {
								t.Errorf("got %v, %v", types(got), gotErr)
							}
						case kept:
							if gotErr != nil || !got.Stale || !slices.Contains(types(got), "first") {
								t.Errorf("got %v, stale %v, %v", types(got), got.Stale, gotErr)
							}
						case gotErr == nil || errors.Is(gotErr, upstream.ErrNotFound):
							t.Errorf("got %v and %v, which says that it is all", types(got), gotErr)
						}
						// The tag made from referrers is no more of a "no".
						if _, err := m.Manifest(t.Context(), hubApp, referrers.TagOf(subject.Digest)); errors.Is(err, upstream.ErrNotFound) {
							t.Errorf("the referrers tag: %v", err)
						}
						// It mends itself.
						o.mu.Lock()
						o.failures = map[string][]error{}
						o.mu.Unlock()
						time.Sleep(time.Minute)
						if got, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || got.Stale || fmt.Sprint(types(got)) != "[first second]" {
							t.Errorf("afterwards %v, stale %v, %v", types(got), got.Stale, err)
						}
					})
				})
			}
		}
	}
}

func TestReferrersHoldOfflineAndAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		o.list(subject.Digest, o.attach(subject, "sig"))
		m := newMirror(t, o, nil)
		if _, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		off := newMirror(t, o, func(opts *Options) {
			opts.Blobs, opts.Records, opts.Offline = m.opts.Blobs, m.opts.Records, true
		})
		got, err := off.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || !got.Stale || fmt.Sprint(types(got)) != "[sig]" {
			t.Errorf("got %v, stale %v, %v", types(got), got.Stale, err)
		}
		if _, err := off.Referrers(t.Context(), hubApp, indexAlgorithm.FromString("unknown")); !errors.Is(err, ErrOffline) {
			t.Errorf("of a subject that was never asked about: %v", err)
		}
	})
}

func TestManifestsThatPassedThroughAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		passed := o.attach(subject, "passed") // in no list upstream
		m := newMirror(t, o, nil)
		if _, err := m.Manifest(t.Context(), hubApp, passed.Digest.String()); err != nil {
			t.Fatal(err)
		}
		got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || fmt.Sprint(types(got)) != "[passed]" {
			t.Errorf("got %v, %v", types(got), err)
		}
		// What the upstream has deleted is listed no longer.
		o.remove("app", passed.Digest.String())
		time.Sleep(6 * time.Minute)
		if got, err = m.Referrers(t.Context(), hubApp, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("got %v, %v", types(got), err)
		}
	})
}

func TestBuildKitAttestations(t *testing.T) {
	for name, c := range map[string]struct {
		subject, optIn bool
		want           string
	}{
		"with a subject":                 {subject: true, want: "[]"},
		"without a subject":              {want: "[]"},
		"without a subject, if opted in": {optIn: true, want: "[" + referrers.AttestationType + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				image, _ := o.image("app", "amd64", bytesOf(1, 50))
				var of Descriptor
				want := c.want
				artifactType := ""
				if c.subject {
					of, artifactType = image, referrers.AttestationType
					want = "[" + referrers.AttestationType + "]"
				}
				attestation := o.attach(of, artifactType)
				attestation.Platform = &ocispec.Platform{Architecture: "unknown", OS: "unknown"}
				attestation.Annotations = map[string]string{
					"vnd.docker.reference.type":   "attestation-manifest",
					"vnd.docker.reference.digest": image.Digest.String(),
				}
				index := ocispec.Index{MediaType: indexType, Manifests: []Descriptor{image, attestation}}
				index.SchemaVersion = 2
				raw, err := json.Marshal(index)
				if err != nil {
					t.Fatal(err)
				}
				o.put("app", indexType, raw, "1")
				m := newMirror(t, o, func(opts *Options) { opts.Upstreams[0].BuildKitAttestations = c.optIn })
				if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
					t.Fatal(err)
				}
				got, err := m.Referrers(t.Context(), hubApp, image.Digest)
				if err != nil || fmt.Sprint(types(got)) != want {
					t.Errorf("got %v, want %s, %v", types(got), want, err)
				}
			})
		})
	}
}

func TestCosignTagsCountWhereTheConfigurationSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		o.image("app", referrers.CosignTags(subject.Digest)[0].Tag, bytesOf(2, 50))
		plain := newMirror(t, o, nil)
		if got, err := plain.Referrers(t.Context(), hubApp, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("unasked: %v, %v", types(got), err)
		}
		opted := newMirror(t, o, func(opts *Options) { opts.Upstreams[0].CosignTags = true })
		got, err := opted.Referrers(t.Context(), hubApp, subject.Digest)
		if want := "[" + referrers.CosignTags(subject.Digest)[0].ArtifactType + "]"; err != nil || fmt.Sprint(types(got)) != want {
			t.Errorf("got %v, want %s, %v", types(got), want, err)
		}
	})
}

func TestTenThousandReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		subject, _ := o.image("app", "1", bytesOf(1, 50))
		for i := range 10_000 {
			o.attach(subject, fmt.Sprint("type", i))
		}
		m := newMirror(t, o, nil)
		got, err := m.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || len(got.Manifests) != 10_000 {
			t.Errorf("got %d, %v", len(got.Manifests), err)
		}
		again, err := m.Referrers(t.Context(), hubApp, subject.Digest)
		if err != nil || len(again.Manifests) != 10_000 || again.Outcome != Hit {
			t.Errorf("again %d, %v, %v", len(again.Manifests), again.Outcome, err)
		}
	})
}
