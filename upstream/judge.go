package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// statusError is an answer that is no success, with what it means.
type statusError struct {
	said
	meaning error
	text    string
}

func (e *statusError) Error() string { return fmt.Sprintf("%v: %s", e.meaning, e.text) }
func (e *statusError) Unwrap() error { return e.meaning }

// unwellError says that the host itself is unwell, not what was asked for.
type unwellError struct{ err error }

func (e *unwellError) Error() string { return e.err.Error() }
func (e *unwellError) Unwrap() error { return e.err }

func unwell(err error) error { return &unwellError{err} }

// failingError is a 500: the repository's or the host's trouble, which only
// several repositories can tell apart.
type failingError struct {
	repo string
	err  error
}

func (e *failingError) Error() string { return e.err.Error() }
func (e *failingError) Unwrap() error { return e.err }

// blame makes an error about a host that the registry leads to an error about
// what the registry leads to.
func (h *host) blame(ctx context.Context, err error) error {
	var limited *RateLimitedError
	if h.home || ctx.Err() != nil || errors.As(err, &limited) || errors.Is(err, ErrElsewhere) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrElsewhere, onlyUnavailable(err))
}

// onlyUnavailable keeps an error's meaning where that is a kind of
// ErrUnavailable, and only its words where it is not.
func onlyUnavailable(err error) error {
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrBadAnswer) {
		return err
	}
	return errors.New(err.Error())
}

// judge turns a status into an answer or an error: the one place that does.
//
// Only the registry speaks for the registry: itself, or another registry that
// it leads to, in a registry's form (W45). Of everybody else a failure says
// that nothing is known.
func (h *host) judge(ctx context.Context, a ask, at *url.URL, resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	s := listen(resp)
	e := &statusError{s, h.meaning(ctx, a, s), fmt.Sprintf("%s answered %s", h.r.opts.Name, s)}
	api := strings.Contains(at.Path, "/v2/") // else it was led to a site or a storage, of its own host perhaps
	if !h.home && (s.form != formRegistry || !api || !definite(e)) || h.home && !api && definite(e) {
		e.meaning, e.text = ErrElsewhere, fmt.Sprintf("%s answered %s", h.url.Host, s)
		return nil, e
	}
	if errors.Is(e.meaning, ErrDenied) {
		e.text += h.unarmed()
	}
	if s.status == http.StatusTooManyRequests {
		e.meaning = &RateLimitedError{RetryAfter: retryAfter(resp)}
	}
	switch {
	case !h.home:
	case s.status == http.StatusBadGateway, s.status == http.StatusServiceUnavailable, s.status == http.StatusGatewayTimeout:
		return nil, unwell(e)
	case s.status == http.StatusInternalServerError:
		return nil, &failingError{a.repo, e}
	}
	return nil, e
}

// definite says that an error is the registry's word about what was asked.
func definite(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDenied) || errors.Is(err, ErrUnsupported)
}

// meaning is what a status that is no success means, in whose words it comes.
func (h *host) meaning(ctx context.Context, a ask, s said) error {
	switch s.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		return ErrUnavailable
	}
	switch {
	case s.status >= http.StatusInternalServerError && s.status != http.StatusNotImplemented:
		return ErrUnavailable
	case s.form == formPage:
		return ErrBadAnswer
	}
	switch s.status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusUnavailableForLegalReasons:
		if s.form == formText {
			return ErrBadAnswer
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
		case s.form == formRegistry, a.method == http.MethodHead, h.home && h.r.vouches(ctx, a.repo):
			return ErrNotFound
		}
	}
	if s.form == formRegistry && s.status >= http.StatusBadRequest && s.status < http.StatusInternalServerError && s.status != http.StatusProxyAuthRequired {
		return &RefusedError{Status: s.status, Code: s.code}
	}
	return ErrBadAnswer
}
