package referrers

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// CheckReading returns ErrMalformed if a manifest of a known kind may name
// other content to other readers: a member stands in it twice, or in another
// case. Registries in Go take "Layers" for "layers", and of two the last one, so
// that what a registry has verified may not be what is read here.
func CheckReading(mediaType string, doc *Document) error {
	if kindOf(mediaType) == kindUnknown || !doc.IsObject() {
		return nil // nothing is taken from it
	}
	fields, err := exactly(doc.Bytes(), "schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "fsLayers", "subject", "annotations")
	if err != nil {
		return err
	}
	check := func(raw json.RawMessage) {
		if err == nil && len(raw) > 0 && raw[0] == '{' {
			_, err = exactly(raw, "mediaType", "digest", "size", "urls", "data", "annotations", "platform", "artifactType", "blobSum")
		}
	}
	check(fields["config"])
	check(fields["subject"])
	for _, list := range []string{"layers", "blobs", "manifests", "fsLayers"} {
		_ = elements(fields[list], check) // what is no list names nothing
	}
	return err
}

// exactly reads the named members of an object. It returns ErrMalformed if one
// of them is there twice, or in another case.
func exactly(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	found := make(map[string]json.RawMessage, len(names))
	var wrong error
	err := manifest.EachMember(raw, func(name string, value json.RawMessage) {
		for _, known := range names {
			switch _, twice := found[known]; {
			case name == known && !twice:
				found[known] = value
			case name == known:
				wrong = fmt.Errorf("%w: %q is given twice", ErrMalformed, known)
			case strings.EqualFold(name, known):
				wrong = fmt.Errorf("%w: %.40q is not %q", ErrMalformed, name, known)
			}
		}
	})
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // it is no object, and names nothing
	}
	return found, wrong
}
