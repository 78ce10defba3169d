package manifest

import (
	"encoding/json"
	"fmt"
	"sync"
)

// documentMembers are the members of a manifest that anything is read from.
func documentMembers() []string {
	return []string{
		"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "fsLayers",
		"signatures", "subject", "annotations", "errors",
	}
}

// Document is a manifest that has been parsed once, for all that is read of it:
// megabytes of garbage are looked through once and not again for each question
// about them, which would take longer than clients wait. It does not change, and
// is safe for concurrent use.
type Document struct {
	raw     []byte
	members map[string]json.RawMessage
	err     error
	entries func() entries
}

// entries are the manifests that a document lists.
type entries struct {
	list     []Descriptor
	unusable int
	err      error
}

// Parse parses a manifest. The document refers to raw, which must not change.
func Parse(raw []byte) *Document {
	d := &Document{raw: raw}
	d.entries = sync.OnceValue(d.readEntries)
	// Valid also bounds the nesting depth. After it, members and elements can
	// only fail because a value has the wrong type.
	if !json.Valid(raw) {
		d.err = fmt.Errorf("%w: not JSON", ErrMalformed)
		return d
	}
	members, twice, err := split(raw, documentMembers())
	switch {
	case err != nil:
		d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
	case twice != "":
		d.err = fmt.Errorf("%w: %q is given twice", ErrMalformed, twice)
	}
	d.members = members
	return d
}

// Bytes are the bytes that were parsed.
func (d *Document) Bytes() []byte { return d.raw }

// Err is nil, or the ErrMalformed of bytes that are not a JSON object, or that
// contain a member twice.
func (d *Document) Err() error { return d.err }

// IsObject says whether the bytes are a JSON object.
func (d *Document) IsObject() bool { return d.members != nil }

// Member returns a member, or nil if it is absent. Of one that is given twice it
// is the last, as it is for most decoders: see Err.
func (d *Document) Member(name string) json.RawMessage { return d.members[name] }

// Entries are the manifests that it lists, if it lists any, whatever else it is,
// and how many elements of the list are no usable descriptors. It returns
// ErrMalformed if the list is not a list.
func (d *Document) Entries() (list []Descriptor, unusable int, err error) {
	e := d.entries()
	return e.list, e.unusable, e.err
}

func (d *Document) readEntries() (e entries) {
	e.err = Elements(d.members["manifests"], func(element json.RawMessage) {
		if one, ok := ReadDescriptor(element); ok {
			e.list = append(e.list, one)
		} else {
			e.unusable++
		}
	})
	if e.err != nil {
		return entries{err: e.err}
	}
	return e
}
