package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

func (r *Remote) blobRequest(method, repo string, d Digest) request {
	return request{kind: "blob", method: method, repo: r.endpoint.prefix + repo, path: "blobs/" + d.String()}
}

// ResolveBlob implements Registry.
func (r *Remote) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	found, err := r.blobs.resolve(ctx, content{repo, d.String()}, func(ctx context.Context, of content) (Descriptor, error) {
		resp, err := r.do(ctx, r.blobRequest(http.MethodHead, of.repo, Digest(of.ref)))
		if err != nil {
			return Descriptor{}, err
		}
		return descriptorOf(resp, of.ref)
	}, func() (Descriptor, error) {
		first := "bytes=0-0"
		if isEmpty(d) {
			first = "" // an empty blob has no first byte
		}
		c, err := r.blob(ctx, repo, d, first, 0)
		if err != nil {
			return Descriptor{}, err
		}
		c.Body.Close()
		return Descriptor{Size: c.Size}, nil
	})
	if err != nil {
		return Descriptor{}, fmt.Errorf("resolve blob %s: %w", imageName(repo, d.String()), err)
	}
	return Descriptor{MediaType: "application/octet-stream", Digest: d, Size: found.Size}, nil
}

// Blob implements Registry.
func (r *Remote) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	var byteRange string
	switch {
	case n >= 0:
		byteRange = fmt.Sprintf("bytes=%d-%d", from, from+n-1)
	case from > 0:
		byteRange = fmt.Sprintf("bytes=%d-", from)
	}
	c, err := r.blob(ctx, repo, d, byteRange, from)
	if n < 0 && from > 0 && IsRangeRefused(err) {
		// Some only accept ranges with both ends (F34), or none: start from the
		// beginning.
		c, err = r.blob(ctx, repo, d, "", 0)
		c.Whole = true
	}
	if err != nil {
		return Content{}, fmt.Errorf("blob %s: %w", imageName(repo, d.String()), err)
	}
	return c, nil
}

// IsRangeRefused reports whether an error of a request for a range may say that
// the registry has no such range, although it has the blob.
func IsRangeRefused(err error) bool {
	var s *statusError
	return errors.As(err, &s) && (s.status == http.StatusRequestedRangeNotSatisfiable || s.status == http.StatusBadRequest)
}

func (r *Remote) blob(ctx context.Context, repo string, d Digest, byteRange string, from int64) (Content, error) {
	a := r.blobRequest(http.MethodGet, repo, d)
	a.byteRange = byteRange
	resp, err := r.do(ctx, a)
	if err != nil {
		return Content{}, err
	}
	c := contentOf(resp, d.String())
	if resp.StatusCode == http.StatusPartialContent {
		c.From, c.Size, err = parseContentRange(resp.Header.Get("Content-Range"))
		if err == nil && c.From != from {
			err = fmt.Errorf("%w: asked for bytes from %d, got %s", ErrInvalidResponse, from, resp.Header.Get("Content-Range"))
		}
	} else {
		c.Whole = byteRange != ""
	}
	if err != nil {
		resp.Body.Close()
		return Content{}, err
	}
	return c, nil
}

// parseContentRange parses "bytes 0-9/10" (RFC 9110, section 14.4). The size is
// -1 for "*".
func parseContentRange(header string) (from, size int64, err error) {
	bad := fmt.Errorf("%w: Content-Range %q", ErrInvalidResponse, header)
	rest, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return 0, 0, bad
	}
	span, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return 0, 0, bad
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size = -1
	var err3 error
	if total != "*" {
		size, err3 = strconv.ParseInt(total, 10, 64)
	}
	if errors.Join(err1, err2, err3) != nil || from < 0 || to < from || total != "*" && size <= to {
		return 0, 0, bad
	}
	return from, size, nil
}
