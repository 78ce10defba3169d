package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
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
// each have at most most bytes.
func readDecoded(resp *http.Response, most int64) ([]byte, error) {
	raw, err := readAtMost(resp.Body, most)
	if err != nil || !isEncoded(resp) {
		return raw, err
	}
	return decode(resp.Header.Get("Content-Encoding"), raw, most)
}

// isEncoded reports whether a body has a content coding.
func isEncoded(resp *http.Response) bool {
	encoding := strings.TrimSpace(resp.Header.Get("Content-Encoding"))
	return encoding != "" && !strings.EqualFold(encoding, "identity")
}

// decode removes a content coding (RFC 9110, section 8.4.1). A body that has
// none despite its header is returned unchanged: JSON is recognized by its
// first byte.
func decode(coding string, raw []byte, most int64) ([]byte, error) {
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] == '{' || trimmed[0] == '[' {
		return raw, nil
	}
	var plain io.Reader
	var err error
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
	var content []byte
	if err == nil {
		content, err = readAtMost(plain, most)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: decode the body: %w", ErrInvalidResponse, err)
	}
	return content, nil
}

func readAtMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%w: more than %d bytes", errTooLarge, most)
	}
	return b, err
}

var errTooLarge = fmt.Errorf("%w: too large", ErrInvalidResponse)
