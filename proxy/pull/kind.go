package pull

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// isManifest recognizes a manifest of any kind, known or not, by its members:
// it has a schema version or a media type, and no errors.
func isManifest(doc *referrers.Document) bool {
	var mediaType string
	return doc.Member("errors") == nil &&
		(schemaVersion(doc) > 0 || json.Unmarshal(doc.Member("mediaType"), &mediaType) == nil && mediaType != "")
}

// schemaVersion is 0 if there is none.
func schemaVersion(doc *referrers.Document) (version int) {
	if json.Unmarshal(doc.Member("schemaVersion"), &version) != nil {
		return 0
	}
	return version
}

const (
	signedSchema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	bareSchema1   = "application/vnd.docker.distribution.manifest.v1+json"
)

// manifestType is the media type that a manifest is served with, without
// parameters. The manifest's own mediaType comes first (W46), then the
// upstream's Content-Type unless it is a generic one, then the type that its
// members suggest.
func manifestType(header string, doc *referrers.Document) string {
	var own string
	if json.Unmarshal(doc.Member("mediaType"), &own) != nil {
		own = ""
	}
	if t, _, err := mime.ParseMediaType(own); err == nil && isSpecific(t) {
		return t
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && isSpecific(t) {
		return t
	}
	switch version := schemaVersion(doc); {
	case version == 1 && doc.Member("signatures") != nil:
		return signedSchema1
	case version == 1:
		return bareSchema1
	case doc.Member("manifests") != nil:
		return indexType
	case doc.Member("config") != nil, doc.Member("layers") != nil:
		return ocispec.MediaTypeImageManifest
	}
	return "application/octet-stream"
}

// maxMediaType is the length of the longest media type, in bytes (RFC 6838, section
// 4.2). What is longer would stand in each header and each record.
const maxMediaType = 127 + len("/") + 127

// isSpecific says whether a media type identifies a format, rather than "some
// file".
func isSpecific(mediaType string) bool {
	if len(mediaType) > maxMediaType {
		return false
	}
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
func signedPayload(doc *referrers.Document) []byte {
	content := doc.Bytes()
	if schemaVersion(doc) != 1 || doc.Member("signatures") == nil {
		return content
	}
	var members map[string]json.RawMessage
	var signatures []struct {
		Protected string `json:"protected"`
	}
	if json.Unmarshal(content, &members) != nil ||
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
