package pull_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// list asks for the referrers of a subject.
func list(t *testing.T, m mirrortest.Mirror, subject pull.Descriptor) (told string) {
	t.Helper()
	got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
	switch {
	case errors.Is(err, upstream.ErrDenied):
		return "refused"
	case err != nil:
		return "unknown"
	case got.Stale:
		return fmt.Sprint("stale ", mirrortest.Types(got))
	}
	return fmt.Sprint("known ", mirrortest.Types(got))
}

func wantList(t *testing.T, m mirrortest.Mirror, subject pull.Descriptor, what, want string) {
	t.Helper()
	if got := list(t, m, subject); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// 12.3: that a child was absent before a list named it counts for nothing.
func TestAnAbsenceIsForgottenWhenAListNamesTheChild(t *testing.T) {
	for _, api := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			o.API = api
			subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
			sig := o.Attach(subject, "sig")
			body, _ := o.Get("app", sig.Digest.String())
			o.Remove("app", sig.Digest.String())
			m := mirrortest.New(t, o, nil)
			if _, err := m.Manifest(t.Context(), mirrortest.App, sig.Digest.String()); !errors.Is(err, upstream.ErrNotFound) {
				t.Fatal(err)
			}
			o.Put("app", body.MediaType, body.Body)
			if !api {
				o.List(subject.Digest, sig)
			}
			time.Sleep(time.Second)
			wantList(t, m, subject, fmt.Sprint("API ", api), "known [sig]")
		})
	}
}

// 12.4: what a registry lists and cannot be opened is never none.
func TestWhatIsListedAndCannotBeOpenedIsNotNone(t *testing.T) {
	for name, claim := range map[string]pull.Descriptor{
		"children that are not there":          {MediaType: ocispec.MediaTypeImageManifest, Digest: mirrortest.IndexAlgorithm.FromString("gone"), Size: 9},
		"a digest of an algorithm not known":   {MediaType: ocispec.MediaTypeImageManifest, Digest: "blake3:0000000000000000000000000000000000000000000000000000000000000001", Size: 9},
		"an entry without a type, not opened":  {Digest: mirrortest.IndexAlgorithm.FromString("gone, too"), Size: 9},
		"an entry that is no descriptor (API)": {},
	} {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", API ", api), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := mirrortest.NewOrigin()
					o.API = api
					subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
					m := mirrortest.New(t, o, nil)
					wantList(t, m, subject, "before", "known []")
					time.Sleep(time.Hour)
					switch {
					case claim.Digest == "" && api:
						o.Unusable = 1
					case claim.Digest == "":
						return
					case api:
						o.Claims = []pull.Descriptor{claim, claim}
					default:
						o.List(subject.Digest, claim)
					}
					wantList(t, m, subject, "with an empty record", "unknown") // which does not stand
					sig := o.Attach(subject, "sig")
					if !api {
						o.List(subject.Digest, claim, sig)
					}
					time.Sleep(time.Hour)
					wantList(t, m, subject, "with another that can be opened", "stale [sig]")
					// 12.19: never under another digest.
					got, _ := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
					for _, d := range got.Manifests {
						if d.Digest != sig.Digest {
							t.Errorf("it lists %s", d.Digest)
						}
					}
				})
			})
		}
	}
}

// 12.5: HEAD of the fallback tag fails where GET works.
func TestARefusedHEADOfTheReferrersTagIsAskedWithGET(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.List(subject.Digest, o.Attach(subject, "sig"))
		m := mirrortest.New(t, o, nil)
		wantList(t, m, subject, "before", "known [sig]")
		for range 3 {
			o.Fail("HEAD manifest app "+referrers.TagOf(subject.Digest), upstream.ErrNotFound)
			time.Sleep(time.Hour)
			wantList(t, m, subject, "HEAD says 404", "known [sig]")
		}
	})
}

