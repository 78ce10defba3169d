package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
)

// TestWhatARangeGets has a row for each rule of the table in range.go, and asks
// for each of them of a blob whose size is known and of one whose size nobody
// tells.
func TestWhatARangeGets(t *testing.T) {
	b := numbered(1000)
	etag := `"` + digest.FromBytes(b).String() + `"`
	for _, c := range []struct {
		name, condition string
		ranges          []string // fields
		status          int
		parts           []span // of a 206
	}{
		{"If-Range names other content", `"other"`, []string{"bytes=4-"}, 200, nil},
		{"If-Range names this content weakly", "W/" + etag, []string{"bytes=4-"}, 200, nil},
		{"If-Range is a time", "Wed, 21 Oct 2015 07:28:00 GMT", []string{"bytes=4-"}, 200, nil},
		{"If-Range names other content, and the range is malformed", `"other"`, []string{"bytes=x"}, 200, nil},
		{"F3: If-Range names this content", etag, []string{"bytes=4-"}, 206, []span{{4, 996}}},
		{"F87: another unit", "", []string{"pages=4-"}, 200, nil},
		{"F3: malformed", "", []string{"bytes=4-x"}, 400, nil},
		{"F3: no unit", "", []string{"4-"}, 400, nil},
		{"F3: in two fields", "", []string{"bytes=0-1", "bytes=4-5"}, 400, nil},
		{"F4, F5: too many", "", []string{strideRanges(maxRanges+1, 1, 1)}, 400, nil},
		{"F5: a larger header than there may be", "", []string{"bytes=4-5" + strings.Repeat(",", maxBlobHeader)}, 400, nil},
		{"outside", "", []string{"bytes=1000-"}, 416, nil},
		{"backwards", "", []string{"bytes=500-0"}, 416, nil},
		{"backwards, and one inside", "", []string{"bytes=500-0,600-600"}, 206, []span{{600, 1}}},
		{"all of several outside", "", []string{"bytes=1000-,2000-2001"}, 416, nil},
		{"F87: the last no bytes", "", []string{"bytes=-0"}, 416, nil},
		{"F3: the first piece", "", []string{"bytes=0-"}, 206, []span{{0, 1000}}},
		{"F3: a later piece", "", []string{"bytes=600-"}, 206, []span{{600, 400}}},
		{"one of several is inside", "", []string{"bytes=2000-,600-600"}, 206, []span{{600, 1}}},
		{"F4: several that overlap, not in order", "", []string{"bytes=600-699,0-9,650-749"}, 206, []span{{600, 100}, {0, 10}, {650, 100}}},
		{"F4: as many as there may be, one inside", "", []string{"bytes=0-9" + strings.Repeat(",1000-", maxRanges-1)}, 206, []span{{0, 10}}},
		{"F4: more than the blob", "", []string{"bytes=999-999,0-899,100-989"}, 206, []span{{999, 1}, {0, 990}}},
		{"the blob, as often as there may be", "", []string{"bytes=0-" + strings.Repeat(",0-", maxRanges-1)}, 206, []span{{0, 1000}}},
	} {
		for _, unknown := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unknown size %v", c.name, unknown), func(t *testing.T) {
				p := blobs(&content{bytes: b, unknown: unknown})
				if c.status == 400 {
					p.blob = func(pull.Repository, digest.Digest) (pull.Blob, error) {
						t.Error("the blob was asked for")
						return nil, io.EOF
					}
				}
				header := []string{"If-Range", c.condition}
				for _, field := range c.ranges {
					header = append(header, "Range", field)
				}
				if c.condition == "" {
					header = header[2:]
				}
				got := newFace(t, p).do(http.MethodGet, blobPath(b), header...)
				if got.status != c.status || got.cut != nil {
					t.Fatalf("%d %.200s, %v; want %d", got.status, got.body, got.cut, c.status)
				}
				switch c.status {
				case 200:
					if !bytes.Equal(got.body, b) {
						t.Errorf("%d bytes, or others", len(got.body))
					}
					got.wantHeader(t, "Content-Range", "")
				case 206:
					holdParts(t, got, b, c.parts)
				case 416:
					got.wantHeader(t, "Content-Range", "bytes */1000", "Content-Type", "application/json")
				case 400:
					got.wantHeader(t, "Content-Range", "", "Content-Type", "application/json", "Etag", "")
				}
			})
		}
	}
}

