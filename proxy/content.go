package proxy

import (
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
)

const (
	staleWarning = `110 - "Response is Stale"`
	octetStream  = "application/octet-stream"
)

func (s *Server) servePing(w http.ResponseWriter, r *http.Request) error {
	// W5: a mirror without accounts of its own never challenges.
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", "2")
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte("{}"))
	}
	return nil
}

// serveManifest answers with the exact bytes (W1).
func (s *Server) serveManifest(w *response, r *http.Request, q route) error {
	m, err := s.puller.Manifest(r.Context(), q.repo, q.ref)
	w.outcome = m.Outcome
	if err != nil {
		return err
	}
	header := w.Header()
	if m.Stale {
		header.Add("Warning", staleWarning)
	}
	for _, warning := range m.Warnings {
		header.Add("Warning", warning)
	}
	etag := `"` + m.Descriptor.Digest.String() + `"`
	header["Content-Type"] = []string{m.Descriptor.MediaType}
	header["Docker-Content-Digest"] = []string{m.Descriptor.Digest.String()}
	header["Etag"] = []string{etag}
	if matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	header["Content-Length"] = []string{strconv.Itoa(len(m.Bytes))}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(m.Bytes); err != nil {
		return brokenOff(err)
	}
	return nil
}

func matches(header, etag string) bool {
	if header == "" {
		return false
	}
	for candidate := range strings.SplitSeq(header, ",") {
		if c := strings.TrimPrefix(strings.TrimSpace(candidate), "W/"); c == etag || c == "*" {
			return true
		}
	}
	return false
}

func (s *Server) serveBlob(w *response, r *http.Request, q route) error {
	header := w.Header()
	header["Content-Type"] = []string{octetStream}
	header["Docker-Content-Digest"] = []string{q.digest.String()}
	header["Accept-Ranges"] = []string{"bytes"}
	etag := `"` + q.digest.String() + `"`
	header["Etag"] = []string{etag}
	if r.Method == http.MethodHead {
		desc, outcome, err := s.puller.ResolveBlob(r.Context(), q.repo, q.digest)
		w.outcome = outcome
		if err != nil {
			return err
		}
		if desc.Size >= 0 {
			header.Set("Content-Length", strconv.FormatInt(desc.Size, 10))
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	b, err := s.puller.Blob(r.Context(), q.repo, q.digest)
	if err != nil {
		return err
	}
	defer b.Close()
	defer func() { w.outcome = b.Outcome() }()
	if matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	var spans []span
	asked := r.Header.Get("Range")
	if condition := r.Header.Get("If-Range"); asked != "" && b.Size() >= 0 && (condition == "" || condition == etag) {
		if spans, err = parseRange(asked, b.Size()); err != nil {
			header.Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size()))
			return &refusal{http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", fmt.Sprintf("the blob has %d bytes: %v", b.Size(), err)}
		}
	}
	switch len(spans) {
	case 0:
		if b.Size() >= 0 {
			header["Content-Length"] = []string{strconv.FormatInt(b.Size(), 10)}
		}
		return s.writeSpan(w, r, b, http.StatusOK, span{0, -1})
	case 1:
		at := spans[0]
		header.Set("Content-Length", strconv.FormatInt(at.n, 10))
		header.Set("Content-Range", contentRange(at, b.Size()))
		if openEnded(asked) {
			at.n = -1
		}
		return s.writeSpan(w, r, b, http.StatusPartialContent, at)
	}
	return s.writeSpans(w, r, b, spans)
}

func contentRange(at span, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", at.off, at.off+at.n-1, size)
}

// writeSpan sends one piece of a blob. The status goes out with the first
// bytes, so that a failure before them is still an answer.
func (s *Server) writeSpan(w *response, r *http.Request, b pull.Blob, status int, at span) error {
	w.pending = status
	_, err := b.WriteRange(r.Context(), w, at.off, at.n)
	switch {
	case err == nil:
		return w.commit() // of the empty blob nothing was written
	case w.status == 0:
		w.pending = 0
		return err
	}
	return brokenOff(err)
}

// writeSpans sends several pieces (RFC 9110, section 14.6).
func (s *Server) writeSpans(w *response, r *http.Request, b pull.Blob, spans []span) error {
	var length counter
	parts := multipart.NewWriter(&length)
	for _, at := range spans {
		if _, err := parts.CreatePart(partHeader(at, b.Size())); err != nil {
			return err
		}
		length += counter(at.n)
	}
	if err := parts.Close(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "multipart/byteranges; boundary="+parts.Boundary())
	w.Header().Set("Content-Length", strconv.FormatInt(int64(length), 10))
	sent := multipart.NewWriter(holder{w})
	if err := sent.SetBoundary(parts.Boundary()); err != nil {
		return err
	}
	w.pending = http.StatusPartialContent
	for _, at := range spans {
		if _, err := sent.CreatePart(partHeader(at, b.Size())); err != nil {
			return err
		}
		if _, err := b.WriteRange(r.Context(), w, at.off, at.n); err != nil {
			if w.status == 0 {
				w.pending, w.held = 0, nil
				return err
			}
			return brokenOff(err)
		}
	}
	if err := errors.Join(sent.Close(), w.commit()); err != nil {
		return brokenOff(err)
	}
	return nil
}

func partHeader(at span, size int64) textproto.MIMEHeader {
	return textproto.MIMEHeader{"Content-Type": {octetStream}, "Content-Range": {contentRange(at, size)}}
}

// counter is a writer that only counts.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// brokenError is a failure after the headers: the connection has to break, so
// that nobody takes what came for the whole (W22).
type brokenError struct{ err error }

func brokenOff(err error) error      { return &brokenError{err} }
func (b *brokenError) Error() string { return b.err.Error() }
func (b *brokenError) Unwrap() error { return b.err }

func isBroken(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}

func (s *Server) serveTags(w *response, r *http.Request, q route) error {
	page := r.URL.Query()
	page.Del("ns")
	list, err := s.puller.Tags(r.Context(), q.repo, page)
	w.outcome = list.Outcome
	if err != nil {
		return err
	}
	if list.Stale {
		w.Header().Add("Warning", staleWarning)
	}
	if list.Next != nil {
		link(w.Header(), q, "tags/list", list.Next)
	}
	tags := list.Tags
	if tags == nil {
		tags = []string{}
	}
	return w.writeJSON(r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.asked, tags})
}

