package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// most is how much of a body that has no end may be read, by kind of request, in
// bytes. What lies on its way to a reader comes to that.
func most(kind string) int {
	switch kind {
	case "manifests":
		return 8 << 20
	case "token":
		return 256 << 10
	}
	return 64 << 20 // of all pages of a list
}

// endless is a body that begins like one that is wanted, and does not end. Now
// and then it takes its time.
func (o *odd) endless(kind string) upstreamtest.Fault {
	beginning := oneOf(o, `{"tags":["`, `{"token":"`, `{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":[`, `{"layers":[`, `{"errors":[`, "", "<html>")
	piece := oneOf(o, "x", "{},", `"tag",`, " ", "[")
	status, mediaType := oneOf(o, 200, 200, 200, 404, 401, 500), oneOf(o, "application/json", o.mediaType())
	var pause time.Duration
	if o.IntN(3) == 0 {
		pause = 10 * time.Second
	}
	more := []byte(strings.Repeat(piece, 64<<10/len(piece)))
	return func(_ *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, _ upstreamtest.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		if req.Method == http.MethodHead {
			return
		}
		written, err := w.Write([]byte(beginning))
		for err == nil && written <= most(kind)+1<<20 {
			var n int
			n, err = w.Write(more)
			written += n
			if pause > 0 {
				select {
				case <-time.After(pause):
				case <-req.Context().Done():
					return
				}
			}
		}
		if err == nil {
			o.t.Errorf("%s %.200s: %d bytes were read of a body without an end", req.Method, req.URL, written)
			panic(http.ErrAbortHandler)
		}
	}
}

// zeros is 16 MiB of them, in 16 KiB.
var zeros = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(make([]byte, 16<<20))
	_ = z.Close()
	return b.Bytes()
})

// bomb is a small body, and a large one once it is decoded.
func (o *odd) bomb() upstreamtest.Fault {
	body := bytes.Repeat(zeros(), oneOf(o, 8, 16, 256))
	status, mediaType := oneOf(o, 200, 200, 200, 404, 401), oneOf(o, "application/json", ocispec.MediaTypeImageManifest, o.mediaType())
	return upstreamtest.Edited(func(a *upstreamtest.Answer, _ upstreamtest.Request) {
		a.Status, a.Body = status, body
		a.Header.Set("Content-Type", mediaType)
		a.Header.Set("Content-Encoding", "gzip")
	})
}

// pages is a page of a list of which there is always another one, which is new,
// or has been there.
func (o *odd) pages() upstreamtest.Fault {
	isNew, entries := o.IntN(2) == 0, o.index()
	return func(_ *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		next := o.paged.Add(1)
		if !isNew {
			next %= 3
		}
		w.Header().Set("Link", "<"+req.URL.Path+"?x="+strconv.FormatInt(next, 10)+`>; rel="next"`)
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		if q.Kind == "tags" {
			entries = `{"name":"x","tags":["` + strconv.FormatInt(next, 10) + `"]}`
		}
		_, _ = w.Write([]byte(entries))
	}
}

// headers are more, or larger ones than anybody needs.
func (o *odd) headers() upstreamtest.Fault {
	n, size := oneOf(o, 1, 100, 5000), oneOf(o, 10, 5000)
	return upstreamtest.Edited(func(a *upstreamtest.Answer, _ upstreamtest.Request) {
		for i := range n {
			a.Header.Set(fmt.Sprint("X-Odd-", i), strings.Repeat("x", size))
		}
	})
}
