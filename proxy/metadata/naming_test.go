package metadata

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/memory"
)

// What a record names is found in its bytes as it is by decoding it, whatever
// texts are in it.
func TestWhatARecordNamesIsFoundWithoutDecodingIt(t *testing.T) {
	l := New(memory.New().Records(), nil)
	of := func(text string) Descriptor { return Descriptor{Digest: digest.FromString(text), Size: 1} }
	odd := of("odd")
	odd.Annotations = map[string]string{"a": `"digest":"sha256:no"`, `"Blobs":[`: `{"digest":"x"}`}
	odd.URLs, odd.Data = []string{`"digest":"`}, []byte(`"digest":"y"`)
	for name, m := range map[string]Manifest{
		"an image": {MediaType: "m", Blobs: []Descriptor{of("config"), odd, of("layer"), odd}},
		"an index": {MediaType: "m", Children: []Descriptor{odd, of("child")}},
		"wide":     {MediaType: "wide", Wide: true, Blobs: []Descriptor{of("layer")}},
		"a both":   {MediaType: "m", Children: []Descriptor{odd}, Blobs: []Descriptor{odd}, Subject: digest.FromString("subject")},
	} {
		repo := Repository{Upstream: "hub", Name: name}
		l.PutManifest(repo, digest.FromString(name), m)
		found := 0
		err := l.EachNaming(func(n Naming) {
			if n.Repository != RepositoryKey(repo) {
				return
			}
			found++
			var got, want []string
			n.EachBlob(func(d []byte) { got = append(got, string(d)) })
			for _, d := range m.Blobs {
				want = append(want, d.Digest.String())
			}
			mediaType, wide := n.Wide()
			if n.Digest != digest.FromString(name) || !slices.Equal(got, want) || wide != m.Wide || wide && mediaType != "wide" {
				t.Errorf("%s names %v, not %v; wide: %q, %v", name, got, want, mediaType, wide)
			}
		})
		if err != nil || found != 1 {
			t.Errorf("%s was found %d times: %v", name, found, err)
		}
	}
}
