package referrers

import (
	"encoding/json"
	"fmt"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// Document is a manifest that has been parsed, once for all that is read of it.
type Document = manifest.Document

// Parse parses a manifest. The document refers to raw, which must not change.
func Parse(raw []byte) *Document { return manifest.Parse(raw) }

// check returns ErrMalformed for a document that is not read.
func check(doc *Document) error {
	if n := len(doc.Bytes()); n > maxManifest {
		return fmt.Errorf("%w: %d bytes are too large", ErrMalformed, n)
	}
	return doc.Err()
}

func members(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	return manifest.Members(raw, names...)
}

func elements(raw json.RawMessage, fn func(json.RawMessage)) error { return manifest.Elements(raw, fn) }

func descriptor(raw json.RawMessage) (Descriptor, bool) { return manifest.ReadDescriptor(raw) }

func absent(raw json.RawMessage) bool { return manifest.Absent(raw) }

func text(raw json.RawMessage) string { return manifest.Text(raw) }

func texts(raw json.RawMessage) map[string]string { return manifest.Texts(raw) }
