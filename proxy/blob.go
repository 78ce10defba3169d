package proxy

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

const octetStream = "application/octet-stream"

// serveBlob serves a blob, or the requested ranges of it (distribution-spec,
// "Pulling blobs"; W4, W20).
func (s *Server) serveBlob(w *response, r *http.Request, q route) error {
	etag := `"` + q.digest.String() + `"`
	w.set("Content-Type", octetStream)
	w.set("Docker-Content-Digest", unquoted(etag))
	w.set("Accept-Ranges", "bytes")
	w.set("Etag", etag)
	// nginx puts up to a gigabyte into a file, and then reads nothing until its
	// client has had all of that.
	w.set("X-Accel-Buffering", "no")
	if has := matchesETag(r.Header, etag); has || r.Method == http.MethodHead {
		return s.describeBlob(w, r, q, has)
	}
	ranges, err := requestedRanges(r.Header, etag)
	if err != nil {
		return refuse(http.StatusBadRequest, codeRange, err.Error()) // before anything is fetched
	}
	w.forgetHeader(r)
	if !s.places.take(forBlob, r.Context().Done(), 0) {
		return errTooManyBlobs // at once, so that a runtime goes on to its next host (W33)
	}
	defer s.places.free(forBlob)
	b, err := s.puller.Blob(r.Context(), q.repo, q.digest, wantOf(ranges))
	if err != nil {
		return err
	}
	defer b.Close()
	defer func() { w.outcome = b.Outcome() }()
	size := b.Size()
	if len(ranges) > 0 {
		if size, err = waitForSize(r, b); err != nil {
			return err
		}
	}
	if len(ranges) > 0 && size > 0 {
		return writeRanges(w, r, b, ranges, size)
	}
	if size >= 0 {
		w.set("Content-Length", strconv.FormatInt(size, 10))
	}
	return writeSpan(w, r, b, http.StatusOK, span{0, -1}, size)
}

// wantOf is what a client with these ranges wants to read.
func wantOf(ranges []byteRange) pull.Want {
	toEnd := openEnded(ranges)
	if len(ranges) == 0 || toEnd && ranges[0].first == 0 {
		return pull.Want{}
	}
	parts := func(size int64) []pull.Span {
		if size < 0 {
			if slices.ContainsFunc(ranges, func(r byteRange) bool { return r.first < 0 }) {
				return nil
			}
			size = math.MaxInt64
		}
		var all []pull.Span
		for _, s := range spansOf(ranges, size) {
			all = append(all, pull.Span{From: s.off, To: s.off + s.n})
		}
		return all
	}
	return pull.Want{Parts: parts, ToEnd: toEnd}
}

// describeBlob responds without the content, and without fetching it.
func (s *Server) describeBlob(w *response, r *http.Request, q route, has bool) error {
	desc, outcome, err := s.puller.ResolveBlob(r.Context(), q.repo, q.digest)
	w.outcome = outcome
	if err != nil {
		return err
	}
	if outcome == pull.Stale {
		w.Header().Set("Warning", staleWarning)
	}
	if has {
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if desc.Size >= 0 {
		w.Header()["Content-Length"] = []string{strconv.FormatInt(desc.Size, 10)}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// writeRanges sends the ranges that are inside of a blob.
func writeRanges(w *response, r *http.Request, b pull.Blob, ranges []byteRange, size int64) error {
	header := w.Header()
	spans := spansOf(ranges, size)
	switch len(spans) {
	case 0:
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return refuse(http.StatusRequestedRangeNotSatisfiable, codeRange, fmt.Sprintf("the blob has %d bytes: the range is outside of it", size))
	case 1:
		at, length := spans[0], spans[0].n
		header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
		header["Content-Range"] = []string{contentRange(at, size)}
		if openEnded(ranges) {
			at.n = -1
		}
		return writeSpan(w, r, b, http.StatusPartialContent, at, length)
	}
	return writeSpans(w, r, b, spans, size)
}

// sizeWait is how long a client waits for the size of a blob: as long as for any
// other answer. The download goes on.
const sizeWait = 18 * time.Second

var errNoSize = fmt.Errorf("%w: the size of the blob is not known before all of it is here", upstream.ErrTimeout)

// waitForSize returns the size of a blob. If the upstream does not tell it,
// nobody knows it before the download is over.
func waitForSize(r *http.Request, b pull.Blob) (int64, error) {
	if b.Size() >= 0 {
		return b.Size(), nil
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), sizeWait, errNoSize)
	defer cancel()
	return b.WriteRange(ctx, io.Discard, 0, -1)
}

func contentRange(at span, size int64) string {
	return string(appendContentRange(nil, at, size))
}

func appendContentRange(b []byte, at span, size int64) []byte {
	b = strconv.AppendInt(append(b, "bytes "...), at.off, 10)
	b = strconv.AppendInt(append(b, '-'), at.off+at.n-1, 10)
	return strconv.AppendInt(append(b, '/'), size, 10)
}

// writeSpan sends one span of a blob, of length bytes, or -1 if that is
// unknown. The status is sent with the first bytes, so that a failure before
// them still becomes an error response.
func writeSpan(w *response, r *http.Request, b pull.Blob, status int, at span, length int64) error {
	w.pending, w.length, w.flushWrites = status, length, true
	written, err := b.WriteRange(r.Context(), w, at.off, at.n)
	if err == nil && length >= 0 && written != length {
		err = fmt.Errorf("blob %s: %d bytes of %d: %w", b.Digest(), written, length, io.ErrUnexpectedEOF)
	}
	switch {
	case err == nil:
		return w.commit() // an empty blob has not sent the status yet
	case w.status == 0:
		w.pending = 0
		return err
	}
	return abort(err)
}
