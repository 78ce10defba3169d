package referrers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestOnlyTheFirstNamesOfAManifestAreCollected(t *testing.T) {
	layer := func(i int, rest string) string {
		return fmt.Sprintf(`{"digest":"%s","size":%d%s}`, digest.FromString(fmt.Sprint(i)), i, rest)
	}
	long := `,"annotations":{"a":"` + strings.Repeat("x", 10_000) + `"}`
	for name, c := range map[string]struct {
		layers int
		rest   string
		first  int
		more   bool
	}{
		"as many as there may be":    {layers: maxFirst - 1, first: maxFirst},
		"one more":                   {layers: maxFirst, first: maxFirst, more: true},
		"many":                       {layers: 10 * maxFirst, first: maxFirst, more: true},
		"few, with long annotations": {layers: 20, rest: long, first: 7, more: true},
		"the same again and again":   {layers: 1, rest: `},{"digest":"` + one + `"` + strings.Repeat(`},{"digest":"`+one+`"`, 300), first: 3},
		"two, with annotations":      {layers: 2, rest: long, first: 3},
	} {
		var layers []string
		for i := range c.layers {
			layers = append(layers, layer(i, c.rest))
		}
		raw := []byte(`{"config":{"mediaType":"c","digest":"` + two + `","size":2},"layers":[` + strings.Join(layers, ",") + `]}`)
		_, blobs, _, more, err := FirstNames(ociManifest, Parse(raw))
		if err != nil || len(blobs) != c.first || more != c.more || blobs[0].MediaType != "c" {
			t.Errorf("%s: %d blobs, more: %t, %v", name, len(blobs), more, err)
		}
		_, all, _, err := Names(ociManifest, Parse(raw))
		set, setErr := ReadNameSet(ociManifest, Parse(raw))
		if err != nil || setErr != nil || set.Len() != len(all) {
			t.Fatalf("%s: %d in the set of %d, %v, %v", name, set.Len(), len(all), err, setErr)
		}
		for _, d := range all {
			if size, ok := set.Member(d.Digest); !ok || !set.Has(d.Digest) || size != d.Size {
				t.Errorf("%s: the set has %s: %t, with %d bytes of %d", name, d.Digest, ok, size, d.Size)
			}
		}
		if set.Has(digest.Digest(three)) {
			t.Errorf("%s: the set has what the manifest does not name", name)
		}
	}
}

func TestWhatANameSetSaysOfEachKind(t *testing.T) {
	for name, c := range map[string]struct {
		mediaType, raw string
		member         bool
		size           int64
	}{
		"a layer":              {ociManifest, `{"layers":[{"digest":"` + one + `","size":7}]}`, true, 7},
		"a layer without size": {ociManifest, `{"layers":[{"digest":"` + one + `"}]}`, true, -1},
		"a layer of schema 1":  {mediaTypeDockerSchema1, `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + one + `"}]}`, true, -1},
		// Registries do not check these.
		"a layer with URLs":    {ociManifest, `{"layers":[{"digest":"` + one + `","size":7,"urls":["https://example.com"]}]}`, false, 0},
		"an entry of an index": {ociIndex, `{"manifests":[{"digest":"` + one + `","size":7}]}`, false, 0},
		"a blob in an index":   {ociIndex, `{"manifests":[{"mediaType":"x/y","digest":"` + one + `","size":7}]}`, false, 0},
	} {
		set, err := ReadNameSet(c.mediaType, Parse([]byte(c.raw)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		size, ok := set.Member(digest.Digest(one))
		if !set.Has(digest.Digest(one)) || ok != c.member || ok && size != c.size {
			t.Errorf("%s: %d, %t", name, size, ok)
		}
	}
	if _, err := ReadNameSet(ociManifest, Parse([]byte(`{"layers":{}}`))); err == nil {
		t.Error("layers that are no list are read")
	}
}
