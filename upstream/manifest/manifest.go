// Package manifest reads manifests that come from outside, strictly: what is
// not clearly there is not there. It makes no requests and stores nothing.
//
// Manifests are read member by member instead of into structs for three
// reasons. Names match exactly, as RFC 8259 requires (encoding/json would
// accept "Manifests" for "manifests"). A duplicate name is an error instead of
// a mixture. And a list of a million empty objects never becomes a million
// descriptors in memory.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	// The supported digest algorithms.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = digest.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

// ErrMalformed means that the bytes are not a manifest, or not an unambiguous
// one.
var ErrMalformed = errors.New("malformed manifest")

// ErrNoIndex is the ErrMalformed of a manifest of another kind than an index.
var ErrNoIndex = fmt.Errorf("%w: not an index", ErrMalformed)

// Absent says whether a member is not there, or is null.
func Absent(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }

// Text is empty if raw is not a string.
func Text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// Texts leaves out values that are not strings: a descriptor cannot hold them,
// and one malformed annotation must not hide a referrer.
func Texts(raw json.RawMessage) map[string]string {
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
		out[name] = Text(value)
	}
	return out
}
