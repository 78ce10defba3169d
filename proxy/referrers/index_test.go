package referrers

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func referrer(name, artifactType string) Descriptor {
	return Descriptor{
		MediaType:    ociManifest,
		Digest:       digest.FromString(name),
		Size:         int64(len(name)),
		ArtifactType: artifactType,
		Annotations:  map[string]string{"b": name, "a": "<&>"},
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		want      []string // nil: malformed
	}{
		{"an index of an upstream that knows no annotations (W51)",
			`{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[{"mediaType":"` + ociManifest + `","digest":"` + one + `","size":1,"artifactType":"application/vnd.oci.empty.v1+json"}]}`, []string{one}},
		{"an index without a media type", `{"schemaVersion":2,"manifests":[{"digest":"` + one + `"}]}`, []string{one}},
		{"a Docker list", `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{"digest":"` + one + `"}]}`, []string{one}},
		{"an empty list", `{"schemaVersion":2,"manifests":[]}`, []string{}},
		{"null for an empty list", `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":null}`, []string{}},
		{"entries that can't be pulled hide no others", `{"schemaVersion":2,"manifests":[{"digest":"sha256:73"},{"digest":"` + two + `"},null,{"mediaType":"x"}]}`, []string{two}},
		{"a digest of an algorithm that is not known here is not hidden", `{"schemaVersion":2,"manifests":[{"digest":"blake3:abcdef"}]}`, []string{"blake3:abcdef"}},
		{"an entry twice comes twice; merging is another matter", `{"schemaVersion":2,"manifests":[{"digest":"` + two + `"},{"digest":"` + two + `"}]}`, []string{two, two}},

		{"entries of which none can be pulled are not none", `{"schemaVersion":2,"manifests":[{"digest":"sha256:73"},{}]}`, nil},
		{"a digest of endless length", `{"schemaVersion":2,"manifests":[{"digest":"x:` + strings.Repeat("a", 300) + `"}]}`, nil},
		{"an image under the tag", `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{},"layers":[]}`, nil},
		{"an image that also lists manifests", `{"mediaType":"` + ociManifest + `","layers":[],"manifests":[]}`, nil},
		{"an error of the registry sent as 200", `{"errors":[{"code":"UNKNOWN"}]}`, nil},
		{"an empty object", `{}`, nil},
		{"null", `null`, nil},
		{"an index without a list", `{"schemaVersion":2,"mediaType":"` + ociIndex + `"}`, nil},
		{"an index whose list has another name", `{"schemaVersion":2,"mediaType":"` + ociIndex + `","Manifests":[]}`, nil},
		{"an index with errors", `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[],"errors":[{"code":"UNKNOWN"}]}`, nil},
		{"a list that is no list", `{"manifests":{"digest":"` + one + `"}}`, nil},
		{"a list given twice", `{"manifests":[],"manifests":[{"digest":"` + one + `"}]}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode(Parse([]byte(c.raw)))
			if c.want == nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got %v, %v, want ErrMalformed", got, err)
				}
				return
			}
			if err != nil || !slices.Equal(listed(got), c.want) {
				t.Fatalf("got %v, %v, want %v", listed(got), err, c.want)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	d := referrer("x", "")
	if !Whole(d) {
		t.Error("a whole descriptor is not")
	}
	claims, err := Decode(Parse([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + one + `","size":1},{"mediaType":"` + ociManifest + `","digest":"` + one + `"}]}`)))
	if err != nil || len(claims) != 2 || Whole(claims[0]) || Whole(claims[1]) {
		t.Errorf("got %v, %v, want two that are not whole", claims, err)
	}
}

// 12.20: what is somebody's own under the tag is told from a list that is broken.
func TestAManifestOfAnotherKindIsNoIndex(t *testing.T) {
	for raw, want := range map[string]bool{
		`{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{},"layers":[]}`: true,
		`{"schemaVersion":2,"config":{},"layers":[]}`:                                   true,
		`{"schemaVersion":2,"mediaType":"` + ociIndex + `"}`:                            false,
		`{"schemaVersion":2}`:                    false,
		`{"errors":[{"code":"UNKNOWN"}]}`:        false,
		`{"schemaVersion":2,"manifests":"none"}`: false,
	} {
		if _, _, err := ReadIndex(Parse([]byte(raw))); errors.Is(err, ErrNoIndex) != want || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", raw, err)
		}
	}
	list, unusable, err := ReadIndex(Parse([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:73"},{"digest":"` + two + `","annotations":{"n":1}},null]}`)))
	if err != nil || len(list) != 1 || unusable != 2 {
		t.Errorf("got %v, %d, %v", list, unusable, err)
	}
}

// 12.23: containerd and oras take no more than 4 MiB, and the tag has no pages.
func TestTheTagHasNoMoreThanClientsTake(t *testing.T) {
	var list []Descriptor
	for i := range 12_000 {
		d := referrer(fmt.Sprint(i), "application/vnd.example.signature.v1+json")
		d.Annotations = map[string]string{"padding": strings.Repeat("x", 200)}
		if i%2 == 0 {
			d.Annotations[ocispec.AnnotationCreated] = time.Unix(int64(i)*60, 0).UTC().Format(time.RFC3339)
		}
		list = append(list, d)
	}
	all := Merge(list)
	got, err := EncodeTag(all, MaxPage)
	if err != nil || len(got) > MaxPage {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(got, &index); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d more are listed by the Referrers API", len(all)-len(index.Manifests)); index.Annotations[MoreAnnotation] != want || len(index.Manifests) < 5000 {
		t.Errorf("%d are listed, and it says %q, want %q", len(index.Manifests), index.Annotations[MoreAnnotation], want)
	}
	if index.Manifests[0].Digest != list[11_998].Digest || index.Manifests[1].Digest != list[11_996].Digest {
		t.Error("what was attached last does not come first")
	}
	if back, err := Decode(Parse(got)); err != nil || len(back) != len(index.Manifests) {
		t.Errorf("it reads back as %d, %v", len(back), err)
	}
	fits, err := EncodeTag(all[:10], MaxPage)
	if want := whole(t, all[:10]); err != nil || string(fits) != string(want) {
		t.Errorf("what fits is not as it was: %s, %v", fits, err)
	}
}
