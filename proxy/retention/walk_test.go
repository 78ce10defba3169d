package retention_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

func selection(t *testing.T, ref string, platforms ...string) retention.Selection {
	t.Helper()
	wanted, err := retention.ParsePlatforms(platforms)
	if err != nil {
		t.Fatal(err)
	}
	return retention.Selection{Image: retention.Reference{Repository: mirrortest.App, Ref: ref}, Platforms: wanted, Referrers: true}
}

// walked are the parts of a selection, each as "state kind digest in digest".
func walked(t *testing.T, m mirrortest.Mirror, s retention.Selection) (all []string) {
	t.Helper()
	err := m.Mirror.Retention.Walk(t.Context(), s, func(p retention.Part) bool {
		all = append(all, fmt.Sprintf("%s %s %.6s in %.6s", p.State, p.Kind, short(p.Of.Digest), short(p.In)))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func short(d retention.Digest) string {
	if d == "" {
		return "-"
	}
	return d.Encoded()
}

func part(state retention.PartState, kind retention.PartKind, d, in retention.Descriptor) string {
	return fmt.Sprintf("%s %s %.6s in %.6s", state, kind, d.Digest.Encoded(), short(in.Digest))
}

func wantParts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("met\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// putIndex puts an index of images whose layers are those bytes, by platform.
func putIndex(o *mirrortest.Origin, tag string, entries ...retention.Descriptor) retention.Descriptor {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: entries}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		panic(err)
	}
	return o.Put("app", ocispec.MediaTypeImageIndex, raw, tag)
}

func entry(of retention.Descriptor, platform string) retention.Descriptor {
	parts := append(strings.Split(platform, "/"), "")
	of.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	return of
}

func blobsOf(o *mirrortest.Origin, of retention.Descriptor) (config, layer retention.Descriptor) {
	c, _ := o.Get("app", of.Digest.String())
	var m ocispec.Manifest
	if json.Unmarshal(c.Body, &m) != nil {
		panic("no manifest")
	}
	return m.Config, m.Layers[0]
}

const (
	kept, missing, leftOut = retention.PartKept, retention.PartMissing, retention.PartLeftOut
	isManifest, isBlob     = retention.PartManifest, retention.PartBlob
	areReferrers           = retention.PartReferrers
)

func TestAWalkGoesThroughTheImageThenItsChildrenThenWhatRefersToThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		image, _ := o.Image("app", "", mirrortest.Bytes(1, 1000))
		index := putIndex(o, "1", entry(image, "linux/amd64"))
		signature := o.Attach(image, "signature")
		m := mirrortest.New(t, o, nil)
		wantParts(t, walked(t, m, selection(t, "1")), "missing manifest - in -")
		if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait() // it is not fetched again below
		config, layer := blobsOf(o, image)
		empty, _ := blobsOf(o, signature)
		all := []string{
			part(kept, isManifest, index, retention.Descriptor{}),
			part(kept, isManifest, image, index), part(kept, isBlob, config, image), part(kept, isBlob, layer, image),
			part(kept, areReferrers, index, index), part(kept, areReferrers, image, image),
			part(kept, isManifest, signature, image), part(kept, isBlob, empty, signature), // which names it twice
			part(kept, areReferrers, signature, signature),
		}
		wantParts(t, walked(t, m, selection(t, "1")), all...)

		alone := selection(t, "1")
		alone.Referrers = false
		wantParts(t, walked(t, m, alone), all[:4]...)

		m.Store.Delete(t.Context(), layer.Digest, layer.Size)
		all[3] = part(missing, isBlob, layer, image)
		wantParts(t, walked(t, m, selection(t, "1")), all...)
		if m.Mirror.Retention.HasAllOf(t.Context(), alone, false) {
			t.Error("it is complete without its layer")
		}
		if d, _ := m.Mirror.Retention.DigestOf(retention.Selection{Image: alone.Image, At: image.Digest}); d != image.Digest {
			t.Errorf("a selection that says where the tag is to be has %s", d)
		}
		visited := 0
		if err := m.Mirror.Retention.Walk(t.Context(), alone, func(retention.Part) bool { visited++; return visited < 3 }); err != nil || visited != 3 {
			t.Errorf("a walk that is ended at the third part: %d, %v", visited, err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := m.Mirror.Retention.Walk(ended, alone, func(retention.Part) bool { return true }); !errors.Is(err, context.Canceled) {
			t.Errorf("a walk whose context is over: %v", err)
		}
	})
}

// Its manifest is half a kilobyte, and without it some readers fail whole.
func TestAPlatformThatIsLeftOutKeepsItsManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		config, _ := blobsOf(o, a.Of[1])
		m := mirrortest.New(t, o, nil)
		if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		m.Store.Delete(t.Context(), a.Blobs[1].Digest, a.Blobs[1].Size)
		c0, l0 := blobsOf(o, a.Platforms[0])
		_, l1 := blobsOf(o, a.Platforms[1]) // the same config
		ac0, _ := blobsOf(o, a.Of[0])
		s := selection(t, "1", "linux/x86_64")
		wantParts(t, walked(t, m, s),
			part(kept, isManifest, a.Index, retention.Descriptor{}),
			part(kept, isManifest, a.Platforms[0], a.Index), part(kept, isManifest, a.Platforms[1], a.Index),
			part(kept, isManifest, a.Of[0], a.Index), part(kept, isManifest, a.Of[1], a.Index),
			part(kept, isBlob, c0, a.Platforms[0]), part(kept, isBlob, l0, a.Platforms[0]),
			part(kept, isBlob, ac0, a.Of[0]), part(kept, isBlob, a.Blobs[0], a.Of[0]),
			part(kept, areReferrers, a.Index, a.Index), part(kept, areReferrers, a.Platforms[0], a.Platforms[0]), part(kept, areReferrers, a.Of[0], a.Of[0]),
			part(leftOut, isBlob, l1, a.Platforms[1]),
			part(leftOut, isBlob, config, a.Of[1]), part(leftOut, isBlob, a.Blobs[1], a.Of[1]),
		)
		if !m.Mirror.Retention.HasAllOf(t.Context(), s, true) {
			t.Error("it is not complete without what is left out")
		}
		if m.Mirror.Retention.HasAllOf(t.Context(), selection(t, "1", "all"), true) {
			t.Error("all of it is complete without a blob")
		}
		m.Store.Delete(t.Context(), a.Platforms[1].Digest, a.Platforms[1].Size)
		if m.Mirror.Retention.HasAllOf(t.Context(), s, true) {
			t.Error("it is complete without the manifest of a platform that is left out")
		}
	})
}

