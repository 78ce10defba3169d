package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Every request asks for an identity encoding (W2), but some servers compress
// anyway. The lists, tokens, errors and manifests that are parsed here are
// decoded then. Blobs never are: their digest is that of the bytes received.

// readDecoded reads and decodes a body. The encoded and the decoded body may
// each have at most most bytes. The caller calls done when it has read what is in
// it, also after an error.
func (r *Remote) readDecoded(resp *http.Response, most int64) (content []byte, done func(), err error) {
	read := r.reading(resp.Request.Context(), most)
	raw, doneRaw, err := read(resp.Body, resp.ContentLength)
	if err != nil || !isEncoded(resp) {
		return raw, doneRaw, err
	}
	content, doneDecoded, err := decode(resp.Header.Get("Content-Encoding"), raw, most, read)
	return content, func() { doneRaw(); doneDecoded() }, err
}

// isEncoded reports whether a body has a content coding.
func isEncoded(resp *http.Response) bool {
	encoding := strings.TrimSpace(resp.Header.Get("Content-Encoding"))
	return encoding != "" && !strings.EqualFold(encoding, "identity")
}

// decode removes a content coding (RFC 9110, section 8.4.1). A body that has
// none despite its header is returned unchanged: JSON is recognized by its
// first byte.
func decode(coding string, raw []byte, most int64, read reading) (content []byte, done func(), err error) {
	done = func() {}
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] == '{' || trimmed[0] == '[' {
		return raw, done, nil
	}
	var plain io.Reader
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "gzip", "x-gzip":
		plain, err = gzip.NewReader(bytes.NewReader(raw))
	case "deflate":
		// With the header of RFC 1950, as it should be, or without.
		if plain, err = zlib.NewReader(bytes.NewReader(raw)); err != nil {
			plain, err = flate.NewReader(bytes.NewReader(raw)), nil
		}
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderMaxMemory(uint64(most)), zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			plain = z
		}
	default:
		err = fmt.Errorf("Content-Encoding %.40q is not supported", coding)
	}
	if err == nil {
		content, done, err = read(plain, -1)
	}
	if err != nil && !errors.Is(err, ErrCrowded) {
		err = fmt.Errorf("%w: decode the body: %w", ErrInvalidResponse, err)
	}
	return content, done, err
}

// reading reads a body of size bytes, or of unknown size if that is -1.
type reading func(body io.Reader, size int64) (content []byte, done func(), err error)

// reading reads bodies of at most most bytes within the room that there is.
func (r *Remote) reading(ctx context.Context, most int64) reading {
	return func(body io.Reader, size int64) ([]byte, func(), error) {
		content, done, err := r.opts.Room.Read(ctx, r.opts.Name, body, size, most+1)
		if err == nil && int64(len(content)) > most {
			err = fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
		}
		return content, done, err
	}
}

var errTooLarge = fmt.Errorf("%w: too large", ErrInvalidResponse)
