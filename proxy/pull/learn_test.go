package pull

import (
	"context"
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

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// attested is an index of two platforms with what BuildKit attests of them.
type attested struct {
	index     Descriptor
	platforms []Descriptor
	of        []Descriptor // attestations, by platform
	blobs     []Descriptor // of attestations, by platform
}

// attested puts an index with attestations into the origin, under a tag.
func (o *origin) attested(tag string) attested {
	var a attested
	index := ocispec.Index{MediaType: indexType}
	index.SchemaVersion = 2
	for _, arch := range []string{"amd64", "arm64"} {
		image, _ := o.image("app", "", bytesOf(byte(len(a.platforms)+7), 50))
		image.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		a.platforms = append(a.platforms, image)
		index.Manifests = append(index.Manifests, image)
	}
	for i, image := range a.platforms {
		config := o.put("app", ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"unknown","of":%d,"tag":%q}`, i, tag))
		statement := o.put("app", "application/vnd.in-toto+json", fmt.Appendf(nil, `{"_type":"statement","of":%d,"tag":%q}`, i, tag))
		raw, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []Descriptor{statement}})
		if err != nil {
			panic(err)
		}
		entry := o.put("app", ocispec.MediaTypeImageManifest, raw)
		a.of = append(a.of, entry)
		a.blobs = append(a.blobs, statement)
		entry.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
		index.Manifests = append(index.Manifests, entry)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		panic(err)
	}
	a.index = o.put("app", indexType, raw, tag)
	return a
}

// pull pulls one platform by a tag as containerd does: it asks for no
// referrers, and for no attestation.
func (m mirror) pull(t *testing.T, a attested, tag string, platform int) {
	t.Helper()
	for _, ref := range []string{tag, a.index.Digest.String(), a.platforms[platform].Digest.String()} {
		if _, err := m.Manifest(t.Context(), hubApp, ref); err != nil {
			t.Fatal(err)
		}
	}
}

// learning has a mirror learn until the test ends, or the function that it
// returns is called.
func (m mirror) learning(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		m.Learn(ctx)
	}()
	end = func() {
		cancel()
		<-over
	}
	t.Cleanup(end)
	return end
}

func unlearntOf(t *testing.T, m mirror) []string {
	t.Helper()
	list, err := m.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, k := range list.Images {
		all = append(all, k.Unlearnt...)
	}
	return all
}

// F21 to F23: Docker asks for what refers to the attestation at every pull, and
// fails where nobody answers; containerd, which pulled first, asks for nothing.
func TestAnImageThatContainerdPulledCanBePulledByDockerWithTheUpstreamGone(t *testing.T) {
	for _, api := range []bool{false, true} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprintf("API %v, signed %v", api, signed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOrigin()
					o.api = api
					a := o.attested("1")
					var signature Descriptor
					if signed {
						signature = o.attach(a.of[0], "sig")
						if !api {
							o.list(a.of[0].Digest, signature)
						}
					}
					m := newMirror(t, o, nil)
					m.learning(t)
					m.pull(t, a, "1", 0)
					if len(unlearntOf(t, m)) == 0 {
						t.Error("it is said that there is nothing to learn before anything was")
					}
					time.Sleep(5 * settles)
					if left := unlearntOf(t, m); len(left) > 0 {
						t.Errorf("not learnt: %v", left)
					}
					o.fail("*", upstream.ErrRefused)
					time.Sleep(time.Hour)
					// Another node's Docker: what it asks for beside the image.
					if _, err := m.Manifest(t.Context(), hubApp, a.of[0].Digest.String()); err != nil {
						t.Errorf("the attestation: %v", err)
					}
					readBlob(t, m, a.blobs[0])
					got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest)
					want := "[]"
					if signed {
						want = "[sig]"
						if _, err := m.Manifest(t.Context(), hubApp, signature.Digest.String()); err != nil {
							t.Errorf("the signature: %v", err)
						}
						readBlob(t, m, Descriptor{Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2})
					}
					if err != nil || !got.Stale || got.Partial || fmt.Sprint(types(got)) != want {
						t.Errorf("referrers: %v, want %s, stale %v, %v", types(got), want, got.Stale, err)
					}
					for _, subject := range []Descriptor{a.index, a.platforms[0]} {
						if _, err := m.Referrers(t.Context(), hubApp, subject.Digest); err != nil {
							t.Error(err)
						}
					}
					// The other platform was not pulled.
					if _, err := m.Manifest(t.Context(), hubApp, a.of[1].Digest.String()); err == nil {
						t.Error("more was fetched than was pulled")
					}
				})
			})
		}
	}
}

func readBlob(t *testing.T, m mirror, d Descriptor) {
	t.Helper()
	b, err := m.Blob(t.Context(), hubApp, d.Digest)
	if err != nil {
		t.Errorf("blob %s: %v", d.Digest, err)
		return
	}
	b.Close()
}

// A fallback tag's index and its signatures are no image, of which there would be
// more to know.
func TestNothingIsLearntOfSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		signature := o.attach(a.of[0], "sig")
		o.list(a.of[0].Digest, signature)
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, a, "1", 0)
		time.Sleep(time.Hour)
		list := indexAlgorithm.FromBytes(o.content["app "+referrers.TagOf(a.of[0].Digest)].body)
		asked := o.transcript()
		for _, d := range []Digest{signature.Digest, list} {
			if count(asked, "HEAD manifest app "+referrers.TagOf(d)) > 0 {
				t.Errorf("it was asked what refers to %s", d)
			}
		}
	})
}

// What it costs: of a 1.1 upstream a question for each subject; of a 1.0 one a
// HEAD of a tag each, which nobody counts (W42), once it is known to have no
// API.
func TestWhatLearningCosts(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				o.api = api
				a := o.attested("1")
				m := newMirror(t, o, nil)
				end := m.learning(t)
				m.pull(t, a, "1", 0)
				o.transcript()
				time.Sleep(10 * settles)
				asked := o.transcript()
				want := []string{"GET manifest app " + short(a.of[0].Digest.String())}
				for _, b := range m.blobsOf(t, a.of[0].Digest) {
					want = append(want, "GET blob app "+short(b.String()))
				}
				subjects := []Descriptor{a.of[0], a.platforms[0], a.index}
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
				// Once: neither with time nor with a pull nor with a restart again.
				m.pull(t, a, "1", 0)
				o.transcript()
				end()
				m.learning(t)
				time.Sleep(48 * time.Hour)
				wantTranscript(t, o)
			})
		})
	}
}

func (m mirror) blobsOf(t *testing.T, d Digest) []Digest {
	t.Helper()
	rec, ok := m.meta.Manifest(hubApp, d)
	if !ok {
		t.Fatalf("%s is not kept", d)
	}
	return digestsOf(rec.Blobs)
}

func TestWhatIsNoImageIsNotAskedAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.image("app", "1", bytesOf(1, 50)) // in no index
		artifact := o.attach(Descriptor{}, "chart")
		m := newMirror(t, o, nil)
		m.learning(t)
		for _, ref := range []string{"1", artifact.Digest.String()} {
			if _, err := m.Manifest(t.Context(), hubApp, ref); err != nil {
				t.Fatal(err)
			}
		}
		o.attested("2")
		if _, err := m.Manifest(t.Context(), hubApp, "2"); err != nil { // no platform of it
			t.Fatal(err)
		}
		o.transcript()
		time.Sleep(time.Hour)
		wantTranscript(t, o)
		if left := unlearntOf(t, m); len(left) > 0 {
			t.Errorf("to learn: %v", left)
		}
	})
}

func TestNothingIsLearntWhileALimitRunsLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		var ample atomic.Bool
		m := newMirror(t, o, func(opts *Options) {
			opts.Upstreams[0].Quota = func() float64 {
				if ample.Load() {
					return 0.5
				}
				return 0.1
			}
		})
		m.learning(t)
		m.pull(t, a, "1", 0)
		o.transcript()
		time.Sleep(time.Hour)
		wantTranscript(t, o)
		if len(unlearntOf(t, m)) == 0 {
			t.Error("it is not said that there is more to learn")
		}
		ample.Store(true)
		time.Sleep(quotaRest + 5*settles)
		if left := unlearntOf(t, m); len(left) > 0 {
			t.Errorf("not learnt: %v", left)
		}
	})
}

// An upstream that fails is not asked for everything, nor again and again, and
// what it failed to tell is learnt once it can.
func TestLearningRestsWhileTheUpstreamFails(t *testing.T) {
	for name, fault := range map[string]error{
		"unavailable": upstream.ErrUnavailable,
		"limited":     &upstream.RateLimitedError{RetryAfter: 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				a := o.attested("1")
				m := newMirror(t, o, nil)
				m.pull(t, a, "1", 0)
				m.pull(t, a, "1", 1)
				o.transcript()
				o.fail("*", fault)
				m.learning(t)
				time.Sleep(15 * time.Minute)
				first := o.transcript()
				// Four passes, and at most three requests for a lesson.
				if most := 4 * maxFailures * 3; len(first) == 0 || len(first) > most || name == "limited" && len(first) != 1 {
					t.Errorf("it was asked %d times in a quarter of an hour, want at most %d", len(first), most)
				}
				o.mu.Lock()
				o.failures = map[string][]error{}
				o.mu.Unlock()
				time.Sleep(longestLesson + 10*settles)
				if left := unlearntOf(t, m); len(left) > 0 {
					t.Errorf("not learnt: %v", left)
				}
			})
		})
	}
}

// What is found by the tag alone is told, and it is not all that there is to know.
func TestAPartOfTheReferrersIsNotLearntYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		a := o.attested("1")
		o.list(a.of[0].Digest, o.attach(a.of[0], "sig"))
		ask := "GET referrers app " + short(a.of[0].Digest.String())
		o.fail(ask, slices.Repeat([]error{upstream.ErrBadAnswer}, 1000)...)
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, a, "1", 0)
		time.Sleep(time.Hour)
		if left := unlearntOf(t, m); fmt.Sprint(left) != "[referrers of "+a.of[0].Digest.String()+"]" {
			t.Errorf("to learn: %v", left)
		}
		if n := count(o.transcript(), ask); n < 2 || n > 10 {
			t.Errorf("in an hour it was asked %d times", n)
		}
	})
}

// What an upstream says that it does not have, or does not give away, is not
// asked for again and again, and does not keep the rest from being learnt.
func TestWhatIsRefusedIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		o.remove("app", a.of[0].Digest.String())
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, a, "1", 0)
		time.Sleep(10 * settles)
		if left := unlearntOf(t, m); fmt.Sprint(left) != "[manifest "+a.of[0].Digest.String()+"]" {
			t.Errorf("to learn: %v", left)
		}
		time.Sleep(2 * m.opts.NegativeTTL)
		o.transcript()
		m.pull(t, a, "1", 1) // the repository is looked at again
		time.Sleep(time.Hour)
		if asked := o.transcript(); count(asked, "GET manifest app "+short(a.of[0].Digest.String())) > 0 {
			t.Errorf("it was asked %v", asked)
		}
	})
}

func TestBlobsThatAreLargeAreNotFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		a := o.attested("1")
		large := o.put("app", "application/octet-stream", make([]byte, maxAttached+1))
		small := o.put("app", "application/octet-stream", make([]byte, 1000))
		raw, err := json.Marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "weights", Subject: &a.index,
			Config: ocispec.DescriptorEmptyJSON, Layers: []Descriptor{small, large},
		})
		if err != nil {
			t.Fatal(err)
		}
		o.put("app", "application/vnd.oci.empty.v1+json", []byte("{}"))
		o.put("app", ocispec.MediaTypeImageManifest, raw)
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, a, "1", 0)
		time.Sleep(10 * settles)
		for d, want := range map[Digest]bool{small.Digest: true, large.Digest: false} {
			if m.has(t.Context(), d) != want {
				t.Errorf("%s is kept: %v", d, !want)
			}
		}
	})
}

// A platform may be pulled long after its index, and an index after the platform
// that it shares with another.
func TestItIsLearntAboutWhateverComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, nil)
		m.learning(t)
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		m.pull(t, a, "1", 1)
		time.Sleep(5 * settles)
		if !m.has(t.Context(), a.of[1].Digest) {
			t.Error("the attestation of a platform that came later was not learnt")
		}
		b := o.attested("2") // of the same platforms
		if _, err := m.Manifest(t.Context(), hubApp, "2"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * settles)
		if !m.has(t.Context(), b.of[1].Digest) {
			t.Error("the attestation of an index that came later was not learnt")
		}
	})
}

func TestAnImageIsNotWholeWhileThereIsMoreToLearn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		image, _ := o.image("app", "", bytesOf(1, 50))
		index := ocispec.Index{MediaType: indexType, Manifests: []Descriptor{image}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		subject := o.put("app", indexType, raw, "1")
		m := newMirror(t, o, nil)
		m.pull(t, attested{index: subject, platforms: []Descriptor{image}}, "1", 0)
		for _, b := range m.blobsOf(t, image.Digest) {
			u, _ := m.admit(hubApp)
			if err := m.bring(t.Context(), u, hubApp, Descriptor{Digest: b, Size: -1}); err != nil {
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
		m.learning(t)
		time.Sleep(5 * settles)
		if !whole() {
			t.Error("it is not whole once that is known")
		}
	})
}

// Attestations that somebody reads are no platform that somebody pulls.
func TestOnlyOfWhatIsPulledIsMoreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, nil)
		m.learning(t)
		for _, ref := range []string{"1", a.of[0].Digest.String()} {
			if _, err := m.Manifest(t.Context(), hubApp, ref); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * settles)
		if asked := o.transcript(); count(asked, "HEAD manifest app "+referrers.TagOf(a.index.Digest)) > 0 {
			t.Errorf("it was asked %v", asked)
		}
		if _, ok := m.meta.Referrers(hubApp, a.of[0].Digest); !ok {
			t.Error("what refers to the attestation that is kept was not asked for")
		}
	})
}

// A signature is small, and what hangs on an image may be many and elsewhere.
func TestWhatRefersIsFetchedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		image, _ := o.image("app", "", bytesOf(1, 50))
		index := ocispec.Index{MediaType: indexType, Manifests: []Descriptor{image}}
		index.SchemaVersion = 2
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		subject := o.put("app", indexType, raw, "1")
		o.put("app", ocispec.MediaTypeEmptyJSON, []byte("{}"))
		elsewhere := Descriptor{MediaType: "application/octet-stream", Digest: indexAlgorithm.FromString("elsewhere"), Size: 9, URLs: []string{"https://example.com/"}}
		var blobs []Descriptor
		for i := range 2 * maxLearnt {
			blob := o.put("app", "application/octet-stream", fmt.Appendf(nil, "signature %d", i))
			raw, err := json.Marshal(ocispec.Manifest{
				MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "sig", Subject: &subject,
				Config: ocispec.DescriptorEmptyJSON, Layers: []Descriptor{blob, elsewhere},
			})
			if err != nil {
				t.Fatal(err)
			}
			o.put("app", ocispec.MediaTypeImageManifest, raw)
			blobs = append(blobs, blob)
		}
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, attested{index: subject, platforms: []Descriptor{image}}, "1", 0)
		time.Sleep(10 * settles)
		kept := 0
		for _, b := range blobs {
			if m.has(t.Context(), b.Digest) {
				kept++
			}
		}
		if kept != maxLearnt {
			t.Errorf("blobs of %d referrers are kept, want of %d", kept, maxLearnt)
		}
		if asked := o.transcript(); count(asked, "GET blob app "+short(elsewhere.Digest.String())) > 0 {
			t.Error("a blob that lies elsewhere was asked for (W9)")
		}
		if left := unlearntOf(t, m); len(left) > 0 {
			t.Errorf("to learn: %v", left)
		}
	})
}

func TestLearningGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, nil)
		end := m.learning(t)
		m.pull(t, a, "1", 0)
		end()
		again := newMirror(t, o, func(opts *Options) {
			opts.Blobs, opts.Records, opts.Memory = m.opts.Blobs, m.opts.Records, m.opts.Memory
		})
		again.learning(t)
		time.Sleep(10 * settles)
		if left := unlearntOf(t, again); len(left) > 0 {
			t.Errorf("not learnt: %v", left)
		}
	})
}

// A cold cache with one platform of an image, and nobody to ask: an offline
// mirror asks nobody.
func TestAnOfflineMirrorLearnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, nil)
		m.pull(t, a, "1", 0)
		o.transcript()
		off := newMirror(t, o, func(opts *Options) {
			opts.Blobs, opts.Records, opts.Memory, opts.Offline = m.opts.Blobs, m.opts.Records, m.opts.Memory, true
		})
		off.learning(t)
		time.Sleep(time.Hour)
		wantTranscript(t, o)
		if _, err := off.Manifest(t.Context(), hubApp, a.of[0].Digest.String()); !errors.Is(err, ErrOffline) {
			t.Error(err)
		}
	})
}
