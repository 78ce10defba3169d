package upstream

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// ask is one question to a registry.
type ask struct {
	kind, method string
	repo, path   string
	query        url.Values
	url          *url.URL // instead of repo, path and query: a following page
	accept       string
	byteRange    string
	redirects    bool // followed, within the rules
}

// do asks, with credentials where the registry wants them, and returns an
// answer with a status of success. Everything else becomes an error.
func (r *Remote) do(ctx context.Context, a ask) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		resp, err := r.send(ctx, a)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return r.judge(a, resp)
		}
		challenges := resp.Header.Values("WWW-Authenticate")
		drop(resp)
		if attempt > 0 {
			return nil, fmt.Errorf("%w: %s does not take these credentials", ErrDenied, r.opts.Name)
		}
		if err := r.auth.learn(ctx, a.repo, challenges); err != nil {
			return nil, err
		}
	}
}

func (r *Remote) location(a ask) *url.URL {
	u := *r.base
	if a.url != nil {
		u = *r.base.ResolveReference(a.url)
		if r.opts.SendNamespace {
			q := u.Query()
			q.Set("ns", r.opts.Name)
			u.RawQuery = q.Encode()
		}
		return &u
	}
	u.Path += "/v2/" + a.repo + "/" + a.path
	q := url.Values{}
	for key, values := range a.query {
		q[key] = values
	}
	if r.opts.SendNamespace {
		q.Set("ns", r.opts.Name)
	}
	u.RawQuery = q.Encode()
	return &u
}

// send asks once, following redirects within the rules of W41.
func (r *Remote) send(ctx context.Context, a ask) (*http.Response, error) {
	at := r.location(a)
	trail := map[string]bool{}
	for hop := 0; ; hop++ {
		resp, err := r.roundTrip(ctx, a, at, hop)
		if err != nil {
			return nil, err
		}
		next := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || resp.StatusCode == http.StatusNotModified || !a.redirects {
			return resp, nil
		}
		drop(resp)
		to, err := at.Parse(next)
		switch {
		case err != nil || next == "" || to.Host == "":
			return nil, fmt.Errorf("%w: a redirect to nowhere", ErrBadAnswer)
		case to.Scheme != "https" && (to.Scheme != "http" || at.Scheme == "https"):
			return nil, fmt.Errorf("%w: a redirect from %s to %s", ErrBadAnswer, at.Scheme, to.Scheme)
		case hop == maxHops || trail[to.String()]:
			return nil, fmt.Errorf("%w: redirects in a circle, at %s", ErrBadAnswer, to.Host)
		}
		if literal, err := netip.ParseAddr(to.Hostname()); err == nil {
			if err := r.guard.permit(ctx, to.Hostname(), literal); err != nil {
				return nil, err
			}
		}
		trail[to.String()] = true
		at = to
	}
}

const maxHops = 5

func (r *Remote) roundTrip(ctx context.Context, a ask, at *url.URL, hop int) (*http.Response, error) {
	// The wait for headers is bounded by the transport, that for the body by
	// silence: the request as a whole by its caller.
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, a.method, at.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if a.accept != "" {
		req.Header.Set("Accept", a.accept)
	}
	if a.byteRange != "" {
		req.Header.Set("Range", a.byteRange)
	}
	if r.opts.UserAgent != "" {
		req.Header.Set("User-Agent", r.opts.UserAgent)
	}
	if at.Host == r.base.Host && at.Scheme == r.base.Scheme {
		if err := r.auth.authorize(ctx, req, a.repo); err != nil {
			cancel(nil)
			return nil, err
		}
	}
	began := time.Now()
	resp, err := r.client.RoundTrip(req)
	seen := Observation{Kind: a.kind, Method: a.method, Duration: time.Since(began)}
	if err != nil {
		cancel(nil)
		r.observe(seen)
		if ctxErr := req.Context().Err(); ctxErr != nil && context.Cause(ctx) != nil && errors.Is(err, ctxErr) {
			return nil, context.Cause(ctx)
		}
		return nil, r.reach(err)
	}
	seen.Status = resp.StatusCode
	seen.Limit, seen.Remaining, seen.Window = rateOf(resp)
	r.observe(seen)
	resp.Body = newBody(resp.Body, resp.ContentLength, r.opts.Waits.Silence, cancel)
	return resp, nil
}

