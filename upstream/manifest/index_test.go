package manifest

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	index = ocispec.MediaTypeImageIndex
	image = ocispec.MediaTypeImageManifest
	one   = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	two   = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"
)

// What is no index says nothing: neither that there are referrers, nor that
// there are none.
func TestWhatIsNoIndex(t *testing.T) {
	entry := `{"mediaType":"` + image + `","digest":"` + one + `","size":1}`
	for name, raw := range map[string]string{
		"nothing":                     ``,
		"null":                        `null`,
		"an object":                   `{}`,
		"a list":                      `[` + entry + `]`,
		"a web page":                  `<html></html>`,
		"half an index":               `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[`,
		"an index and more":           `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}{}`,
		"errors":                      `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`,
		"errors beside a list":        `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"errors":[{"code":"UNKNOWN"}]}`,
		"an error that is no list":    `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"errors":"UNKNOWN"}`,
		"an image":                    `{"schemaVersion":2,"mediaType":"` + image + `","config":` + entry + `,"layers":[]}`,
		"an image without its type":   `{"schemaVersion":2,"config":` + entry + `,"layers":[]}`,
		"an image that lists":         `{"schemaVersion":2,"mediaType":"` + image + `","manifests":[` + entry + `]}`,
		"an index with layers":        `{"schemaVersion":2,"mediaType":"` + index + `","layers":[],"manifests":[]}`,
		"no manifests":                `{"schemaVersion":2,"mediaType":"` + index + `"}`,
		"Manifests":                   `{"schemaVersion":2,"mediaType":"` + index + `","Manifests":[` + entry + `]}`,
		"MANIFESTS beside manifests?": `{"schemaVersion":2,"mediaType":"` + index + `","MANIFESTS":[]}`,
		"a list given twice":          `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"manifests":[` + entry + `]}`,
		"a list that is an object":    `{"schemaVersion":2,"mediaType":"` + index + `","manifests":{}}`,
		"a list that is text":         `{"schemaVersion":2,"mediaType":"` + index + `","manifests":"none"}`,
		"null without a type":         `{"schemaVersion":2,"manifests":null}`,
		"null without a version":      `{"mediaType":"` + index + `","manifests":null}`,
		"no version":                  `{"mediaType":"` + index + `","manifests":[]}`,
		"another version":             `{"schemaVersion":1,"mediaType":"` + index + `","manifests":[]}`,
		"a version that is text":      `{"schemaVersion":"2","mediaType":"` + index + `","manifests":[]}`,
		"a type that is a number":     `{"schemaVersion":2,"mediaType":5,"manifests":[]}`,
		"another type":                `{"schemaVersion":2,"mediaType":"application/json","manifests":[]}`,
	} {
		if got, err := ReadIndex([]byte(raw)); !errors.Is(err, ErrMalformed) || len(got.Entries) > 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestWhatIsAnIndex(t *testing.T) {
	for name, c := range map[string]struct {
		raw      string
		want     []string
		unusable int
	}{
		"an empty one":           {raw: `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`},
		"null for an empty list": {raw: `{"schemaVersion":2,"mediaType":"` + index + `","manifests":null}`}, // F35
		"errors that are none":   {raw: `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"errors":[]}`},
		"without its type":       {raw: `{"schemaVersion":2,"manifests":[{"digest":"` + one + `"}]}`, want: []string{one}},
		"a Docker list":          {raw: `{"schemaVersion":2,"mediaType":"` + mediaTypeDockerList + `","manifests":[{"digest":"` + one + `"}]}`, want: []string{one}},
		"one with other members": {raw: `{"schemaVersion":2,"mediaType":"` + index + `","x":{"manifests":1},"manifests":[{"digest":"` + one + `","X":1}]}`, want: []string{one}},
		"an algorithm that is not known here": {
			raw: `{"schemaVersion":2,"manifests":[{"digest":"blake3:abcdef"}]}`, want: []string{"blake3:abcdef"},
		},
		"entries that are none": {
			raw:  `{"schemaVersion":2,"manifests":[{"digest":"sha256:73"},{"digest":"` + two + `"},null,{"mediaType":"x"},5,[],"` + one + `",{"digest":"` + one + `","digest":"` + two + `"},{"digest":5,"size":10},{"digest":"x:` + strings.Repeat("a", 300) + `"}]}`,
			want: []string{two}, unusable: 9,
		},
		"no entry that is one": {raw: `{"schemaVersion":2,"manifests":[{},{}]}`, unusable: 2},
	} {
		got, err := ReadIndex([]byte(c.raw))
		var digests []string
		for _, d := range got.Entries {
			digests = append(digests, d.Digest.String())
		}
		if err != nil || !slices.Equal(digests, c.want) || got.Unusable != c.unusable {
			t.Errorf("%s: %v and %d that are none, %v", name, digests, got.Unusable, err)
		}
	}
}

// An entry is kept with what can be read of it.
func TestAnEntryIsKeptWithWhatCanBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		want  Descriptor
	}{
		"an annotation that is a number": {
			`"mediaType":"` + image + `","size":7,"annotations":{"a":"b","n":5,"o":{},"z":null}`,
			Descriptor{MediaType: image, Size: 7, Annotations: map[string]string{"a": "b"}},
		},
		"annotations that are a list":  {`"size":7,"annotations":["a"]`, Descriptor{Size: 7}},
		"no media type":                {`"size":7,"artifactType":"type/x"`, Descriptor{Size: 7, ArtifactType: "type/x"}},
		"a media type that is none":    {`"mediaType":null,"size":7`, Descriptor{Size: 7}},
		"no size":                      {`"mediaType":"x"`, Descriptor{MediaType: "x", Size: -1}},
		"a size that is text":          {`"size":"7"`, Descriptor{Size: -1}},
		"a negative size":              {`"size":-7`, Descriptor{Size: -1}},
		"an artifact type as a number": {`"artifactType":5,"size":7`, Descriptor{Size: 7}},
		"a platform that is text":      {`"platform":"linux","size":7`, Descriptor{Size: 7}},
		"urls that are numbers":        {`"urls":[1],"size":7`, Descriptor{Size: 7}},
		"data":                         {`"data":"e30=","size":7`, Descriptor{Size: 7}},
	} {
		c.want.Digest = digest.Digest(one)
		got, err := ReadIndex([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + one + `",` + c.entry + `}]}`))
		if err != nil || len(got.Entries) != 1 || got.Unusable != 0 || !reflect.DeepEqual(got.Entries[0], c.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func FuzzReadIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[{"digest":"` + one + `","size":1,"annotations":{"a":1}},{"digest":"blake3:x"}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":null}`))
	for _, wrong := range []string{"abc", "sha256:", "sha256:zz", "sha256:../../x", ":"} {
		f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[{"mediaType":"a/b","digest":"` + wrong + `","size":-9}]}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ReadIndex(raw)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		for _, d := range got.Entries {
			if !WellFormed(d.Digest) || d.Size < -1 {
				t.Fatalf("%+v", d)
			}
		}
	})
}
