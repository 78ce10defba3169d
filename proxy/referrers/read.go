package referrers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifests are read member by member instead of into structs for three
// reasons. Names match exactly, as RFC 8259 requires (encoding/json would
// accept "Subject" for "subject"). A duplicate name is an error instead of a
// mixture. And a list of a million empty objects never becomes a million
// descriptors in memory.

// document reads the named members of a manifest.
func document(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%w: %d bytes are too large", ErrMalformed, len(raw))
	}
	// Valid also bounds the nesting depth. After it, members and elements can
	// only fail because a value has the wrong type.
	if !json.Valid(raw) {
		return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
	}
	fields, err := members(raw, names...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return fields, nil
}

// members returns the named members of the object raw.
func members(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	found := make(map[string]json.RawMessage, len(names))
	var other json.RawMessage
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		if !slices.Contains(names, name) {
			if err := dec.Decode(&other); err != nil {
				return nil, err
			}
			continue
		}
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("%q is given twice", name)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		found[name] = value
	}
	return found, nil
}

// elements calls fn for each element of the array raw. An absent or null array
// has none.
func elements(raw json.RawMessage, fn func(json.RawMessage)) error {
	if absent(raw) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('[') {
		return fmt.Errorf("%w: not a list", ErrMalformed)
	}
	var element json.RawMessage
	for dec.More() {
		if err := dec.Decode(&element); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		fn(element)
	}
	return nil
}

// descriptor reads a content descriptor (image-spec, "Content Descriptors"). It
// returns false if there is none, or if nobody could request its digest. Size
// is -1 if it is not given. Embedded data is left out: it may be large, and it
// is available in the manifest.
func descriptor(raw json.RawMessage) (Descriptor, bool) {
	// A list may contain millions of tiny elements. Do not parse those.
	if len(raw) < len(`{"digest":"a:b"}`) {
		return Descriptor{}, false
	}
	fields, err := members(raw, "mediaType", "digest", "size", "artifactType", "annotations", "urls", "platform")
	if err != nil {
		return Descriptor{}, false
	}
	d := Descriptor{
		MediaType:    text(fields["mediaType"]),
		Digest:       Digest(text(fields["digest"])),
		Size:         size(fields["size"]),
		ArtifactType: text(fields["artifactType"]),
		Annotations:  texts(fields["annotations"]),
	}
	if !wellFormed(d.Digest) {
		return Descriptor{}, false
	}
	var urls []string
	if json.Unmarshal(fields["urls"], &urls) == nil {
		d.URLs = urls
	}
	var platform *ocispec.Platform
	if json.Unmarshal(fields["platform"], &platform) == nil {
		d.Platform = platform
	}
	return d, true
}

func absent(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }

// text is empty if raw is not a string.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// texts leaves out values that are not strings: a descriptor cannot hold them,
// and one malformed annotation must not hide a referrer.
func texts(raw json.RawMessage) map[string]string {
	var values map[string]json.RawMessage
	if json.Unmarshal(raw, &values) != nil {
		return nil
	}
	var out map[string]string
	for name, value := range values {
		if value[0] != '"' {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(values))
		}
		out[name] = text(value)
	}
	return out
}

func size(raw json.RawMessage) int64 {
	n := int64(-1)
	if json.Unmarshal(raw, &n) != nil || n < 0 {
		return -1
	}
	return n
}