func (r *Remote) observe(o Observation) {
	if r.opts.Observe != nil {
		r.opts.Observe(o)
	}
}

// reach gives a transport's error its meaning.
func (r *Remote) reach(err error) error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.Is(err, ErrBadAnswer):
		return err
	case errors.As(err, &cert):
		return fmt.Errorf("%w: the certificate of %s is not trusted (%w); name its authority with tls.ca_file", ErrRefused, r.base.Host, cert.Err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("%w: no such host %s", ErrRefused, dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("%w: %s: %w", ErrRefused, r.base.Host, cause(err))
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %s", ErrTimeout, r.base.Host)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, r.base.Host, cause(err))
}

// cause is an error without the URL around it, which may be signed.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// judge turns a status into an answer or an error: the one place that does.
func (r *Remote) judge(a ask, resp *http.Response) (*http.Response, error) {
	status := resp.StatusCode
	if status == http.StatusOK || status == http.StatusPartialContent {
		return resp, nil
	}
	code, message := complaint(resp)
	said := fmt.Sprintf("%s answered %d%s", r.opts.Name, status, message)
	switch {
	case status == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%s: %w", said, &RateLimitedError{RetryAfter: retryAfter(resp)})
	case status == http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s", ErrDenied, said)
	case status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, said)
	case a.kind == "referrers":
		// W55: no API for this request; where the answer is no error of the
		// specification about a name, there is none at all.
		if code == "" && status != http.StatusBadRequest {
			return nil, fmt.Errorf("%w: %s", ErrNoAPI, said)
		}
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, said)
	case status == http.StatusNotFound && code == "NAME_UNKNOWN":
		return nil, fmt.Errorf("%w: %s", ErrNameUnknown, said)
	case status == http.StatusNotFound, status == http.StatusGone:
		return nil, fmt.Errorf("%w: %s", ErrNotFound, said)
	case a.kind == "tags" || a.method == http.MethodHead && a.kind == "manifest":
		// Some have no list of tags, and some know no HEAD: a GET still tells.
		// A registry that refuses the GET of content is none.
		if status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented {
			return nil, fmt.Errorf("%w: %s", ErrUnsupported, said)
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrBadAnswer, said)
}

// complaint reads the first error of the specification out of a body.
func complaint(resp *http.Response) (code, message string) {
	defer drop(resp)
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil || json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return "", ""
	}
	text := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, answer.Errors[0].Message)
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	if text != "" {
		text = ": " + text
	}
	return answer.Errors[0].Code, text
}

// drop empties a little of a body, so that its connection can be used again.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	resp.Body.Close()
}

// retryAfter reads when to come back: at least a second, at most an hour, and
// half a minute where nothing is said.
func retryAfter(resp *http.Response) time.Duration {
	wait := 30 * time.Second
	for _, header := range []string{"Retry-After", "RateLimit-Reset", "X-Ratelimit-Reset"} {
		text := resp.Header.Get(header)
		if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
			wait = time.Duration(seconds) * time.Second
			break
		}
		if at, err := http.ParseTime(text); err == nil {
			wait = time.Until(at)
			break
		}
	}
	return min(max(wait, time.Second), time.Hour)
}

// rateOf reads "RateLimit-Remaining: 76;w=21600" (W42).
func rateOf(resp *http.Response) (limit, remaining int, window time.Duration) {
	limit, window, ok := rate(resp.Header.Get("RateLimit-Limit"))
	if !ok {
		return 0, 0, 0
	}
	remaining, w, ok := rate(resp.Header.Get("RateLimit-Remaining"))
	if !ok {
		return 0, 0, 0
	}
	return limit, remaining, max(window, w)
}

func rate(header string) (n int, window time.Duration, ok bool) {
	number, params, _ := strings.Cut(header, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	if text, found := strings.CutPrefix(strings.TrimSpace(params), "w="); found {
		if seconds, err := strconv.Atoi(text); err == nil {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}
