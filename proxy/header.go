package proxy

import (
	"fmt"
	"net/http"
	"strings"
)

// The largest headers, in bytes. Range is the one field that clients are known
// to fill: after some thousand reads stargz-snapshotter asks for all that is
// missing in 47 KB (F5).
const (
	// maxHeader is the largest header that is read at all. net/http refuses a
	// larger one with 431, which clients do not understand, before there is a
	// route. So it is far above what is accepted.
	maxHeader     = 1 << 20
	maxBlobHeader = 256 << 10
	// maxOtherHeader is for the other kinds, and for the first line of all.
	maxOtherHeader = 16 << 10
)

// checkHeader refuses a request whose header is too large for its kind. A 400
// makes clients that ask for many ranges at once ask for fewer (F4, F5).
func checkHeader(size int, k kind) error {
	limit := maxOtherHeader
	if k == kindBlob {
		limit = maxBlobHeader
	}
	if size > limit {
		return refuse(http.StatusBadRequest, codeUnsupported, fmt.Sprintf("the request's header has %d bytes, and %d are allowed here", size, limit))
	}
	return nil
}

// headerSize is the length of a request's header in bytes, as HTTP/1.1 writes
// it. That is what net/http counts, but for spaces that mean nothing.
func headerSize(r *http.Request) int {
	const around = len(": \r\n")
	size := firstLineSize(r) + len("Host") + len(r.Host) + around + len("\r\n")
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + around
		}
	}
	return size
}

func firstLineSize(r *http.Request) int {
	return len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("  \r\n")
}

// forgetHeader drops the fields of a large header, but for the user agent, which
// is logged. A blob takes hours where a link is slow, and thousands of requests
// would hold a quarter of a megabyte each for so long.
func (w *response) forgetHeader(r *http.Request) {
	if w.headerSize <= maxOtherHeader {
		return
	}
	r.Header = http.Header{"User-Agent": {strings.Clone(truncate(r.UserAgent(), maxLoggedAgent))}}
}
