package pull_test

import (
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

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

func TestReferrersOfAnUpstreamWithoutTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		signature := o.Attach(subject, "sig")
		other := o.Attach(pull.Descriptor{Digest: mirrortest.IndexAlgorithm.FromString("other"), MediaType: "x", Size: 1}, "other")
		gone := pull.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: mirrortest.IndexAlgorithm.FromString("gone"), Size: 9}
		o.List(subject.Digest, signature, other, gone)
		m := mirrortest.New(t, o, nil)
		tag := referrers.TagOf(subject.Digest)
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" || got.Manifests[0].Annotations["made-by"] != "sig" {
			t.Errorf("got %v and %v", got.Manifests, err)
		}
		mirrortest.WantTranscript(
			t, o,
			"GET referrers app "+mirrortest.Short(subject.Digest.String()),
			"HEAD manifest app "+tag, // most are not there, and a HEAD is not counted (W42)
			"GET manifest app "+mirrortest.Short(mirrortest.IndexAlgorithm.FromBytes(o.Content["app "+tag].Body).String()),
			"GET manifest app "+mirrortest.Short(signature.Digest.String()),
			"GET manifest app "+mirrortest.Short(other.Digest.String()),
			"GET manifest app "+mirrortest.Short(gone.Digest.String()),
		)
		// One that is listed and not there may be anything (12.4). That is not
		// asked for at each question.
		if got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || !got.Stale || !got.Partial || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("with one that is not there: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
		}
		mirrortest.WantTranscript(t, o)
		o.List(subject.Digest, signature, other)
		time.Sleep(time.Minute)
		if got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("without it: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
		}
		o.Transcript()
		// A hit sends no requests.
		if got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Outcome != pull.Hit {
			t.Errorf("outcome %v, %v", got.Outcome, err)
		}
		mirrortest.WantTranscript(t, o)
		// For a while, this repository is known to have no API.
		second, _ := o.Image("app", "2", mirrortest.Bytes(2, 50))
		if _, err := m.Referrers(t.Context(), mirrortest.App, second.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "HEAD manifest app "+referrers.TagOf(second.Digest))
		// A registry may be upgraded: the API is tried again within a minute.
		time.Sleep(6 * time.Minute)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "GET referrers app "+mirrortest.Short(subject.Digest.String()), "HEAD manifest app "+tag)
	})
}

func TestAnEmptyReferrersListExpiresLikeAnyNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		list := func(want ...string) {
			t.Helper()
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if err != nil || fmt.Sprint(mirrortest.Types(got)) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v, %v", mirrortest.Types(got), want, err)
			}
		}
		list()
		o.Attach(subject, "sig")
		time.Sleep(m.Rules.NegativeTTL / 2)
		list() // absent a moment ago
		time.Sleep(m.Rules.NegativeTTL)
		list("sig")
	})
}

// W44: a HEAD response has no body that identifies a registry.
func TestASeenReferrerIsNotForgottenBecauseOfAHEADAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		signature := o.Attach(subject, "sig")
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, signature.Digest.String()); err != nil {
			t.Fatal(err)
		}
		head := "HEAD manifest app " + mirrortest.Short(signature.Digest.String())
		o.Fail(head, upstream.ErrNotFound)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("on a HEAD's word: %v, %v", mirrortest.Types(got), err)
		}
		o.Remove("app", signature.Digest.String())
		time.Sleep(time.Hour)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("once it is gone: %v, %v", mirrortest.Types(got), err)
		}
	})
}

