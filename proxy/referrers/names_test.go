package referrers

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	one   = digest.FromString("one").String()
	two   = digest.FromString("two").String()
	three = digest.FromString("three").String()
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, mediaType, raw string
		manifests, blobs     []string
		subject              string
	}{{
		name:      "an image names its config, its layers and its subject",
		mediaType: ociManifest,
		raw:       `{"config":{"mediaType":"c","digest":"` + one + `","size":2},"layers":[{"digest":"` + two + `","size":3},{"digest":"` + three + `","size":4}],` + subjectJSON + `}`,
		blobs:     []string{one, two, three},
		subject:   image,
	}, {
		name:      "a layer with urls is named, and can be told apart (W9)",
		mediaType: "application/vnd.docker.distribution.manifest.v2+json",
		raw:       `{"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + one + `","size":3,"urls":["https://example.com/layer"]}]}`,
		blobs:     []string{one + " https://example.com/layer"},
	}, {
		name:      "an index names its manifests",
		mediaType: ociIndex,
		raw:       `{"manifests":[{"mediaType":"` + ociManifest + `","digest":"` + one + `","size":3},{"mediaType":"` + ociIndex + `","digest":"` + two + `","size":3},{"digest":"` + three + `"}]}`,
		manifests: []string{one, two, three},
	}, {
		name:      "what BuildKit's cache lists in an index are blobs",
		mediaType: ociIndex,
		raw:       `{"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + one + `","size":3},{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"` + two + `","size":3}]}`,
		blobs:     []string{one, two},
	}, {
		name:      "old artifact manifests name their blobs (W10)",
		mediaType: "application/vnd.cncf.oras.artifact.manifest.v1+json",
		raw:       `{"blobs":[{"mediaType":"a/b","digest":"` + one + `","size":3}],` + subjectJSON + `}`,
		blobs:     []string{one},
		subject:   image,
	}, {
		name:      "schema1 names its layers, each once (W10)",
		mediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws",
		raw:       `{"fsLayers":[{"blobSum":"` + one + `"},{"blobSum":"` + two + `"},{"blobSum":"` + one + `"},{"blobSum":7},8]}`,
		blobs:     []string{one, two},
	}, {
		name:      "entries that nobody could ask for are left out",
		mediaType: ociManifest,
		raw:       `{"config":{"digest":"sha256:short"},"layers":[null,7,"x",{},{"digest":"` + one + `","digest":"` + two + `"},{"digest":"` + strings.ToUpper(two) + `"},{"digest":"` + three + `"}]}`,
		blobs:     []string{three},
	}, {
		name:      "an index that also has layers names only what an index names",
		mediaType: ociIndex,
		raw:       `{"manifests":[{"digest":"` + one + `"}],"layers":[{"digest":"` + two + `"}]}`,
		manifests: []string{one},
	}, {
		name:  "a manifest of no given type is read as what it says it is",
		raw:   `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[{"digest":"` + one + `"}],"layers":[{"digest":"` + two + `"}]}`,
		blobs: []string{one},
	}, {
		name:  "a manifest that says nothing is read by its shape",
		raw:   `{"layers":[{"digest":"` + two + `"}]}`,
		blobs: []string{two},
	}, {
		name:      "an unknown kind names its subject only",
		mediaType: "application/vnd.example+json",
		raw:       `{"layers":[{"digest":"` + two + `"}],` + subjectJSON + `}`,
		subject:   image,
	}, {
		name:      "an unknown kind need not be JSON",
		mediaType: "application/vnd.example",
		raw:       "\x00\x01",
	}} {
		t.Run(c.name, func(t *testing.T) {
			manifests, blobs, subject, err := Names(c.mediaType, Parse([]byte(c.raw)))
			if err != nil {
				t.Fatal(err)
			}
			if got := listed(manifests); !slices.Equal(got, c.manifests) {
				t.Errorf("manifests %v, want %v", got, c.manifests)
			}
			if got := listed(blobs); !slices.Equal(got, c.blobs) {
				t.Errorf("blobs %v, want %v", got, c.blobs)
			}
			got := ""
			if subject != nil {
				got = subject.Digest.String()
			}
			if got != c.subject {
				t.Errorf("subject %q, want %q", got, c.subject)
			}
		})
	}
}

func TestAMissingSizeIsNotZero(t *testing.T) {
	for _, size := range []string{``, `,"size":null`, `,"size":-5`, `,"size":"7"`, `,"size":1.5`, `,"size":1e400`} {
		_, blobs, _, err := Names(ociManifest, Parse([]byte(`{"layers":[{"digest":"`+one+`"`+size+`}]}`)))
		if err != nil || len(blobs) != 1 || blobs[0].Size != -1 {
			t.Errorf("%s: got %v, %v, want one blob of size -1", size, blobs, err)
		}
	}
	_, blobs, _, err := Names(mediaTypeDockerSchema1, Parse([]byte(`{"fsLayers":[{"blobSum":"`+one+`"}]}`)))
	if err != nil || len(blobs) != 1 || blobs[0].Size != -1 {
		t.Errorf("schema1: got %v, %v, want one blob of size -1", blobs, err)
	}
}

func listed(list []Descriptor) []string {
	var out []string
	for _, d := range list {
		out = append(out, strings.Join(append([]string{d.Digest.String()}, d.URLs...), " "))
	}
	return out
}

// EachName and Names read the same, whatever the kind.
func TestEachNameIsWhatNamesReturns(t *testing.T) {
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	for mediaType, raw := range map[string]string{
		ocispec.MediaTypeImageManifest: fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"%s","size":1},"layers":[{"digest":"%s","size":2,"urls":["https://x.test/"]},{"digest":"%s","size":2},{"digest":"%s","size":3},{"digest":"none"},7]}`, a, b, b, c),
		ocispec.MediaTypeImageIndex:    fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"%s","size":1},{"mediaType":"x/y","digest":"%s","size":2},{"digest":"%s","size":1}]}`, a, b, a),
		mediaTypeDockerSchema1:         fmt.Sprintf(`{"schemaVersion":1,"fsLayers":[{"blobSum":"%s"},{"blobSum":"%s"},{"blobSum":"%s"}]}`, a, b, a),
		mediaTypeOCIArtifactManifest:   fmt.Sprintf(`{"blobs":[{"digest":"%s","size":1}]}`, a),
	} {
		manifests, blobs, _, err := Names(mediaType, Parse([]byte(raw)))
		if err != nil || len(manifests)+len(blobs) == 0 {
			t.Fatalf("%s: %d names, %v", mediaType, len(manifests)+len(blobs), err)
		}
		var gotManifests, gotBlobs []Descriptor
		err = EachName(mediaType, Parse([]byte(raw)), func(d Descriptor, isManifest bool) bool {
			if isManifest {
				gotManifests = append(gotManifests, d)
			} else {
				gotBlobs = append(gotBlobs, d)
			}
			return true
		})
		if err != nil || !reflect.DeepEqual(gotManifests, manifests) || !reflect.DeepEqual(gotBlobs, blobs) {
			t.Errorf("%s: got %v and %v, %v\nwant %v and %v", mediaType, gotManifests, gotBlobs, err, manifests, blobs)
		}
		calls := 0
		_ = EachName(mediaType, Parse([]byte(raw)), func(Descriptor, bool) bool { calls++; return false })
		if calls != 1 {
			t.Errorf("%s: called %d times although one was enough", mediaType, calls)
		}
	}
}
