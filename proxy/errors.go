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
	// Not in the specification: two of distribution's, and two for a mirror
	// that cannot find out.
	codeRange       = "RANGE_INVALID"
	codeUnavailable = "UNAVAILABLE"
	codeUnknown     = "UNKNOWN"
)

// refusal is the error of a request that is answered without asking the cache
// or an upstream.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, code, message string) error { return &refusal{status, code, message} }

var (
	errForwardProxy     = refuse(http.StatusBadRequest, codeUnsupported, "this is not a forward proxy: request a path")
	errBody             = refuse(http.StatusBadRequest, codeUnsupported, "the request must not have a body")
	errFirstLine        = refuse(http.StatusBadRequest, codeUnsupported, fmt.Sprintf("the request's first line has more than %d bytes", maxOtherHeader))
	errQuery            = refuse(http.StatusBadRequest, codeUnsupported, "the query is malformed")
	errReadOnly         = refuse(http.StatusMethodNotAllowed, codeUnsupported, "this is a read-only mirror: push to the upstream, and delete there")
	errTooManyBlobs     = refuse(http.StatusServiceUnavailable, codeUnavailable, "the mirror is already sending as many blobs as it can: try again later, or raise its limit of open files")
	errPartialReferrers = refuse(http.StatusServiceUnavailable, codeUnavailable, "not every source of referrers could be reached, and the others list none of this type")
	errUpload           = refuse(http.StatusNotFound, codeUploadUnknown, "this is a read-only mirror: it does not accept uploads")
	errUnknownEndpoint  = refuse(http.StatusNotFound, codeUnsupported, "the distribution-spec has no such endpoint")
	// W7: the conformance suite requests such a name and expects 404.
	errInvalidTag = refuse(http.StatusNotFound, codeManifestUnknown, "this is not a valid tag")
)

// errorResponse is what a client sees of an error.
type errorResponse struct {
	status  int
	code    string
	message string
}

// errorResponseFor is the one table that maps errors to responses.
func errorResponseFor(err error, q route) errorResponse {
	var refused *refusal
	var limited *upstream.RateLimitedError
	var refusedUpstream *upstream.RefusedError
	name := q.repo.Upstream
	switch {
	case errors.As(err, &refused):
		return errorResponse{refused.status, refused.code, refused.message}
	case errors.Is(err, pull.ErrForbidden):
		return errorResponse{http.StatusForbidden, codeDenied, fmt.Sprintf("%v: see allow and deny of %s", err, name)}
	case errors.Is(err, upstream.ErrDenied):
		return errorResponse{http.StatusForbidden, codeDenied, fmt.Sprintf("%v: if the repository exists, the mirror needs credentials of %s that may read it", err, name)}
	case errors.As(err, &limited):
		return errorResponse{http.StatusTooManyRequests, codeTooMany, fmt.Sprintf("%v: retry after the time in Retry-After; with credentials of %s the mirror may have a higher limit", err, name)}
	case errors.As(err, &refusedUpstream) && q.kind != kindReferrers:
		// The upstream refuses this request for a reason of its own. A client
		// that gets the same response behaves as it would without a mirror.
		// Referrers are the exception: some clients take every status but one
		// for "there are none".
		return errorResponse{refusedUpstream.Status, cmp.Or(refusedUpstream.Code, codeUnsupported), fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, pull.ErrOfflineUnknown):
		return errorResponse{http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf("%v: this mirror may not ask %s", err, name)}
	case errors.Is(err, pull.ErrOffline) && q.kind != kindReferrers:
		return errorResponse{http.StatusNotFound, notFoundCode(q), fmt.Sprintf("%v: this mirror may not ask %s", err, name)}
	case errors.Is(err, upstream.ErrCrowded):
		return errorResponse{http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf("%s: %v", name, upstream.ErrCrowded)}
	case q.kind == kindReferrers && errors.Is(err, upstream.ErrUnavailable):
		return errorResponse{http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf("%s: the referrers of this manifest are unknown; there may be some: %v", name, err)}
	case errors.Is(err, upstream.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return errorResponse{http.StatusGatewayTimeout, codeUnavailable, fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, upstream.ErrUnavailable):
		return errorResponse{http.StatusBadGateway, codeUnavailable, fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, upstream.ErrNameUnknown):
		return errorResponse{http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%s: %v", name, err)} // W54: only if the upstream said so
	case errors.Is(err, upstream.ErrNotFound):
		return errorResponse{http.StatusNotFound, notFoundCode(q), fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, upstream.ErrUnsupported) && q.kind == kindTags:
		// Not 404: the repository may exist even if its tags can't be listed.
		return errorResponse{http.StatusMethodNotAllowed, codeUnsupported, fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, upstream.ErrUnsupported):
		return errorResponse{http.StatusNotFound, codeUnsupported, fmt.Sprintf("%s: %v", name, err)}
	case errors.Is(err, context.Canceled):
		// Either the client has disconnected and nobody reads this, or the
		// mirror is stopping.
		return errorResponse{http.StatusServiceUnavailable, codeUnavailable, "the mirror is stopping"}
	}
	// An internal error. Its message may contain paths, which are not for
	// clients.
	return errorResponse{http.StatusInternalServerError, codeUnknown, "internal error; the mirror's log has the details"}
}

// notFoundCode is the code of a 404. Runtimes go on to their next host on it,
// but not on NAME_UNKNOWN (F7), which is said only if the upstream has said so.
func notFoundCode(q route) string {
	switch q.kind {
	case kindBlob:
		return codeBlobUnknown
	case kindTags:
		return codeNameUnknown // a repository has a list, even an empty one
	}
	return codeManifestUnknown
}

type errorList struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
}

// writeError responds with an error as JSON (W6). Nothing must have been sent
// before.
func writeError(w *response, r *http.Request, err error, q route) {
	a := errorResponseFor(err, q)
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
	if errors.Is(err, upstream.ErrCrowded) {
		header.Set("Retry-After", "5")
	}
	var warned *pull.WarnedError
	if errors.As(err, &warned) {
		header.Set("Warning", `299 - "`+warned.Warning+`"`)
	}
	var stale *pull.StaleError
	var dated *pull.DatedError
	switch {
	case errors.As(err, &stale):
		header.Add("Warning", staleWarning)
	case errors.As(err, &dated):
		setAge(header, dated.At)
	}
	if a.status == http.StatusMethodNotAllowed {
		header.Set("Allow", "GET, HEAD")
	}
	if w.unreadBody && r.ProtoMajor == 1 {
		// The body is never read, so no request can follow it on this
		// connection. With HTTP/2 it only concerns its own stream.
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
		_, _ = w.Write(body) // if the client has disconnected, the log still has the error
	}
}

// abortedError is a failure after the headers were sent. The connection has to
// be broken, so that no client takes what it received for the whole (W22).
type abortedError struct{ err error }

func abort(err error) error           { return &abortedError{err} }
func (b *abortedError) Error() string { return b.err.Error() }
func (b *abortedError) Unwrap() error { return b.err }

func isAborted(err error) bool {
	if err == nil {
		return false // and nothing is allocated
	}
	var b *abortedError
	return errors.As(err, &b)
}