// 12.6: what is learnt is learnt of an endpoint, and cannot tell outweighs none.
func TestEachEndpointIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := mirrortest.NewOrigin(), mirrortest.NewOrigin()
		first.API = true
		for _, o := range []*mirrortest.Origin{first, second} {
			o.Image("app", "1", mirrortest.Bytes(1, 50))
		}
		subject, _ := first.Image("app", "1", mirrortest.Bytes(1, 50))
		first.Attach(subject, "sig")
		ask := "GET referrers app " + mirrortest.Short(subject.Digest.String())
		first.Fail(ask, upstream.ErrUnavailable)
		m := mirrortest.New(t, first, func(opts *mirror.Options) { opts.Upstreams = []pull.Upstream{mirrortest.Endpoints(first, second)} })
		wantList(t, m, subject, "the endpoint with the API is away", "unknown")
		wantList(t, m, subject, "it is back", "known [sig]")
		// 12.15: an empty list of the first does not end the question.
		second.API = true
		time.Sleep(time.Hour)
		second.Attach(subject, "sbom")
		wantList(t, m, subject, "both list some", "known [sbom sig]")
		other, _ := first.Image("app", "2", mirrortest.Bytes(2, 50))
		second.Image("app", "2", mirrortest.Bytes(2, 50))
		second.Attach(other, "elsewhere")
		wantList(t, m, other, "the second alone lists one", "known [elsewhere]")
	})
}

// The tag of each endpoint is asked, too.
func TestTheTagOfEachEndpointIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := mirrortest.NewOrigin(), mirrortest.NewOrigin()
		subject, _ := first.Image("app", "1", mirrortest.Bytes(1, 50))
		second.Image("app", "1", mirrortest.Bytes(1, 50))
		first.List(subject.Digest, first.Attach(subject, "sig"))
		second.List(subject.Digest, second.Attach(subject, "sbom"))
		m := mirrortest.New(t, first, func(opts *mirror.Options) { opts.Upstreams = []pull.Upstream{mirrortest.Endpoints(first, second)} })
		wantList(t, m, subject, "both", "known [sbom sig]")
		second.Fail("HEAD manifest app "+referrers.TagOf(subject.Digest), upstream.ErrUnavailable)
		time.Sleep(time.Hour)
		wantList(t, m, subject, "the second is away", "stale [sbom sig]")
	})
}

// 12.7: tags that carry referrers follow referrers_ttl and negative_ttl alone.
func TestTagsThatCarryReferrersAreAsFreshAsLists(t *testing.T) {
	for _, cosign := range []bool{false, true} {
		t.Run(fmt.Sprint("cosign's ", cosign), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Rules.TagTTL, opts.Rules.ReferrersTTL, opts.Rules.NegativeTTL = time.Hour, 3*time.Second, time.Second
					opts.Upstreams[0].CosignTags = cosign
					opts.Upstreams[0].Immutable = func(string) bool { return true }
					opts.Upstreams[0].Quota = func() float64 { return 0.02 }
				})
				tag := referrers.TagOf(subject.Digest)
				if cosign {
					tag = referrers.CosignTags(subject.Digest)[0].Tag
				}
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag); !errors.Is(err, upstream.ErrNotFound) {
					t.Fatal(err)
				}
				one := o.Attach(subject, "one")
				put := func(d ...pull.Descriptor) {
					if cosign {
						last, _ := o.Get("app", d[len(d)-1].Digest.String())
						o.Put("app", last.MediaType, last.Body, tag)
						return
					}
					o.List(subject.Digest, d...)
				}
				put(one)
				time.Sleep(time.Second)
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
					t.Errorf("the first is not seen after negative_ttl: %v", err)
				}
				two := o.Attach(subject, "two")
				put(one, two)
				time.Sleep(3 * time.Second)
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
					t.Fatal(err)
				}
				if got := list(t, m, subject); !strings.Contains(got, "two") {
					t.Errorf("the second is not seen after referrers_ttl: %s", got)
				}
			})
		})
	}
}

// Never the sum of two times: a list is as old as its oldest source, and that a
// tag was absent was said when it was said.
func TestAnEmptyListIsNoOlderThanNegativeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest)); !errors.Is(err, upstream.ErrNotFound) {
			t.Fatal(err)
		}
		o.List(subject.Digest, o.Attach(subject, "sig"))
		time.Sleep(m.Rules.NegativeTTL - time.Second)
		wantList(t, m, subject, "before negative_ttl has passed", "known []")
		time.Sleep(time.Second)
		wantList(t, m, subject, "once it has passed", "known [sig]")
	})
}

// 12.8: the tag answers what the API is answered with.
func TestTheTagAnswersLikeTheAPIWhileThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		pullManifest(t, m, "1")
		wantList(t, m, subject, "asked", "known []")
		time.Sleep(time.Hour)
		o.Fail("GET referrers app "+mirrortest.Short(subject.Digest.String()), upstream.ErrUnavailable, upstream.ErrUnavailable)
		wantList(t, m, subject, "away", "stale []")
		_, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest))
		var stale *pull.StaleError
		if !errors.Is(err, upstream.ErrNotFound) || !errors.As(err, &stale) {
			t.Errorf("the tag: %v", err)
		}
	})
}

