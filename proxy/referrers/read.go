package referrers

import (
	"encoding/json"
	"fmt"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// document reads the named members of a manifest.
func document(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%w: %d bytes are too large", ErrMalformed, len(raw))
	}
	return manifest.Document(raw, names...)
}

func members(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	return manifest.Members(raw, names...)
}

func elements(raw json.RawMessage, fn func(json.RawMessage)) error { return manifest.Elements(raw, fn) }

func descriptor(raw json.RawMessage) (Descriptor, bool) { return manifest.ReadDescriptor(raw) }

func absent(raw json.RawMessage) bool { return manifest.Absent(raw) }

func text(raw json.RawMessage) string { return manifest.Text(raw) }

func texts(raw json.RawMessage) map[string]string { return manifest.Texts(raw) }
