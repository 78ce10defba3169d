package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func packed(t testing.TB, coding string, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "raw deflate":
		w, err = flate.NewWriter(&out, -1)
	case "zstd":
		w, err = zstd.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decodeAll(coding string, raw []byte, most int64) ([]byte, error) {
	content, done, err := decode(coding, raw, most, (&Remote{}).reading(context.Background(), most))
	done()
	return content, err
}

func TestDecode(t *testing.T) {
	content := []byte(`{"schemaVersion":2}`)
	for coding, header := range map[string]string{"gzip": "gzip", "x-gzip": "X-Gzip", "deflate": "deflate", "raw deflate": "deflate", "zstd": "zstd"} {
		if got, err := decodeAll(header, packed(t, coding, content), 1<<20); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %q, %v", coding, got, err)
		}
		bomb := packed(t, coding, make([]byte, 64<<20))
		if got, err := decodeAll(header, bomb, 1<<20); !errors.Is(err, ErrInvalidResponse) {
			t.Errorf("%s, 64 MiB of it: %d bytes, %v", coding, len(got), err)
		}
	}
	// Some say that it is encoded, and it is not.
	if got, err := decodeAll("gzip", content, 1<<20); err != nil || !bytes.Equal(got, content) {
		t.Errorf("as it is: %q, %v", got, err)
	}
	for _, coding := range []string{"br", "gzip, gzip", "gzip"} {
		if got, err := decodeAll(coding, []byte("\x01junk"), 1<<20); !errors.Is(err, ErrInvalidResponse) {
			t.Errorf("%s: %q, %v", coding, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		f.Add(coding, packed(f, coding, []byte("{}")))
	}
	f.Fuzz(func(t *testing.T, coding string, raw []byte) {
		const most = 1 << 20
		if got, err := decodeAll(coding, raw, most); err == nil && len(got) > max(most, len(raw)) {
			t.Errorf("%d bytes", len(got))
		}
	})
}