// 12.11: a parent's warning is passed on, and refreshes nothing.
func TestAParentsWarningIsPassedOn(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = api
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				o.MakeStale("*")
				wantList(t, m, subject, "an empty list", "unknown")
				sig := o.Attach(subject, "sig")
				if !api {
					o.List(subject.Digest, sig)
				}
				time.Sleep(time.Hour)
				for range 2 {
					wantList(t, m, subject, "with a warning", "stale [sig]")
				}
				if rec, ok := m.Ledger.Referrers(mirrortest.App, subject.Digest); ok {
					t.Errorf("it is on record: %v", rec)
				}
				got, err := m.Manifest(t.Context(), mirrortest.App, "1")
				if err != nil || !got.Stale {
					t.Errorf("an image's tag: stale %v, %v", got.Stale, err)
				}
				if rec, ok := m.Ledger.Tag(mirrortest.App, "1"); !ok || !rec.CheckedAt.IsZero() {
					t.Errorf("the record of the tag is %v, %v", rec, ok)
				}
				if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil || !got.Stale {
					t.Errorf("again: stale %v, %v", got.Stale, err)
				}
			})
		})
	}
}

// An image under the tag is somebody's own, unless a parent only remembers it:
// there may be a list by now.
func TestAnImageThatAParentRemembersUnderTheTagIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		tag := referrers.TagOf(subject.Digest)
		o.Image("app", tag, mirrortest.Bytes(2, 50))
		wantList(t, mirrortest.New(t, o, nil), subject, "its own", "known []")
		o.MakeStale("HEAD manifest app " + tag)
		o.MakeStale("GET manifest app " + tag)
		wantList(t, mirrortest.New(t, o, nil), subject, "with a warning", "unknown")
	})
}

// 12.13: a claim that could not be checked makes the list stale.
func TestAPoorClaimIsNeverKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		sig := o.Attach(subject, "sig")
		o.Fail("GET manifest app "+mirrortest.Short(sig.Digest.String()), upstream.ErrUnavailable)
		m := mirrortest.New(t, o, nil)
		wantList(t, m, subject, "unchecked", "stale [sig]")
		if rec, ok := m.Ledger.Referrers(mirrortest.App, subject.Digest); ok {
			t.Errorf("a claim is on record: %v", rec)
		}
		wantList(t, m, subject, "checked", "known [sig]")
	})
}

// attestedIndex returns an image and its attestation, which only an index lists.
func attestedIndex(t *testing.T, o *mirrortest.Origin, tag string) (image, attestation pull.Descriptor) {
	t.Helper()
	image, _ = o.Image("app", "amd64", mirrortest.Bytes(1, 50))
	attestation = o.Attach(image, referrers.AttestationType)
	entry := attestation
	entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
	index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []pull.Descriptor{image, entry}}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	o.Put("app", mirrortest.IndexType, raw, tag)
	return image, attestation
}

func pullManifest(t *testing.T, m mirrortest.Mirror, ref string) {
	t.Helper()
	if _, err := m.Manifest(t.Context(), mirrortest.App, ref); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
}

// 12.15: a list from before its index passed through.
func TestWhatAnIndexAttachesIsListedOnceItPassedThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := attestedIndex(t, o, "1")
		m := mirrortest.New(t, o, nil)
		wantList(t, m, image, "before", "known []")
		pullManifest(t, m, "1")
		wantList(t, m, image, "once the index passed through", "known ["+referrers.AttestationType+"]")
	})
}

// 12.3, for every source.
func TestAnAbsenceIsForgottenWhenAnIndexAttachesTheChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, attestation := attestedIndex(t, o, "1")
		body, _ := o.Get("app", attestation.Digest.String())
		o.Remove("app", attestation.Digest.String())
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, attestation.Digest.String()); !errors.Is(err, upstream.ErrNotFound) {
			t.Fatal(err)
		}
		o.Put("app", body.MediaType, body.Body)
		pullManifest(t, m, "1")
		time.Sleep(time.Second)
		wantList(t, m, image, "a second later", "known ["+referrers.AttestationType+"]")
	})
}

