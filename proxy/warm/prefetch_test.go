package warm_test

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
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// F21 to F23: Docker requests the referrers of the attestation at every pull,
// and fails if it gets an error; containerd, which pulled first, requests
// nothing.
func TestAnImageThatContainerdPulledCanBePulledByDockerWithTheUpstreamGone(t *testing.T) {
	for _, api := range []bool{false, true} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprintf("API %v, signed %v", api, signed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := mirrortest.NewOrigin()
					o.API = api
					a := o.Attest("1")
					var signature warm.Descriptor
					if signed {
						signature = o.Attach(a.Of[0], "sig")
						if !api {
							o.List(a.Of[0].Digest, signature)
						}
					}
					m := mirrortest.New(t, o, nil)
					m.Prefetch(t)
					m.PullPlatform(t, a, "1", 0)
					if len(m.Missing(t)) == 0 {
						t.Error("it is said that there is nothing to learn before anything was")
					}
					time.Sleep(5 * warm.SettleDelay)
					if left := m.Missing(t); len(left) > 0 {
						t.Errorf("not prefetched: %v", left)
					}
					o.Fail("*", upstream.ErrRefused)
					time.Sleep(time.Hour)
					// Docker on another node, and what it requests in addition
					// to the image.
					if _, err := m.Manifest(t.Context(), mirrortest.App, a.Of[0].Digest.String()); err != nil {
						t.Errorf("the attestation: %v", err)
					}
					readBlob(t, m, a.Blobs[0])
					got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest)
					want := "[]"
					if signed {
						want = "[sig]"
						if _, err := m.Manifest(t.Context(), mirrortest.App, signature.Digest.String()); err != nil {
							t.Errorf("the signature: %v", err)
						}
						readBlob(t, m, warm.Descriptor{Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2})
					}
					if err != nil || !got.Stale || got.Partial || fmt.Sprint(mirrortest.Types(got)) != want {
						t.Errorf("referrers: %v, want %s, stale %v, %v", mirrortest.Types(got), want, got.Stale, err)
					}
					for _, subject := range []warm.Descriptor{a.Index, a.Platforms[0]} {
						if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
							t.Error(err)
						}
					}
					// The other platform was not pulled.
					if _, err := m.Manifest(t.Context(), mirrortest.App, a.Of[1].Digest.String()); err == nil {
						t.Error("more was fetched than was pulled")
					}
				})
			})
		}
	}
}

func readBlob(t *testing.T, m mirrortest.Mirror, d warm.Descriptor) {
	t.Helper()
	b, err := m.Blob(t.Context(), mirrortest.App, d.Digest, pull.Want{})
	if err != nil {
		t.Errorf("blob %s: %v", d.Digest, err)
		return
	}
	b.Close()
}

// The index under a referrers tag and its signatures are not images that could
// have more.
func TestNothingIsPrefetchedForSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		signature := o.Attach(a.Of[0], "sig")
		o.List(a.Of[0].Digest, signature)
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(time.Hour)
		list := mirrortest.IndexAlgorithm.FromBytes(o.Content["app "+referrers.TagOf(a.Of[0].Digest)].Body)
		asked := o.Transcript()
		for _, d := range []warm.Digest{signature.Digest, list} {
			if mirrortest.Count(asked, "HEAD manifest app "+referrers.TagOf(d)) > 0 {
				t.Errorf("it was asked what refers to %s", d)
			}
		}
	})
}

// The cost: for an upstream with the API, one request per subject; for one
// without, a HEAD for a tag each, which registries do not count (W42), once it
// is known to have no API.
func TestTheCostOfPrefetching(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = api
				a := o.Attest("1")
				m := mirrortest.New(t, o, nil)
				end := m.Prefetch(t)
				m.PullPlatform(t, a, "1", 0)
				o.Transcript()
				time.Sleep(10 * warm.SettleDelay)
				asked := o.Transcript()
				want := []string{"GET manifest app " + mirrortest.Short(a.Of[0].Digest.String())}
				for _, b := range m.BlobsOf(t, a.Of[0].Digest) {
					want = append(want, "GET blob app "+mirrortest.Short(b.String()))
				}
				subjects := []warm.Descriptor{a.Of[0], a.Platforms[0], a.Index}
				for i, s := range subjects {
					want = append(want, "HEAD manifest app "+referrers.TagOf(s.Digest))
					if api || i == 0 {
						want = append(want, "GET referrers app ")
					}
				}
				for i := range asked {
					if strings.HasPrefix(asked[i], "GET referrers app ") {
						asked[i] = "GET referrers app "
					}
				}
				slices.Sort(asked)
				slices.Sort(want)
				if !slices.Equal(asked, want) {
					t.Errorf("it was asked\n\t%s\nwant\n\t%s", strings.Join(asked, "\n\t"), strings.Join(want, "\n\t"))
				}
				// Only once: not again later, after a pull, or after a restart.
				m.PullPlatform(t, a, "1", 0)
				o.Transcript()
				end()
				m.Prefetch(t)
				time.Sleep(48 * time.Hour)
				mirrortest.WantTranscript(t, o)
			})
		})
	}
}

func TestNothingIsPrefetchedForArtifacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 50)) // in no index
		artifact := o.Attach(warm.Descriptor{}, "chart")
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		for _, ref := range []string{"1", artifact.Digest.String()} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, ref); err != nil {
				t.Fatal(err)
			}
		}
		o.Attest("2")
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2"); err != nil { // no platform of it
			t.Fatal(err)
		}
		o.Transcript()
		time.Sleep(time.Hour)
		mirrortest.WantTranscript(t, o)
		if left := m.Missing(t); len(left) > 0 {
			t.Errorf("still missing: %v", left)
		}
	})
}

func TestNothingIsPrefetchedWhileTheRateLimitRunsLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		var ample atomic.Bool
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Upstreams[0].Quota = func() float64 {
				if ample.Load() {
					return 0.5
				}
				return 0.1
			}
		})
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		o.Transcript()
		time.Sleep(time.Hour)
		mirrortest.WantTranscript(t, o)
		if len(m.Missing(t)) == 0 {
			t.Error("it is not said that there is more to learn")
		}
		ample.Store(true)
		time.Sleep(warm.QuotaBackoff + 5*warm.SettleDelay)
		if left := m.Missing(t); len(left) > 0 {
			t.Errorf("not prefetched: %v", left)
		}
	})
}

// An upstream that fails is not asked for everything again and again, and what
// it failed to deliver is prefetched when it recovers.
func TestPrefetchingBacksOffWhileTheUpstreamFails(t *testing.T) {
	for name, fault := range map[string]error{
		"unavailable": upstream.ErrUnavailable,
		"limited":     &upstream.RateLimitedError{RetryAfter: 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				a := o.Attest("1")
				m := mirrortest.New(t, o, nil)
				m.PullPlatform(t, a, "1", 0)
				m.PullPlatform(t, a, "1", 1)
				o.Transcript()
				o.Fail("*", fault)
				m.Prefetch(t)
				time.Sleep(15 * time.Minute)
				first := o.Transcript()
				// Four passes, with at most three requests each.
				if most := 4 * warm.MaxFailures * 3; len(first) == 0 || len(first) > most || name == "limited" && len(first) != 1 {
					t.Errorf("it was asked %d times in a quarter of an hour, want at most %d", len(first), most)
				}
				o.ClearFailures()
				time.Sleep(warm.MaxBackoff + 10*warm.SettleDelay)
				if left := m.Missing(t); len(left) > 0 {
					t.Errorf("not prefetched: %v", left)
				}
			})
		})
	}
}

// Referrers that are listed by the tag alone are served, but may not be all of
// them.
func TestAPartialReferrersListIsStillMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		o.List(a.Of[0].Digest, o.Attach(a.Of[0], "sig"))
		ask := "GET referrers app " + mirrortest.Short(a.Of[0].Digest.String())
		o.Fail(ask, slices.Repeat([]error{upstream.ErrInvalidResponse}, 1000)...)
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(time.Hour)
		if left := m.Missing(t); fmt.Sprint(left) != "[referrers of "+a.Of[0].Digest.String()+"]" {
			t.Errorf("still missing: %v", left)
		}
		if n := mirrortest.Count(o.Transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in an hour it was asked %d times", n)
		}
	})
}

// Content that an upstream does not have, or denies access to, is not requested
// again and again, and does not prevent the rest from being prefetched.
func TestRefusedContentIsNotRequestedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		o.Remove("app", a.Of[0].Digest.String())
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(10 * warm.SettleDelay)
		if left := m.Missing(t); fmt.Sprint(left) != "[manifest "+a.Of[0].Digest.String()+"]" {
			t.Errorf("still missing: %v", left)
		}
		time.Sleep(2 * m.Rules.NegativeTTL)
		o.Transcript()
		m.PullPlatform(t, a, "1", 1) // the repository is looked at again
		time.Sleep(time.Hour)
		if asked := o.Transcript(); mirrortest.Count(asked, "GET manifest app "+mirrortest.Short(a.Of[0].Digest.String())) > 0 {
			t.Errorf("it was asked %v", asked)
		}
	})
}

func TestLargeBlobsAreNotPrefetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		large := o.Put("app", "application/octet-stream", make([]byte, 1<<20+1))
		small := o.Put("app", "application/octet-stream", make([]byte, 1000))
		raw, err := json.Marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "weights", Subject: &a.Index,
			Config: ocispec.DescriptorEmptyJSON, Layers: []warm.Descriptor{small, large},
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Put("app", "application/vnd.oci.empty.v1+json", []byte("{}"))
		o.Put("app", ocispec.MediaTypeImageManifest, raw)
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(10 * warm.SettleDelay)
		for d, want := range map[warm.Digest]bool{small.Digest: true, large.Digest: false} {
			if m.Store.Has(t.Context(), d) != want {
				t.Errorf("%s is cached: %v", d, !want)
			}
		}
	})
}