// link names the next page at this origin, in the client's own form (W11).
func link(h http.Header, q route, end string, next url.Values) {
	values := url.Values{}
	for key, all := range next {
		values[key] = all
	}
	if q.ns != "" {
		values.Set("ns", q.ns)
	}
	h.Set("Link", fmt.Sprintf(`</v2/%s/%s?%s>; rel="next"`, q.asked, end, values.Encode()))
}

// serveReferrers answers as distribution-spec, "Listing Referrers", wants it
// (W52 to W54): filtered here, in one page where that stays under 4 MiB.
func (s *Server) serveReferrers(w *response, r *http.Request, q route) error {
	answer, err := s.puller.Referrers(r.Context(), q.repo, q.digest)
	w.outcome = answer.Outcome
	if err != nil {
		return err
	}
	query := r.URL.Query()
	list := answer.Manifests
	header := w.Header()
	if wanted := slices.DeleteFunc(query["artifactType"], func(t string) bool { return t == "" }); len(wanted) > 0 {
		list = referrers.Filter(list, wanted)
		header.Set("OCI-Filters-Applied", "artifactType")
	}
	if last := query.Get("last"); last != "" {
		after, err := parseDigest(last)
		if err != nil {
			return err
		}
		list = referrers.After(list, after)
	}
	body, rest, err := referrers.Page(list, referrers.MaxPage)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		next := url.Values{"last": {list[len(list)-len(rest)-1].Digest.String()}}
		if types := query["artifactType"]; len(types) > 0 {
			next["artifactType"] = types
		}
		link(header, q, "referrers/"+q.digest.String(), next)
	}
	if answer.Stale {
		header.Add("Warning", staleWarning)
	}
	return w.writeBody(r, ocispec.MediaTypeImageIndex, body)
}