// 12.10: what an index says belongs to the index, and not to the manifest that
// it speaks of.
func TestWhatAnIndexAttachesIsListedAfterThePlatformWasPurged(t *testing.T) {
	for name, asked := range map[string]bool{"asked before": true, "never asked before": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				image, attestation := attestedIndex(t, o, "1")
				m := mirrortest.New(t, o, nil)
				pullManifest(t, m, "1")
				pullManifest(t, m, image.Digest.String())
				if asked {
					wantList(t, m, image, "before", "known ["+referrers.AttestationType+"]")
				}
				for _, purged := range []pull.Descriptor{image, attestation} {
					if _, err := m.Cache.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: purged.Digest.String()}, false); err != nil {
						t.Fatal(err)
					}
					wantList(t, m, image, "purged", "known ["+referrers.AttestationType+"]")
				}
				pullManifest(t, m, image.Digest.String())
				time.Sleep(time.Hour)
				wantList(t, m, image, "pulled again", "known ["+referrers.AttestationType+"]")
			})
		})
	}
}

// 12.15: a list of many slow pages goes on in the background, and the next
// question finds it.
func TestASlowListKeepsItsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sig")
		release := slowAPI(o, subject)
		m := mirrortest.New(t, o, nil)
		wantList(t, m, subject, "at first", "unknown")
		for range 5 {
			time.Sleep(time.Minute)
			wantList(t, m, subject, "while it goes on", "unknown")
		}
		release()
		synctest.Wait()
		wantList(t, m, subject, "after five minutes", "known [sig]")
		if n := mirrortest.Count(o.Transcript(), "GET referrers app "+mirrortest.Short(subject.Digest.String())); n != 1 {
			t.Errorf("the API was asked %d times", n)
		}
	})
}

// A part of a list that failed is certain, and is not all.
func TestAListThatFailsAfterItsFirstPageIsNotAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "one")
		o.Attach(subject, "two")
		o.CutReferrers("GET referrers app "+mirrortest.Short(subject.Digest.String()), 1, upstream.ErrInvalidResponse)
		m := mirrortest.New(t, o, nil)
		if got := list(t, m, subject); got != "stale [one]" && got != "stale [two]" {
			t.Errorf("got %s", got)
		}
	})
}

// 12.17: who is no referrer is left out, and an accessory is described from
// itself.
func TestWhatTheAPIListsIsDescribedFromItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		other, _ := o.Image("app", "2", mirrortest.Bytes(2, 50))
		foreign, accessory := o.Attach(other, "of another subject"), o.Attach(pull.Descriptor{}, "accessory")
		accessory.ArtifactType, accessory.Size = "claimed", 1
		o.Claims = []pull.Descriptor{foreign, accessory, subject}
		m := mirrortest.New(t, o, nil)
		wantList(t, m, subject, "the list", "known [accessory]")
		got, _ := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if d := got.Manifests[0]; d.Size == 1 || d.Annotations["made-by"] != "accessory" {
			t.Errorf("the accessory is described as %+v", d)
		}
	})
}

// 12.20: one child that is too large hides no others.
func TestAChildThatIsTooLargeHidesNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		sig := o.Attach(subject, "sig")
		large := o.Put("app", ocispec.MediaTypeImageManifest, slices.Concat([]byte(`{"schemaVersion":2,"x":"`), []byte(strings.Repeat("x", pull.MaxManifest)), []byte(`"}`)))
		o.List(subject.Digest, sig, large)
		m := mirrortest.New(t, o, nil)
		if got := list(t, m, subject); !strings.HasPrefix(got, "stale") || !strings.Contains(got, "sig") {
			t.Errorf("got %s", got)
		}
		o.Transcript()
		list(t, m, subject)
		mirrortest.WantTranscript(t, o) // it is not read at each question
	})
}

// 12.20: a registry's rules for the names of tags say nothing about referrers,
// if its API answered.
func TestATagThatARegistryRefusesIsNoSource(t *testing.T) {
	for _, api := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			o.API = api
			subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
			refused := slices.Repeat([]error{&upstream.RefusedError{Status: 400, Code: "TAG_INVALID"}}, 9)
			o.Fail("HEAD manifest app "+referrers.TagOf(subject.Digest), refused...)
			m := mirrortest.New(t, o, nil)
			wantList(t, m, subject, fmt.Sprint("API ", api), map[bool]string{true: "known []", false: "unknown"}[api])
		})
	}
}