func TestOfAnIndexTheBestOfEachPlatformIsWanted(t *testing.T) {
	for name, c := range map[string]struct{ has, wanted, chosen string }{
		"names are normalised":                       {"linux/amd64 linux/arm64/v8", "linux/aarch64", "linux/arm64/v8"},
		"the variant that is asked for":              {"linux/arm/v6 linux/arm/v7", "linux/arm/v7", "linux/arm/v7"},
		"an older variant, if there is no other":     {"linux/arm/v6 linux/amd64", "linux/arm/v7", "linux/arm/v6"},
		"all that are as good":                       {"windows/amd64 windows/amd64 linux/amd64", "windows/amd64", "windows/amd64 windows/amd64"},
		"several":                                    {"linux/amd64 linux/arm64 linux/s390x", "linux/amd64 linux/s390x", "linux/amd64 linux/s390x"},
		"one of several is there":                    {"linux/amd64", "linux/amd64 linux/s390x", "linux/amd64"},
		"what is for no platform is wanted as well":  {"linux/amd64 linux/arm64 unknown/unknown", "linux/amd64", "linux/amd64 unknown/unknown"},
		"all, whatever else is asked for beside all": {"linux/amd64 linux/arm64", "linux/amd64 all", "linux/amd64 linux/arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				var entries []retention.Descriptor
				platforms := map[retention.Digest]string{}
				for i, p := range strings.Fields(c.has) {
					image, layer := o.Image("app", "", mirrortest.Bytes(byte(i+1), 1000))
					entries = append(entries, entry(image, p))
					platforms[layer.Digest] = p
				}
				putIndex(o, "1", entries...)
				m := mirrortest.New(t, o, nil)
				if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}); err != nil {
					t.Fatal(err)
				}
				var chosen []string
				if err := m.Mirror.Retention.Walk(t.Context(), selection(t, "1", strings.Fields(c.wanted)...), func(p retention.Part) bool {
					if of := platforms[p.Of.Digest]; of != "" && p.State == kept {
						chosen = append(chosen, of)
					}
					return true
				}); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(chosen, " "); got != c.chosen {
					t.Errorf("%q", got)
				}
			})
		})
	}
}