// A platform may be pulled long after its index, and an index after a platform
// that it shares with another index.
func TestPrefetchingStartsWhicheverManifestArrivesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		m.PullPlatform(t, a, "1", 1)
		time.Sleep(5 * warm.SettleDelay)
		if !m.Store.Has(t.Context(), a.Of[1].Digest) {
			t.Error("the attestation of a platform that came later was not prefetched")
		}
		b := o.Attest("2") // of the same platforms
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * warm.SettleDelay)
		if !m.Store.Has(t.Context(), b.Of[1].Digest) {
			t.Error("the attestation of an index that came later was not prefetched")
		}
	})
}

func TestAnImageIsIncompleteWhileThereIsMoreToPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "", mirrortest.Bytes(1, 50))
		index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []warm.Descriptor{image}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		subject := o.Put("app", mirrortest.IndexType, raw, "1")
		m := mirrortest.New(t, o, nil)
		m.PullPlatform(t, mirrortest.Attested{Index: subject, Platforms: []warm.Descriptor{image}}, "1", 0)
		for _, b := range m.BlobsOf(t, image.Digest) {
			if err := m.FetchBlob(t.Context(), mirrortest.App, warm.Descriptor{Digest: b, Size: -1}); err != nil {
				t.Fatal(err)
			}
		}
		whole := func() bool {
			list, err := m.Inventory(t.Context())
			if err != nil || len(list.Images) != 1 {
				t.Fatal(list, err)
			}
			return list.Images[0].Whole
		}
		if whole() {
			t.Error("it is whole before it is known what refers to it")
		}
		m.Prefetch(t)
		time.Sleep(5 * warm.SettleDelay)
		if !whole() {
			t.Error("it is not whole once that is known")
		}
	})
}

// Attestations that are read are not platforms that are pulled.
func TestOnlyPulledPlatformsArePrefetchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		for _, ref := range []string{"1", a.Of[0].Digest.String()} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, ref); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * warm.SettleDelay)
		if asked := o.Transcript(); mirrortest.Count(asked, "HEAD manifest app "+referrers.TagOf(a.Index.Digest)) > 0 {
			t.Errorf("it was asked %v", asked)
		}
		if _, ok := m.Ledger.Referrers(mirrortest.App, a.Of[0].Digest); !ok {
			t.Error("what refers to the attestation that is cached was not asked for")
		}
	})
}

// Signatures are small, but other referrers may be large, or stored elsewhere.
func TestReferrersArePrefetchedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		image, _ := o.Image("app", "", mirrortest.Bytes(1, 50))
		index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []warm.Descriptor{image}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		subject := o.Put("app", mirrortest.IndexType, raw, "1")
		o.Put("app", ocispec.MediaTypeEmptyJSON, []byte("{}"))
		elsewhere := warm.Descriptor{MediaType: "application/octet-stream", Digest: mirrortest.IndexAlgorithm.FromString("elsewhere"), Size: 9, URLs: []string{"https://example.com/"}}
		var blobs []warm.Descriptor
		for i := range 2 * 64 {
			blob := o.Put("app", "application/octet-stream", fmt.Appendf(nil, "signature %d", i))
			raw, err := json.Marshal(ocispec.Manifest{
				MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "sig", Subject: &subject,
				Config: ocispec.DescriptorEmptyJSON, Layers: []warm.Descriptor{blob, elsewhere},
			})
			if err != nil {
				t.Fatal(err)
			}
			o.Put("app", ocispec.MediaTypeImageManifest, raw)
			blobs = append(blobs, blob)
		}
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, mirrortest.Attested{Index: subject, Platforms: []warm.Descriptor{image}}, "1", 0)
		time.Sleep(10 * warm.SettleDelay)
		kept := 0
		for _, b := range blobs {
			if m.Store.Has(t.Context(), b.Digest) {
				kept++
			}
		}
		if kept != 64 {
			t.Errorf("blobs of %d referrers are cached, want of %d", kept, 64)
		}
		if asked := o.Transcript(); mirrortest.Count(asked, "GET blob app "+mirrortest.Short(elsewhere.Digest.String())) > 0 {
			t.Error("a blob that lies elsewhere was asked for (W9)")
		}
		if left := m.Missing(t); len(left) > 0 {
			t.Errorf("still missing: %v", left)
		}
	})
}

func TestPrefetchingContinuesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		end := m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		end()
		again := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records, opts.Memory = m.Blobs, m.Records, m.Memory
		})
		again.Prefetch(t)
		time.Sleep(10 * warm.SettleDelay)
		if left := again.Missing(t); len(left) > 0 {
			t.Errorf("not prefetched: %v", left)
		}
	})
}

// A cold cache with one platform of an image and no upstream: an offline mirror
// sends no requests.
func TestAnOfflineMirrorPrefetchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		m.PullPlatform(t, a, "1", 0)
		o.Transcript()
		off := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records, opts.Memory, opts.Rules.Offline = m.Blobs, m.Records, m.Memory, true
		})
		off.Prefetch(t)
		time.Sleep(time.Hour)
		mirrortest.WantTranscript(t, o)
		if _, err := off.Manifest(t.Context(), mirrortest.App, a.Of[0].Digest.String()); !errors.Is(err, pull.ErrOffline) {
			t.Error(err)
		}
	})
}
