package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// statusError is a response with a status other than success, and its meaning.
type statusError struct {
	failedResponse
	meaning error
	text    string
}

func (e *statusError) Error() string { return fmt.Sprintf("%v: %s", e.meaning, e.text) }
func (e *statusError) Unwrap() error { return e.meaning }

// unhealthyError says that the host itself is unhealthy.
type unhealthyError struct{ err error }

func (e *unhealthyError) Error() string { return e.err.Error() }
func (e *unhealthyError) Unwrap() error { return e.err }

func unhealthy(err error) error { return &unhealthyError{err} }

// internalError is a 500. It may concern the repository or the host, and only
// failures of several repositories show which.
type internalError struct {
	repo string
	err  error
}

func (e *internalError) Error() string { return e.err.Error() }
func (e *internalError) Unwrap() error { return e.err }

// attribute marks an error of a host that the registry refers to as
// ErrThirdParty.
func (h *host) attribute(ctx context.Context, err error) error {
	var limited *RateLimitedError
	if h.home || ctx.Err() != nil || errors.As(err, &limited) || errors.Is(err, ErrThirdParty) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrThirdParty, withoutMeaning(err))
}

// withoutMeaning keeps the meaning of an error that is a kind of
// ErrUnavailable, and only the text of another.
func withoutMeaning(err error) error {
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrInvalidResponse) {
		return err
	}
	return errors.New(err.Error())
}

// checkStatus turns a status into a response or an error. No other function
// does.
//
// Only a registry's error list counts as the registry's answer, from the
// registry itself or from another one that it redirects to (W45). A failure
// from anybody else means that nothing is known.
func (h *host) checkStatus(ctx context.Context, a request, at *url.URL, resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	s := readFailure(resp)
	e := &statusError{s, h.meaning(ctx, a, s), fmt.Sprintf("%s answered %s", h.r.opts.Name, s)}
	api := strings.Contains(at.Path, "/v2/") // else it was redirected to a web site or to storage, perhaps on its own host
	if !h.home && (s.form != formRegistry || !api || !definite(e)) || h.home && !api && definite(e) {
		e.meaning, e.text = ErrThirdParty, fmt.Sprintf("%s answered %s", h.url.Host, s)
		return nil, e
	}
	if isStale(resp) && isRefusal(s.status) && !errors.Is(e.meaning, ErrDenied) {
		e.meaning = ErrStale // a mirror repeats what was true once
	}
	if errors.Is(e.meaning, ErrDenied) {
		e.text += h.missingCredentials()
	}
	if s.status == http.StatusTooManyRequests {
		e.meaning = &RateLimitedError{RetryAfter: retryAfter(resp)}
	}
	switch {
	case !h.home:
	case s.status == http.StatusBadGateway, s.status == http.StatusServiceUnavailable, s.status == http.StatusGatewayTimeout:
		return nil, unhealthy(e)
	case s.status == http.StatusInternalServerError:
		return nil, &internalError{a.repo, e}
	}
	return nil, e
}

// definite reports whether an error is the registry's answer about what was
// requested.
func definite(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDenied) || errors.Is(err, ErrUnsupported)
}

// meaning returns what a failed response means. It depends on its status and on
// who sent it.
func (h *host) meaning(ctx context.Context, a request, s failedResponse) error {
	switch s.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		return ErrUnavailable
	}
	switch {
	case s.status >= http.StatusInternalServerError && s.status != http.StatusNotImplemented:
		return ErrUnavailable
	case s.form == formPage:
		return ErrInvalidResponse
	}
	switch s.status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusUnavailableForLegalReasons:
		if s.form == formText {
			return ErrInvalidResponse
		}
		return ErrDenied
	}
	if a.kind == "referrers" {
		return h.r.referrersMeaning(a, s)
	}
	switch s.status {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		if a.kind == "tags" {
			return ErrUnsupported
		}
	case http.StatusNotFound, http.StatusGone:
		switch {
		case s.code == "NAME_UNKNOWN":
			return ErrNameUnknown
		case s.form == formRegistry, a.method == http.MethodHead, h.home && h.r.confirmsRepository(ctx, a.repo):
			return ErrNotFound
		}
	}
	if s.form == formRegistry && s.status >= http.StatusBadRequest && s.status < http.StatusInternalServerError && s.status != http.StatusProxyAuthRequired {
		return &RefusedError{Status: s.status, Code: s.code}
	}
	return ErrInvalidResponse
}