// holdParts holds a 206 against the parts of b that it has to have.
func holdParts(t *testing.T, got seen, b []byte, want []span) {
	t.Helper()
	if got.length != int64(len(got.body)) {
		t.Errorf("the length is %d of %d bytes", got.length, len(got.body))
	}
	if len(want) == 1 {
		got.wantHeader(t, "Content-Range", contentRange(want[0], int64(len(b))), "Content-Type", octetStream)
		if at := want[0]; !bytes.Equal(got.body, b[at.off:at.off+at.n]) {
			t.Errorf("%d bytes, or others than %v", len(got.body), at)
		}
		return
	}
	got.wantHeader(t, "Content-Range", "")
	mediaType, params, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		t.Fatalf("%s, %v", mediaType, err)
	}
	parts := multipart.NewReader(bytes.NewReader(got.body), params["boundary"])
	for _, at := range want {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatalf("before %v: %v", at, err)
		}
		sent, err := io.ReadAll(part)
		if err != nil || !bytes.Equal(sent, b[at.off:at.off+at.n]) {
			t.Fatalf("%v: %d bytes, or others: %v", at, len(sent), err)
		}
		if part.Header.Get("Content-Range") != contentRange(at, int64(len(b))) || part.Header.Get("Content-Type") != octetStream {
			t.Fatalf("%v: %v", at, part.Header)
		}
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last part: %v", err)
	}
}

func TestARangeOfAnEmptyBlobGetsNothing(t *testing.T) {
	// Some clients send bytes=0- with every request. Of an empty blob nothing
	// can be mistaken.
	for _, unknown := range []bool{false, true} {
		f := newFace(t, blobs(&content{unknown: unknown}))
		for _, header := range []string{"bytes=0-", "bytes=-1", "bytes=5-", "bytes=0-1,4-5"} {
			if got := f.do(http.MethodGet, blobPath(nil), "Range", header); got.status != http.StatusOK || len(got.body) > 0 || got.cut != nil {
				t.Errorf("%s: %d with %d bytes, %v", header, got.status, len(got.body), got.cut)
			}
		}
	}
}

func TestHeadHasNoRanges(t *testing.T) {
	b := numbered(1000)
	f := newFace(t, blobs(&content{bytes: b}))
	for _, header := range []string{"bytes=4-", "bytes=x", "bytes=1000-"} {
		got := f.do(http.MethodHead, blobPath(b), "Range", header)
		if got.status != http.StatusOK || got.length != 1000 {
			t.Errorf("%s: %d with a length of %d", header, got.status, got.length)
		}
		got.wantHeader(t, "Content-Range", "", "Accept-Ranges", "bytes")
	}
}

func TestF4F5ManyRangesOfWhatIsKeptAreOneAnswer(t *testing.T) {
	b := numbered(4 << 20)
	for name, c := range map[string]*content{"in memory": {bytes: b}, "on disk": {bytes: b, path: onDisk(t, b)}} {
		for pattern, at := range map[string]func(i int64) span{
			"holes, in order":     func(i int64) span { return span{i * 4096, 100 + i} },
			"holes, backwards":    func(i int64) span { return span{(maxRanges - 1 - i) * 4096, 100 + i} },
			"each overlaps":       func(i int64) span { return span{i * 1000, 1500} },
			"each follows":        func(i int64) span { return span{i * 1000, 1000} },
			"all over each other": func(i int64) span { return span{(i * 7919) % 4096, 2000} },
		} {
			t.Run(name+", "+pattern, func(t *testing.T) {
				var want []span
				var list strings.Builder
				for i := range int64(maxRanges) {
					s := at(i)
					want = append(want, s)
					fmt.Fprintf(&list, ",%d-%d", s.off, s.off+s.n-1)
				}
				// 47 KB and more.
				header := "bytes=" + strings.Repeat(" ", 47<<10) + list.String()[1:]
				holdParts(t, newFace(t, blobs(c)).do(http.MethodGet, blobPath(b), "Range", header), b, want)
			})
		}
	}
}

// A thousand ranges cost a list of them, and no buffers. Each part takes what a
// chunk of any blob takes.
func TestF4F5AThousandRangesTakeLittleMemory(t *testing.T) {
	c := &content{bytes: numbered(4 << 20)}
	s := New(Options{Upstreams: upstreamsForTests(), Logger: quiet(), Puller: blobs(c)})
	taken := func(n int) uint64 {
		const times = 20
		req := httptest.NewRequest(http.MethodGet, blobPath(c.bytes), nil)
		req.Header.Set("Range", strideRanges(n, 4000, 3000))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			s.ServeHTTP(nowhere{http.Header{}}, req)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / times
	}
	taken(2) // what is made once
	if few, many := taken(64), taken(maxRanges); many > 512<<10 || many > 16*few {
		t.Errorf("%d ranges take %d bytes, 64 take %d", maxRanges, many, few)
	}
}
