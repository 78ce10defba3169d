package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

// span is the bytes of a blob from one up to another, which is not part of it.
type span struct{ from, to int64 }

func (s span) len() int64 { return s.to - s.from }

func (s span) String() string { return fmt.Sprintf("%d-%d", s.from, s.to-1) }

// rangesOf is the value of a request's Range.
func rangesOf(spans ...span) string {
	texts := make([]string, len(spans))
	for i, s := range spans {
		texts[i] = s.String()
	}
	return "bytes=" + strings.Join(texts, ",")
}

// pieceReader asks a registry for a blob as one node does. Each byte that comes is
// held against what was pushed.
type pieceReader struct {
	client *http.Client
	host   string
	blob   *knownBlob
	read   *atomic.Int64 // bytes that came
}

func newPieceReader(host string, blob *knownBlob) *pieceReader {
	return &pieceReader{&http.Client{Transport: &http.Transport{}}, host, blob, new(atomic.Int64)}
}

func (r *pieceReader) leave() { r.client.CloseIdleConnections() }

func (r *pieceReader) ask(ctx context.Context, method, path, ranges string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.host+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json")
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	return r.client.Do(req)
}

// errStatus is an answer that brings nothing of the blob.
type errStatus struct {
	asked  string
	status int
	body   string
}

func (e *errStatus) Error() string {
	return fmt.Sprintf("%s is answered with %d: %s", e.asked, e.status, e.body)
}

func notWanted(asked string, resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 400)) // The status says enough.
	return &errStatus{shortened(asked), resp.StatusCode, strings.TrimSpace(string(body))}
}

// manifest asks for the tag, which names the blob.
func (r *pieceReader) manifest(ctx context.Context) error {
	resp, err := r.ask(ctx, http.MethodGet, r.blob.manifest(), "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return notWanted("the manifest", resp)
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), r.blob.digest) {
		err = fmt.Errorf("the manifest does not name %s: %s", r.blob.digest, body)
	}
	return err
}

// head asks how long the blob is, and whether ranges of it can be had.
func (r *pieceReader) head(ctx context.Context) error {
	resp, err := r.ask(ctx, http.MethodHead, r.blob.path(), "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != r.blob.size() {
		return fmt.Errorf("HEAD is answered with %s and %d bytes, want %d", resp.Status, resp.ContentLength, r.blob.size())
	}
	if got := resp.Header.Get("Accept-Ranges"); got != "bytes" {
		return fmt.Errorf("HEAD is answered with Accept-Ranges %q, want bytes", got)
	}
	return nil
}

// whole reads all.
func (r *pieceReader) whole(ctx context.Context) error {
	resp, err := r.ask(ctx, http.MethodGet, r.blob.path(), "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return notWanted("the whole", resp)
	}
	return r.same(resp.Body, span{0, r.blob.size()})
}

// header asks for the whole and leaves with the header.
func (r *pieceReader) header(ctx context.Context) error {
	resp, err := r.ask(ctx, http.MethodGet, r.blob.path(), "")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != r.blob.size() {
		return fmt.Errorf("GET is answered with %s and %d bytes, want %d", resp.Status, resp.ContentLength, r.blob.size())
	}
	return nil
}

// from reads what is left from an offset.
func (r *pieceReader) from(ctx context.Context, offset int64) error {
	_, err := r.answered(ctx, "bytes="+strconv.FormatInt(offset, 10)+"-", span{offset, r.blob.size()})
	return err
}

// spans reads one range or several, in one request, and says what it was told of
// ranges.
func (r *pieceReader) spans(ctx context.Context, spans ...span) (acceptRanges string, err error) {
	return r.answered(ctx, rangesOf(spans...), spans...)
}

func (r *pieceReader) answered(ctx context.Context, ranges string, want ...span) (acceptRanges string, err error) {
	resp, err := r.ask(ctx, http.MethodGet, r.blob.path(), ranges)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return resp.Header.Get("Accept-Ranges"), notWanted(ranges, resp)
	}
	if len(want) == 1 {
		err = r.part(resp.Header.Get("Content-Range"), resp.Body, want[0])
	} else {
		err = r.parts(resp, want)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", shortened(ranges), err)
	}
	return resp.Header.Get("Accept-Ranges"), err
}

// parts reads an answer with several ranges. It has one part for each that was
// asked for, in their order: containers/image takes them so (F4).
func (r *pieceReader) parts(resp *http.Response, want []span) error {
	mediaType, parameters, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		return fmt.Errorf("several ranges are answered as %q", resp.Header.Get("Content-Type"))
	}
	all := multipart.NewReader(resp.Body, parameters["boundary"])
	for _, one := range want {
		part, err := all.NextRawPart()
		if err != nil {
			return fmt.Errorf("before the part %s: %w", one, err)
		}
		if err := r.part(part.Header.Get("Content-Range"), part, one); err != nil {
			return err
		}
	}
	if _, err := all.NextRawPart(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last part: %w", err)
	}
	return nil
}

func (r *pieceReader) part(contentRange string, body io.Reader, want span) error {
	if wanted := fmt.Sprintf("bytes %s/%d", want, r.blob.size()); contentRange != wanted {
		return fmt.Errorf("the answer's Content-Range is %q, want %q", contentRange, wanted)
	}
	return r.same(body, want)
}

// same reads a body to its end and holds it against what was pushed.
func (r *pieceReader) same(body io.Reader, want span) error {
	buffer := make([]byte, 256<<10)
	for off := want.from; ; {
		n, err := body.Read(buffer)
		if int64(n) > want.to-off {
			return fmt.Errorf("%s has more bytes than that", want)
		}
		if !bytes.Equal(buffer[:n], r.blob.content[off:off+int64(n)]) {
			return fmt.Errorf("between %d and %d the bytes are not those that were pushed", off, off+int64(n))
		}
		off += int64(n)
		r.read.Add(int64(n))
		if errors.Is(err, io.EOF) && off == want.to {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes of %s: %w", off-want.from, want.len(), want, err)
		}
	}
}
