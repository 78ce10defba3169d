package proxy

import (
	"net/http"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// staleWarning is the warning that a response is stale (RFC 9111, section 5.5).
const staleWarning = `110 - "Response is Stale"`

// serveManifest responds with the exact bytes and media type (W1).
func (s *Server) serveManifest(w *response, r *http.Request, q route) error {
	manifest := s.puller.ManifestFor
	if r.Method == http.MethodHead {
		manifest = s.puller.DescribeFor
	}
	m, err := manifest(r.Context(), q.repo, q.ref, acceptedTypes(r.Header), wishesOf(r.Header)...)
	if err != nil && r.Method == http.MethodHead {
		if d, resolveErr := s.puller.ResolveManifest(r.Context(), q.repo, q.ref, err); resolveErr == nil {
			return describeManifest(w, d)
		}
	}
	w.outcome = m.Outcome
	if err != nil {
		return err
	}
	header := w.Header()
	if m.Stale {
		header.Add("Warning", staleWarning)
	}
	for _, warning := range m.Warnings {
		header.Add("Warning", warning) // W12
	}
	setAge(header, m.At)
	etag := `"` + m.Descriptor.Digest.String() + `"`
	w.set("Docker-Content-Digest", unquoted(etag))
	w.set("Etag", etag)
	if matchesETag(r.Header, etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if m.Bytes == nil && r.Method == http.MethodHead {
		header["Content-Type"] = []string{m.Descriptor.MediaType}
		header["Content-Length"] = []string{strconv.FormatInt(m.Descriptor.Size, 10)}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	return w.writeBody(r, m.Descriptor.MediaType, m.Bytes)
}

// unquoted is a digest in its entity tag, without a copy.
func unquoted(etag string) string { return etag[1 : len(etag)-1] }

// describeManifest responds to HEAD for a manifest that is not cached.
func describeManifest(w *response, d ocispec.Descriptor) error {
	w.outcome = pull.Miss
	header := w.Header()
	header["Content-Type"] = []string{d.MediaType}
	header["Docker-Content-Digest"] = []string{d.Digest.String()}
	header["Etag"] = []string{`"` + d.Digest.String() + `"`}
	header["Content-Length"] = []string{strconv.FormatInt(d.Size, 10)}
	w.WriteHeader(http.StatusOK)
	return nil
}

// matchesETag reports whether the client already has the content (RFC 9110,
// section 13.1.2).
func matchesETag(header http.Header, etag string) bool {
	for _, line := range header["If-None-Match"] {
		for candidate := range strings.SplitSeq(line, ",") {
			candidate = strings.Trim(candidate, " \t")
			if strings.TrimPrefix(candidate, "W/") == etag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