// 12.24: a referrer that was deleted where HEAD by digest is refused.
func TestADeletedReferrerIsAskedForWithGETWhereHEADIsRefused(t *testing.T) {
	for _, refusal := range []error{upstream.ErrDenied, upstream.ErrUnsupported, upstream.ErrInvalidResponse, upstream.ErrNotFound} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
			sig := o.Attach(subject, "sig")
			m := mirrortest.New(t, o, nil)
			if _, err := m.Manifest(t.Context(), mirrortest.App, sig.Digest.String()); err != nil {
				t.Fatal(err)
			}
			head := "HEAD manifest app " + mirrortest.Short(sig.Digest.String())
			o.Fail(head, refusal)
			wantList(t, m, subject, refusal.Error(), "known [sig]")
			o.Remove("app", sig.Digest.String())
			o.Fail(head, refusal)
			time.Sleep(time.Hour)
			wantList(t, m, subject, refusal.Error()+", and it is gone", "known []")
		})
	}
}

// What an index attaches is opened once more if it could not be because another
// request was finding out whether the upstream is back.
func TestAnAttachedManifestIsOpenedWhenAProbeHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, attestation := attestedIndex(t, o, "1")
		m := mirrortest.New(t, o, nil)
		pullManifest(t, m, "1")
		synctest.Wait()
		o.Fail("GET manifest app "+mirrortest.Short(attestation.Digest.String()), upstream.ErrProbed)
		wantList(t, m, image, "after the outage", "known ["+referrers.AttestationType+"]")
	})
}

// What stands under one of cosign's tags is a signature only if it is a
// manifest.
func TestGarbageUnderACosignTagIsNoSignature(t *testing.T) {
	const (
		some  = `{"mediaType":"x","digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","size":1}`
		image = ocispec.MediaTypeImageManifest
	)
	other := mirrortest.IndexAlgorithm.FromString("other")
	signature := `{"schemaVersion":2,"mediaType":"` + image + `","config":` + some + `,"layers":[` + some + `]}`
	for name, c := range map[string]struct{ mediaType, body, want string }{
		"a signature":                      {image, signature, "known [sig]"},
		"a signature of Docker's type":     {"application/vnd.docker.distribution.manifest.v2+json", `{"schemaVersion":2,"config":` + some + `,"layers":[]}`, "known [sig]"},
		"an index":                         {mirrortest.IndexType, `{"schemaVersion":2,"manifests":[` + some + `]}`, "known [sig]"},
		"an artifact":                      {"application/vnd.oci.artifact.manifest.v1+json", `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[` + some + `]}`, "known [sig]"},
		"a signature of another image":     {image, `{"schemaVersion":2,"config":` + some + `,"layers":[` + some + `],"subject":{"mediaType":"x","digest":"` + other.String() + `","size":1}}`, "known []"},
		"an index without manifests":       {mirrortest.IndexType, `{"schemaVersion":2,"mediaType":"` + mirrortest.IndexType + `"}`, "unknown"},
		"an index that is an object":       {mirrortest.IndexType, `{"schemaVersion":2,"garbage":[1,2,3]}`, "unknown"},
		"an index with layers":             {mirrortest.IndexType, `{"schemaVersion":2,"layers":[],"manifests":[]}`, "unknown"},
		"an image without a configuration": {image, `{"schemaVersion":2,"layers":[` + some + `]}`, "unknown"},
		"an image without layers":          {image, `{"schemaVersion":2,"config":` + some + `}`, "unknown"},
		"an image whose layers are text":   {image, `{"schemaVersion":2,"config":` + some + `,"layers":"none"}`, "unknown"},
		"an image whose layers are none":   {image, `{"schemaVersion":2,"config":` + some + `,"layers":[{}]}`, "unknown"},
		"an image of version 1":            {image, `{"schemaVersion":1,"config":` + some + `,"layers":[]}`, "unknown"},
		"an image that is an index":        {image, `{"schemaVersion":2,"config":` + some + `,"layers":[],"manifests":[]}`, "unknown"},
		"an artifact whose blobs are text": {"application/vnd.oci.artifact.manifest.v1+json", `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":"none"}`, "unknown"},
		"of a type that nobody knows":      {"application/vnd.example+json", `{"schemaVersion":2,"mediaType":"application/vnd.example+json"}`, "unknown"},
		"a manifest of Docker's schema 1":  {"application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1,"fsLayers":[]}`, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = true
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].CosignTags = true })
				tag := referrers.CosignTags(subject.Digest)[0]
				o.Put("app", c.mediaType, []byte(c.body), tag.Tag)
				got := strings.ReplaceAll(list(t, m, subject), tag.ArtifactType, "sig")
				if got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			})
		})
	}
}