// An answer about one repository says nothing about another.
func TestAMissingAPIIsRememberedForOneRepositoryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		app, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		other := o.Put("other", "manifest", fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q}`, ocispec.MediaTypeImageManifest))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, app.Digest); err != nil {
			t.Error(err)
		}
		o.Transcript()
		if _, err := m.Referrers(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, other.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "GET referrers other "+mirrortest.Short(other.Digest.String()), "HEAD manifest other "+referrers.TagOf(other.Digest))
	})
}

func TestReferrersOfAnUpstreamWithTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		signature := o.Attach(subject, "sig")
		m := mirrortest.New(t, o, nil)
		tag := referrers.TagOf(subject.Digest)
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("got %v and %v", got.Manifests, err)
		}
		mirrortest.WantTranscript(
			t, o,
			"GET referrers app "+mirrortest.Short(subject.Digest.String()),
			"HEAD manifest app "+tag,
			"GET manifest app "+mirrortest.Short(signature.Digest.String()),
		)
		// W57: a tag that the upstream does not have is built from the API's
		// list.
		made, err := m.Manifest(t.Context(), mirrortest.App, tag)
		if err != nil || made.Descriptor.MediaType != mirrortest.IndexType {
			t.Fatalf("the referrers tag: %v, %v", made.Descriptor, err)
		}
		list, err := referrers.Decode(referrers.Parse(made.Bytes))
		if err != nil || len(list) != 1 || list[0].Digest != signature.Digest {
			t.Errorf("the referrers tag lists %v, %v", list, err)
		}
		if again, err := m.Manifest(t.Context(), mirrortest.App, made.Descriptor.Digest.String()); err != nil || string(again.Bytes) != string(made.Bytes) {
			t.Errorf("by its own digest: %v", err)
		}
		mirrortest.WantTranscript(t, o)
		// W56: the lists of the tag and of the API are merged.
		sbom := o.Attach(subject, "sbom")
		o.List(subject.Digest, sbom)
		time.Sleep(6 * time.Minute)
		if got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sbom sig]" {
			t.Errorf("got %v and %v", mirrortest.Types(got), err)
		}
	})
}

// 12.8: a leftover tag of a registry that has gained the API hides nothing of
// what the API lists. What the tag describes as it is, is served unchanged.
func TestAReferrersTagIsTheMergedList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		sig := o.Attach(subject, "sig")
		o.List(subject.Digest)
		m := mirrortest.New(t, o, nil)
		tag := referrers.TagOf(subject.Digest)
		got, err := m.Manifest(t.Context(), mirrortest.App, tag)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := referrers.Decode(referrers.Parse(got.Bytes)); err != nil || len(list) != 1 || list[0].Digest != sig.Digest || list[0].ArtifactType != "sig" {
			t.Errorf("got %s, %v", got.Bytes, err)
		}
		sig.ArtifactType, sig.Annotations = "sig", map[string]string{"made-by": "sig"}
		raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mirrortest.IndexType, "manifests": []pull.Descriptor{sig}, "annotations": map[string]string{"own": "yes"}})
		if err != nil {
			t.Fatal(err)
		}
		o.Put("app", mirrortest.IndexType, raw, tag)
		time.Sleep(time.Hour)
		if got, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil || string(got.Bytes) != string(raw) {
			t.Errorf("got %s, %v", got.Bytes, err)
		}
	})
}

// 12.20: somebody's own image under such a tag is served as it is, and is no
// failure of the list.
func TestAnImageUnderAReferrersTagIsServedAsItIs(t *testing.T) {
	for _, isIndex := range []bool{false, true} {
		t.Run(fmt.Sprint("an index: ", isIndex), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = true
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				o.Attach(subject, "sig")
				tag := referrers.TagOf(subject.Digest)
				own, _ := o.Image("app", tag, mirrortest.Bytes(2, 50))
				own.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
				if isIndex {
					raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mirrortest.IndexType, "manifests": []pull.Descriptor{own}})
					if err != nil {
						t.Fatal(err)
					}
					own = o.Put("app", mirrortest.IndexType, raw, tag)
				}
				m := mirrortest.New(t, o, nil)
				for range 2 {
					if got, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil || got.Descriptor.Digest != own.Digest {
						t.Errorf("the tag is %s, %v", got.Bytes, err)
					}
					if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
						t.Errorf("the list: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
					}
					time.Sleep(time.Hour)
				}
			})
		})
	}
}

func TestAnEmptyReferrersList(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprintf("API %v", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = api
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				if err != nil || len(got.Manifests) != 0 || got.Stale {
					t.Errorf("got %v and %v", got, err)
				}
				if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest)); !errors.Is(err, upstream.ErrNotFound) {
					t.Errorf("the referrers tag: %v", err)
				}
			})
		})
	}
}

// Each source with each fault, with and without an earlier complete answer: the
// list is stale, or the answer is an error. It is never presented as complete.
func TestUnknownIsNotNone(t *testing.T) {
	limited := &upstream.RateLimitedError{RetryAfter: time.Minute}
	for source, line := range map[string]func(subject, child pull.Descriptor) string{
		"the API":   func(s, _ pull.Descriptor) string { return "GET referrers app " + mirrortest.Short(s.Digest.String()) },
		"the tag":   func(s, _ pull.Descriptor) string { return "HEAD manifest app " + referrers.TagOf(s.Digest) },
		"a child":   func(_, c pull.Descriptor) string { return "GET manifest app " + mirrortest.Short(c.Digest.String()) },
		"all of it": func(pull.Descriptor, pull.Descriptor) string { return "*" },
	} {
		for fault, err := range map[string]error{
			"unavailable": upstream.ErrUnavailable,
			"silent":      upstream.ErrTimeout,
			"no registry": upstream.ErrInvalidResponse,
			"limited":     limited,
			"denied":      upstream.ErrDenied,
		} {
			for _, kept := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s is %s, kept before: %v", source, fault, kept), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						o := mirrortest.NewOrigin()
						subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
						first := o.Attach(subject, "first")
						m := mirrortest.New(t, o, nil)
						if kept {
							o.List(subject.Digest, first)
							if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
								t.Fatal(err)
							}
							time.Sleep(20 * time.Minute)
						}
						second := o.Attach(subject, "second")
						o.List(subject.Digest, first, second)
						o.Fail(line(subject, second), err, err)
						got, gotErr := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
						switch {
						case source == "the API" && !kept:
							// The tag lists something, which is certain but may be
							// incomplete.
							if gotErr != nil || !got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[first second]" {
								t.Errorf("got %v, stale %v, %v", mirrortest.Types(got), got.Stale, gotErr)
							}
						case errors.Is(err, upstream.ErrDenied) && source != "the API":
							if !errors.Is(gotErr, upstream.ErrDenied) {
								t.Errorf("got %v, %v", mirrortest.Types(got), gotErr)
							}
						case kept:
							if gotErr != nil || !got.Stale || !slices.Contains(mirrortest.Types(got), "first") {
								t.Errorf("got %v, stale %v, %v", mirrortest.Types(got), got.Stale, gotErr)
							}
						case source == "a child" && gotErr == nil:
							// It is listed as it is claimed to be.
							if !got.Stale || !got.Partial || len(got.Manifests) != 2 {
								t.Errorf("got %v, stale %v, partial %v", mirrortest.Types(got), got.Stale, got.Partial)
							}
						case gotErr == nil || errors.Is(gotErr, upstream.ErrNotFound):
							t.Errorf("got %v and %v, which says that it is all", mirrortest.Types(got), gotErr)
						}
						// The tag built from referrers does not deny them either.
						if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest)); errors.Is(err, upstream.ErrNotFound) {
							t.Errorf("the referrers tag: %v", err)
						}
						// It recovers by itself.
						o.ClearFailures()
						time.Sleep(time.Minute)
						if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[first second]" {
							t.Errorf("afterwards %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
						}
					})
				})
			}
		}
	}
}

func TestReferrersAreServedOfflineAndAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.List(subject.Digest, o.Attach(subject, "sig"))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		off := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records, opts.Rules.Offline = m.Blobs, m.Records, true
		})
		got, err := off.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil || !got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("got %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
		}
		if _, err := off.Referrers(t.Context(), mirrortest.App, mirrortest.IndexAlgorithm.FromString("unknown")); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("of a subject that was never asked about: %v", err)
		}
	})
}

func TestSeenManifestsAreListedAsReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		passed := o.Attach(subject, "passed") // in no list upstream
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, passed.Digest.String()); err != nil {
			t.Fatal(err)
		}
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil || fmt.Sprint(mirrortest.Types(got)) != "[passed]" {
			t.Errorf("got %v, %v", mirrortest.Types(got), err)
		}
		// Manifests that the upstream has deleted are no longer listed.
		o.Remove("app", passed.Digest.String())
		time.Sleep(6 * time.Minute)
		if got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("got %v, %v", mirrortest.Types(got), err)
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
				o := mirrortest.NewOrigin()
				image, _ := o.Image("app", "amd64", mirrortest.Bytes(1, 50))
				var of pull.Descriptor
				want := c.want
				artifactType := ""
				if c.subject {
					of, artifactType = image, referrers.AttestationType
					want = "[" + referrers.AttestationType + "]"
				}
				attestation := o.Attach(of, artifactType)
				attestation.Platform = &ocispec.Platform{Architecture: "unknown", OS: "unknown"}
				attestation.Annotations = map[string]string{
					"vnd.docker.reference.type":   "attestation-manifest",
					"vnd.docker.reference.digest": image.Digest.String(),
				}
				index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []pull.Descriptor{image, attestation}}
				index.SchemaVersion = 2
				raw, err := json.Marshal(index)
				if err != nil {
					t.Fatal(err)
				}
				o.Put("app", mirrortest.IndexType, raw, "1")
				m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].BuildKitAttestations = c.optIn })
				if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
					t.Fatal(err)
				}
				got, err := m.Referrers(t.Context(), mirrortest.App, image.Digest)
				if err != nil || fmt.Sprint(mirrortest.Types(got)) != want {
					t.Errorf("got %v, want %s, %v", mirrortest.Types(got), want, err)
				}
			})
		})
	}
}

func TestCosignTagsCountIfTheConfigurationSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Image("app", referrers.CosignTags(subject.Digest)[0].Tag, mirrortest.Bytes(2, 50))
		plain := mirrortest.New(t, o, nil)
		if got, err := plain.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) != 0 {
			t.Errorf("unasked: %v, %v", mirrortest.Types(got), err)
		}
		opted := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].CosignTags = true })
		got, err := opted.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if want := "[" + referrers.CosignTags(subject.Digest)[0].ArtifactType + "]"; err != nil || fmt.Sprint(mirrortest.Types(got)) != want {
			t.Errorf("got %v, want %s, %v", mirrortest.Types(got), want, err)
		}
	})
}

// 12.12, 12.16, 12.22: a long list is opened within bounds, and the rest over
// time. Until then it is stale; afterwards all are described from themselves.
func TestALongListIsOpenedWithinBounds(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const many = 3000
				o := mirrortest.NewOrigin()
				o.API = api
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				var all []pull.Descriptor
				for i := range many {
					all = append(all, o.Attach(subject, fmt.Sprint("type", i)))
				}
				if !api {
					o.List(subject.Digest, all...)
				}
				m := mirrortest.New(t, o, nil)
				ask := func() pull.Referrers {
					got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
					if err == nil && !got.List.IsZero() {
						got.Manifests, err = got.List.Descriptors()
					}
					if err != nil || len(got.Manifests) != many {
						t.Fatalf("got %d, %v", len(got.Manifests), err)
					}
					return got
				}
				if got := ask(); !got.Stale || !got.Partial {
					t.Errorf("stale %v, partial %v", got.Stale, got.Partial)
				}
				asked := len(o.Transcript())
				if got := ask(); got.Outcome == pull.Hit {
					t.Error("it is told as complete")
				}
				time.Sleep(2 * time.Second) // the rest is opened then
				synctest.Wait()
				asked += len(o.Transcript())
				if asked > many+10 {
					t.Errorf("%d requests for %d referrers", asked, many)
				}
				got := ask()
				for _, d := range got.Manifests {
					if d.Annotations["made-by"] != d.ArtifactType || !strings.HasPrefix(d.ArtifactType, "type") {
						t.Fatalf("%s is described as %s, with %v", d.Digest, d.ArtifactType, d.Annotations)
					}
				}
				if got.Stale {
					t.Error("all have been opened, and it is stale")
				}
				again := o.Transcript()
				if len(again) > 3 {
					t.Errorf("what was opened is opened again: %d requests", len(again))
				}
				if got := ask(); got.Outcome != pull.Hit {
					t.Errorf("outcome %s", got.Outcome)
				}
			})
		})
	}
}

// Docker Hub counts what is opened (W42): while little is left, a few are opened
// at once, and the rest when there is more.
func TestALongListIsOpenedAsTheRateLimitAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		for i := range 100 {
			o.Attach(subject, fmt.Sprint("type", i))
		}
		var left atomic.Int64
		left.Store(10)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Upstreams[0].Quota = func() float64 { return float64(left.Load()) / 100 }
		})
		ask := func() pull.Referrers {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if err != nil || len(got.Manifests) != 100 {
				t.Fatalf("got %d, %v", len(got.Manifests), err)
			}
			return got
		}
		if got := ask(); !got.Stale {
			t.Error("it is told as complete")
		}
		time.Sleep(5 * time.Second)
		if n := len(o.Transcript()); n != 2+16 {
			t.Errorf("%d requests while little is left", n)
		}
		left.Store(100)
		time.Sleep(2 * time.Minute)
		if n := len(o.Transcript()); n != 100-16 {
			t.Errorf("%d requests once there is more", n)
		}
		if got := ask(); got.Stale {
			t.Error("all have been opened, and it is stale")
		}
	})
}

// TestAReferrerThatIsRemovedHereIsLookedFor: one that passed through is listed,
// and the answer from before is not the word about it when it is purged or
// evicted, because the upstream has it.
func TestAReferrerThatIsRemovedHereIsLookedFor(t *testing.T) {
	for name, c := range map[string]struct {
		isKept, had, isAway bool
		want                string
		stale               bool
	}{
		"of an image that is kept":                 {isKept: true, want: "[new]"},
		"of an image that is not kept":             {want: "[new]"},
		"with another one":                         {isKept: true, had: true, want: "[new old]"},
		"with another one, and it is away":         {isKept: true, had: true, isAway: true, want: "[old]", stale: true},
		"of an image that is kept, and it is away": {isKept: true, isAway: true, want: "[]", stale: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = true
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				if c.had {
					o.Attach(subject, "old")
				}
				m := mirrortest.New(t, o, nil)
				if c.isKept {
					m.PullImage(t, mirrortest.App, "1")
				}
				if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
					t.Fatal(err)
				}
				added := o.Attach(subject, "new")
				if _, err := m.Manifest(t.Context(), mirrortest.App, added.Digest.String()); err != nil {
					t.Fatal(err)
				}
				got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				if err != nil || !slices.Contains(mirrortest.Types(got), "new") {
					t.Errorf("it has passed through: %v, %v", mirrortest.Types(got), err)
				}
				if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: added.Digest.String()}, false); err != nil {
					t.Fatal(err)
				}
				if c.isAway {
					o.FailAll()
				}
				got, err = m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				if types := mirrortest.Types(got); err != nil || len(types) != len(strings.Fields(strings.Trim(c.want, "[]"))) || fmt.Sprint(sorted(types)) != c.want || got.Stale != c.stale {
					t.Errorf("%v, stale %v, %v; want %s, stale %v", types, got.Stale, err, c.want, c.stale)
				}
			})
		})
	}
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}
