package proxy

import (
	"context"
	"encoding/json"
	"errors"
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
	// Not of the specification, which has none for a mirror that cannot know.
	codeUnavailable = "UNAVAILABLE"
	codeUnknown     = "UNKNOWN"
)

// statusClientGone is logged for clients that left; nobody sees it.
const statusClientGone = 499

// answerOf is the one table from an error to a status and a code.
func answerOf(err error, k kind) (status int, code string) {
	var refused *refusal
	var limited *upstream.RateLimitedError
	switch {
	case errors.As(err, &refused):
		return refused.status, refused.code
	case errors.Is(err, pull.ErrForbidden), errors.Is(err, upstream.ErrDenied):
		return http.StatusForbidden, codeDenied
	case errors.As(err, &limited):
		return http.StatusTooManyRequests, codeTooMany
	case errors.Is(err, pull.ErrOffline), errors.Is(err, upstream.ErrTimeout):
		return http.StatusGatewayTimeout, codeUnavailable
	case errors.Is(err, upstream.ErrUnavailable):
		return http.StatusBadGateway, codeUnavailable
	case errors.Is(err, upstream.ErrNameUnknown):
		return http.StatusNotFound, codeNameUnknown
	case errors.Is(err, upstream.ErrNotFound):
		if k == kindBlob {
			return http.StatusNotFound, codeBlobUnknown
		}
		return http.StatusNotFound, codeManifestUnknown
	case errors.Is(err, upstream.ErrUnsupported):
		return http.StatusNotFound, codeUnsupported
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return statusClientGone, codeUnknown
	}
	return http.StatusInternalServerError, codeUnknown
}

type errorList struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
}

// writeError answers with JSON (W6) and returns the status.
func writeError(w http.ResponseWriter, r *http.Request, err error, k kind) int {
	status, code := answerOf(err, k)
	header := w.Header()
	for name := range header {
		switch name {
		case "Date", "Oci-Namespace", versionHeader:
		default:
			header.Del(name)
		}
	}
	var limited *upstream.RateLimitedError
	if errors.As(err, &limited) {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(limited.RetryAfter.Seconds()))))
	}
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", "GET, HEAD")
	}
	body, marshalErr := json.Marshal(errorList{[]errorEntry{{Code: code, Message: err.Error()}}})
	if marshalErr != nil {
		body = []byte(`{"errors":[]}`)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have gone; the log says what it was told
	}
	return status
}
