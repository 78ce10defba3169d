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

// Every request asks for what is sent as it is (W2). Some compress all the
// same; what is read here, lists, tokens, errors and manifests, is decoded then.
// Blobs never are: their digest is that of the bytes that come.

// readDecoded reads a body, decoded, of at most most bytes both ways.
func readDecoded(resp *http.Response, most int64) ([]byte, error) {
	raw, err := readAtMost(resp.Body, most)
	if err != nil || !isEncoded(resp) {
		return raw, err
	}
	return decode(resp.Header.Get("Content-Encoding"), raw, most)
}

// isEncoded says whether the bytes of a body are not those of the content.
func isEncoded(resp *http.Response) bool {
	encoding := strings.TrimSpace(resp.Header.Get("Content-Encoding"))
	return encoding != "" && !strings.EqualFold(encoding, "identity")
}

// decode undoes a content coding (RFC 9110, section 8.4.1). What says that it
// is encoded and is not is left as it is: for JSON the first byte tells.
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
		// With the wrapping of RFC 1950, as it should be, or without.
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
		err = fmt.Errorf("Content-Encoding %.40q is not known", coding)
	}
	var content []byte
	if err == nil {
		content, err = readAtMost(plain, most)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: decode the body: %w", ErrBadAnswer, err)
	}
	return content, nil
}

func readAtMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%w: over %d bytes", ErrBadAnswer, most)
	}
	return b, err
}
