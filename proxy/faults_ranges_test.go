package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of ranges: what a client asks for, in the fields of a
// request, and what it gets (F3, F4, F5, F38, F87).
type rangeRow struct {
	name   string
	fields http.Header
	gets   string
}

const rangedSize = 6 << 20 // the later ones are far ahead of a download that begins

func rangeRows() []rangeRow {
	ask := func(ranges ...string) http.Header { return http.Header{"Range": ranges} }
	many := func(n int) string { return "bytes=0-1" + strings.Repeat(",10-11", n-1) }
	return []rangeRow{
		{"the first bytes", ask("bytes=0-1"), "206, 1 part"},
		{"all, as a range", ask("bytes=0-"), "206, 1 part"},
		{"a later piece", ask("bytes=5242880-5242979"), "206, 1 part"},
		{"all from an offset on", ask("bytes=5242880-"), "206, 1 part"},
		{"the last bytes", ask("bytes=-51"), "206, 1 part"},
		{"several, which overlap and are in no order", ask("bytes=5000000-5000099,0-9,5-14"), "206, 3 parts"},
		{"1,024", ask(many(1024)), "206, 1024 parts"},
		{"1,025", ask(many(1025)), "400 RANGE_INVALID"},
		{"the whole, and more of it", ask("bytes=100-200,0-,50-"), "206, 1 part"},
		{"a piece, in a header of 250 KiB", ask("bytes=0-1" + strings.Repeat(",", 250<<10)), "206, 1 part"},
		{"a piece, in a header of 300 KiB", ask("bytes=0-1" + strings.Repeat(",", 300<<10)), "400 UNSUPPORTED"},
		{"what is malformed", ask("bytes=5242880-x"), "400 RANGE_INVALID"},
		{"two `Range` fields", ask("bytes=0-1", "bytes=5-6"), "400 RANGE_INVALID"},
		{"another unit than bytes", ask("pages=1-2"), "200, whole"},
		{"what lies outside", ask("bytes=6291456-"), "416 RANGE_INVALID"},
		{"the last no bytes", ask("bytes=-0"), "416 RANGE_INVALID"},
		{"a piece, with an `If-Range` of something else", http.Header{"Range": {"bytes=5242880-"}, "If-Range": {`"else"`}}, "200, whole"},
	}
}

// rangeFaults holds what clients get for ranges, however the blob is to be had.
func rangeFaults(t *testing.T) string {
	content := upstreamtest.Bytes(11, rangedSize)
	upstreams := map[string]*upstreamtest.Registry{}
	path := ""
	for name, fault := range map[string]upstreamtest.Fault{
		"kept":           upstreamtest.Combine(),
		"cold":           upstreamtest.Combine(),
		"without a size": upstreamtest.Chunked(),
		"without ranges": upstreamtest.NoRange(nil),
		"without both":   upstreamtest.Combine(upstreamtest.NoRange(nil), upstreamtest.Chunked()),
	} {
		upstreams[name] = upstreamtest.New(t)
		_, manifest := upstreams[name].AddImage("app", "1", content)
		upstreams[name].Always("GET blobs", fault)
		path = "/v2/app/blobs/" + manifest.Layers[0].Digest.String()
	}
	kept := newMirror(t, upstreams["kept"], setup{})
	if a := kept.get(path); a.status != http.StatusOK || !bytes.Equal(a.body, content) {
		t.Fatalf("the whole: %d with %d bytes", a.status, len(a.body))
	}
	upstreams["kept"].Stop()
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range rangeRows() {
			lines.add(i, row.name, row.gets)
			for name, fake := range upstreams {
				t.Run(row.name+", "+name, func(t *testing.T) {
					t.Parallel()
					m := kept
					if name != "kept" {
						m = newMirror(t, fake, setup{})
					}
					if got := rangesSeen(m.do(http.MethodGet, path, row.fields), content); got != row.gets {
						t.Errorf("the client gets %q, want %q", got, row.gets)
					}
				})
			}
		}
	})
	return "## Ranges of a blob\n\nThe same whether the blob is kept or not, and whether its upstream tells the size, has ranges, or neither. " +
		"A range that an upstream can't send comes once the download has got there, and without a size once all of it has. " +
		"Nobody gets the whole who may take it for a piece.\n\n" + lines.table("a client asks for", "the client gets")
}

// rangesSeen is what a client sees of ranges of content.
func rangesSeen(a errorResponse, content []byte) string {
	one := func(where string, body []byte) bool {
		var first, last, size int
		if _, err := fmt.Sscanf(where, "bytes %d-%d/%d", &first, &last, &size); err != nil {
			return false
		}
		return size == len(content) && bytes.Equal(body, content[first:last+1])
	}
	switch {
	case a.broken != nil:
		return fmt.Sprintf("%d, then %v", a.status, a.broken)
	case a.status == http.StatusOK && bytes.Equal(a.body, content):
		return sound
	case a.status != http.StatusPartialContent:
		return fmt.Sprintf("%d %s", a.status, a.code)
	case one(a.header.Get("Content-Range"), a.body):
		return "206, 1 part"
	}
	mediaType, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		return fmt.Sprintf("206 of %s with %d other bytes", mediaType, len(a.body))
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("206, %d parts", n)
		}
		if err != nil {
			return fmt.Sprintf("206, and %v before part %d", err, n+1)
		}
		body, err := io.ReadAll(part)
		if err != nil || !one(part.Header.Get("Content-Range"), body) {
			return fmt.Sprintf("206, and part %d has other bytes", n+1)
		}
	}
}