func TestAnImageWithoutThePlatformSaysWhichItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a, _ := o.Image("app", "single", mirrortest.Bytes(1, 1000))
		b, _ := o.Image("app", "", mirrortest.Bytes(2, 1000))
		putIndex(o, "1", entry(b, "linux/arm64/v8"), entry(a, "linux/amd64"))
		m := mirrortest.New(t, o, nil)
		for _, ref := range []string{"1", "single"} {
			if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: ref}); err != nil {
				t.Fatal(err)
			}
		}
		err := m.Mirror.Retention.Walk(t.Context(), selection(t, "1", "linux/s390x", "plan9/amd64"), func(retention.Part) bool { return true })
		var none *retention.NoPlatformError
		if !errors.As(err, &none) || !slices.Equal(none.Available, []string{"linux/amd64", "linux/arm64"}) || !slices.Equal(none.Wanted, []string{"linux/s390x", "plan9/amd64"}) {
			t.Errorf("%v", err)
		}
		none = &retention.NoPlatformError{Available: strings.Fields(strings.Repeat("plan9/cpu ", 20))}
		if text := none.Error(); !strings.HasSuffix(text, "plan9/cpu, and 4 more") {
			t.Error(text)
		}
		o.Attest("attested") // which are for no platform of their own
		if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "attested"}); err != nil {
			t.Fatal(err)
		}
		if err := m.Mirror.Retention.Walk(t.Context(), selection(t, "attested", "linux/s390x"), func(retention.Part) bool { return true }); !errors.As(err, &none) {
			t.Errorf("with attestations: %v", err)
		}
		if !m.Mirror.Retention.HasAllOf(t.Context(), selection(t, "single", "linux/s390x"), true) {
			t.Error("an image that is no index is wanted whatever the platforms are")
		}
	})
}

// Its record does not have all that it lists.
func TestOfAWideIndexThePlatformsAreChosenAmongAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var entries []retention.Descriptor
		for i := range 300 {
			image := o.Put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"n":%d}`, ocispec.MediaTypeImageManifest, i))
			entries = append(entries, entry(image, fmt.Sprint("linux/cpu", i)))
		}
		last, layer := o.Image("app", "", mirrortest.Bytes(1, 1000))
		putIndex(o, "1", append(entries, entry(last, "linux/arm64"))...)
		m := mirrortest.New(t, o, nil)
		if _, err := m.Pin(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "1"}); err != nil {
			t.Fatal(err)
		}
		for platform, state := range map[string]retention.PartState{"linux/arm64": kept, "linux/cpu299": leftOut} {
			manifests, found := 0, ""
			for _, p := range walked(t, m, selection(t, "1", platform)) {
				if strings.Contains(p, "manifest") {
					manifests++
				}
				if strings.Contains(p, layer.Digest.Encoded()[:6]) {
					found = p
				}
			}
			if want := part(state, isBlob, layer, last); manifests != 302 || found != want {
				t.Errorf("%s: %d manifests, %q instead of %q", platform, manifests, found, want)
			}
		}
	})
}

func TestPlatformsAreWrittenWithTheirArchitecture(t *testing.T) {
	for _, text := range []string{"linux", "amd64", "linux/", "", "linux/amd64/v1/x", "*"} {
		if _, err := retention.ParsePlatforms([]string{text}); err == nil || !strings.Contains(err.Error(), "write it as linux/amd64") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
