package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// The codes of distribution-spec, "Error Codes".
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDenied          = "DENIED"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeTooMany         = "TOOMANYREQUESTS"
	codeUnsupported     = "UNSUPPORTED"
	codeUploadUnknown   = "BLOB_UPLOAD_UNKNOWN"
	// Not of the specification: distribution's, and those of a mirror that
	// cannot know.
	codePagination  = "PAGINATION_NUMBER_INVALID"
	codeRange       = "RANGE_INVALID"
	codeUnavailable = "UNAVAILABLE"
	codeUnknown     = "UNKNOWN"
)

// refusal is a request that is answered without asking anybody.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, code, message string) error { return &refusal{status, code, message} }

var (
	errNoForwarding = refuse(http.StatusBadRequest, codeUnsupported, "this is no forward proxy: ask for a path")
	errBody         = refuse(http.StatusBadRequest, codeUnsupported, "a request without a body is expected")
	errQuery        = refuse(http.StatusBadRequest, codeUnsupported, "the query cannot be read")
	errReadOnly     = refuse(http.StatusMethodNotAllowed, codeUnsupported, "this is a read-only mirror: push to, and delete from, the upstream itself")
	errManyBlobs    = refuse(http.StatusServiceUnavailable, codeUnavailable, "the mirror sends as many blobs as it can: try again, or give it more open files")
	errPartial      = refuse(http.StatusServiceUnavailable, codeUnavailable, "not all that knows of referrers could be asked, and what could lists none of that type")
	errNoUpload     = refuse(http.StatusNotFound, codeUploadUnknown, "this is a read-only mirror: it takes no uploads")
	errNoRoute      = refuse(http.StatusNotFound, codeUnsupported, "the distribution-spec has no such endpoint")
	// W7: the conformance suite asks for such a name and wants a 404.
	errNoSuchTag = refuse(http.StatusNotFound, codeManifestUnknown, "no tag can have such a name")
)

// answer is how a failure looks to a client.
type answer struct {
	status  int
	code    string
	message string
}

// answerTo is the one table from an error to an answer.
func answerTo(err error, q route) answer {
	var refused *refusal
	var limited *upstream.RateLimitedError
	var said *upstream.RefusedError
	from := q.repo.Upstream
	switch {
	case errors.As(err, &refused):
		return answer{refused.status, refused.code, refused.message}
	case errors.Is(err, pull.ErrForbidden):
		return answer{http.StatusForbidden, codeDenied, fmt.Sprintf("%v: see allow and deny of %s", err, from)}
	case errors.Is(err, upstream.ErrDenied):
		return answer{http.StatusForbidden, codeDenied, fmt.Sprintf("%v: where the repository exists, the mirror needs credentials of %s that may read it", err, from)}
	case errors.As(err, &limited):
		return answer{http.StatusTooManyRequests, codeTooMany, fmt.Sprintf("%v: %s answers again after Retry-After; the mirror may have a higher limit with credentials", err, from)}
	case errors.As(err, &said) && q.kind != kindReferrers:
		// Whatever it is about, it is about this question: a client that is told
		// the same does as it would without a mirror. (Never on the API's route,
		// where some take every status but one for "none".)
		return answer{said.Status, cmp.Or(said.Code, codeUnsupported), fmt.Sprintf("%s: %v", from, err)}
	case q.kind == kindReferrers && errors.Is(err, upstream.ErrUnavailable):
		return answer{http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf("%s: what refers to this manifest could not be found out, which is not to say that nothing does: %v", from, err)}
	case errors.Is(err, pull.ErrOffline):
		return answer{http.StatusGatewayTimeout, codeUnavailable, err.Error()}
	case errors.Is(err, upstream.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return answer{http.StatusGatewayTimeout, codeUnavailable, fmt.Sprintf("%s: %v", from, err)}
	case errors.Is(err, upstream.ErrUnavailable):
		return answer{http.StatusBadGateway, codeUnavailable, fmt.Sprintf("%s: %v", from, err)}
	case errors.Is(err, upstream.ErrNameUnknown):
		return answer{http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%s: %v", from, err)} // W54: only where the upstream said so
	case errors.Is(err, upstream.ErrNotFound):
		code := codeManifestUnknown
		if q.kind == kindBlob {
			code = codeBlobUnknown
		}
		return answer{http.StatusNotFound, code, fmt.Sprintf("%s: %v", from, err)}
	case errors.Is(err, upstream.ErrUnsupported) && q.kind == kindTags:
		// Not 404: that there is no list says nothing of the repository.
		return answer{http.StatusMethodNotAllowed, codeUnsupported, fmt.Sprintf("%s: %v", from, err)}
	case errors.Is(err, upstream.ErrUnsupported):
		return answer{http.StatusNotFound, codeUnsupported, fmt.Sprintf("%s: %v", from, err)}
	case errors.Is(err, context.Canceled):
		// Nobody reads this where the client has left; else the mirror stops.
		return answer{http.StatusServiceUnavailable, codeUnavailable, "the mirror is stopping"}
	}
	// What failed here is the mirror's own; its paths are not for clients.
	return answer{http.StatusInternalServerError, codeUnknown, "the mirror failed; its log says how"}
}

type errorList struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
}

// writeError answers with JSON (W6). Nothing has been sent before.
func writeError(w *response, r *http.Request, err error, q route) {
	a := answerTo(err, q)
	header := w.Header()
	for name := range header {
		switch {
		case name == versionHeader, name == namespaceHeader:
		case name == "Content-Range" && a.status == http.StatusRequestedRangeNotSatisfiable:
		default:
			delete(header, name)
		}
	}
	var limited *upstream.RateLimitedError
	if errors.As(err, &limited) {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(limited.RetryAfter.Seconds()))))
	}
	var warned *pull.WarnedError
	if errors.As(err, &warned) {
		header.Set("Warning", `299 - "`+warned.Warning+`"`)
	}
	var stale *pull.StaleError
	if errors.As(err, &stale) {
		header.Add("Warning", staleWarning)
	}
	if a.status == http.StatusMethodNotAllowed {
		header.Set("Allow", "GET, HEAD")
	}
	if w.unread && r.ProtoMajor == 1 {
		// Nothing reads the body, so that nothing can follow it. Over HTTP/2 it
		// is its stream's alone.
		header.Set("Connection", "close")
	}
	body, encodeErr := json.Marshal(errorList{[]errorEntry{{Code: a.code, Message: a.message}}})
	if encodeErr != nil {
		body = []byte(`{"errors":[]}`)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // where the client has left, the log says what it was told
	}
}

// brokenError is a failure after the headers: the connection has to break, so
// that nobody takes what came for the whole (W22).
type brokenError struct{ err error }

func brokenOff(err error) error      { return &brokenError{err} }
func (b *brokenError) Error() string { return b.err.Error() }
func (b *brokenError) Unwrap() error { return b.err }

func isBroken(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}
