package pull

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// isManifest tells a manifest of any kind, of kinds that are not known too, by
// its own members: it names the version of its schema or its media type, and
// no errors.
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

// manifestType is the media type that a manifest goes out with, without
// parameters: the one that it names itself (W46), else the upstream's, unless
// that is one of storage or of a page, else what its members belong to.
func manifestType(header string, content []byte) string {
	var own struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Signatures    json.RawMessage `json:"signatures"`
	}
	unread := json.Unmarshal(content, &own) != nil
	if t, _, err := mime.ParseMediaType(own.MediaType); err == nil && !unread && isSpecific(t) {
		return t
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && isSpecific(t) {
		return t
	}
	switch {
	case unread:
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

// isSpecific says whether a media type says what something is.
func isSpecific(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain", "text/html", "application/xml", "text/xml",
		"application/x-gzip", "application/gzip", "application/x-www-form-urlencoded":
		return false
	}
	return true
}

// signedPayload is what the signatures of a manifest of Docker's schema 1 are
// about: the manifest without them, byte for byte. Its digest is the
// manifest's. Where there are none, or none that can be read, or where the
// manifest says anything that is not signed, it is the content itself.
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
