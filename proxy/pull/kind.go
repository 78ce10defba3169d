package pull

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// isManifest recognizes a manifest of any kind, known or not, by its members:
// it has a schema version or a media type, and no errors.
func isManifest(content []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(content, &members) != nil || members["errors"] != nil {
		return false
	}
	var version int
	var mediaType string
	return json.Unmarshal(members["schemaVersion"], &version) == nil && version > 0 ||
		json.Unmarshal(members["mediaType"], &mediaType) == nil && mediaType != ""
}

const (
	signedSchema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	bareSchema1   = "application/vnd.docker.distribution.manifest.v1+json"
)

// manifestType is the media type that a manifest is served with, without
// parameters. The manifest's own mediaType comes first (W46), then the
// upstream's Content-Type unless it is a generic one, then the type that its
// members suggest.
func manifestType(header string, content []byte) string {
	var own struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Signatures    json.RawMessage `json:"signatures"`
	}
	unreadable := json.Unmarshal(content, &own) != nil
	if t, _, err := mime.ParseMediaType(own.MediaType); err == nil && !unreadable && isSpecific(t) {
		return t
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && isSpecific(t) {
		return t
	}
	switch {
	case unreadable:
	case own.SchemaVersion == 1 && own.Signatures != nil:
		return signedSchema1
	case own.SchemaVersion == 1:
		return bareSchema1
	case own.Manifests != nil:
		return indexType
	case own.Config != nil, own.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return "application/octet-stream"
}

// isSpecific says whether a media type identifies a format, rather than "some
// file".
func isSpecific(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain", "text/html", "application/xml", "text/xml",
		"application/x-gzip", "application/gzip", "application/x-www-form-urlencoded":
		return false
	}
	return true
}

// signedPayload is the part of a Docker schema 1 manifest that its signatures
// cover: the manifest without them, byte for byte. Its digest is the manifest's
// digest. If there are no readable signatures, or if the manifest contains
// members that are not signed, it is the content itself.
func signedPayload(content []byte) []byte {
	var members map[string]json.RawMessage
	var signatures []struct {
		Protected string `json:"protected"`
	}
	if json.Unmarshal(content, &members) != nil || string(members["schemaVersion"]) != "1" ||
		json.Unmarshal(members["signatures"], &signatures) != nil || len(signatures) == 0 {
		return content
	}
	var protected struct {
		FormatLength int    `json:"formatLength"`
		FormatTail   string `json:"formatTail"`
	}
	header, err := base64.RawURLEncoding.DecodeString(signatures[0].Protected)
	if err != nil || json.Unmarshal(header, &protected) != nil || protected.FormatLength < 0 || protected.FormatLength > len(content) {
		return content
	}
	tail, err := base64.RawURLEncoding.DecodeString(protected.FormatTail)
	if err != nil {
		return content
	}
	payload := append(content[:protected.FormatLength:protected.FormatLength], tail...)
	var signed map[string]json.RawMessage
	delete(members, "signatures")
	if json.Unmarshal(payload, &signed) != nil || !maps.EqualFunc(members, signed, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		return content
	}
	return payload
}
