package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// request is one request to a registry.
type request struct {
	kind, method string
	repo, path   string // the repository as the endpoint names it
	query        url.Values
	url          *url.URL // replaces repo, path and query: the URL of a next page
	accept       string
	byteRange    string
	// by is when the last header of a response has to be there, with all that
	// may come before it: tokens, redirects.
	by time.Time
	// unfollowed says what a redirect means that is not followed, and is nil for
	// one that is; without it, all are followed that the rules allow.
	unfollowed func(a request, to *url.URL) error
}

// do sends a request, authenticates if the registry requires it, and returns a
// successful response. Everything else becomes an error.
func (r *Remote) do(ctx context.Context, a request) (*http.Response, error) {
	a.by = time.Now().Add(maxSteps * waitOf(ctx, r.opts.Waits.Header))
	h, at := r.home, r.location(a)
	if a.url != nil {
		h = r.host(at)
	}
	visited := map[string]bool{}
	for hop := 0; ; hop++ {
		resp, err := h.do(ctx, a, at)
		if err != nil {
			return nil, h.attribute(ctx, err)
		}
		if !isRedirect(resp) {
			noteAge(ctx, resp)
			return h.checkStatus(ctx, a, at, resp)
		}
		to, err := redirectTarget(at, resp.Header.Get("Location"))
		drain(resp)
		if err == nil && a.unfollowed != nil {
			if meaning := a.unfollowed(a, to); meaning != nil {
				return nil, &statusError{failedResponse{status: resp.StatusCode}, meaning, fmt.Sprintf("%s redirects to %s", r.opts.Name, to.Host)}
			}
		}
		if err == nil {
			err = r.checkRedirect(ctx, to)
		}
		switch {
		case err != nil:
			return nil, err
		case hop == maxHops || visited[to.String()]:
			return nil, fmt.Errorf("%w: a redirect loop, at %s", ErrInvalidResponse, to.Host)
		}
		visited[to.String()] = true
		at, h = to, r.host(to)
	}
}

const (
	maxHops = 5
	// maxSteps is how often the usual wait for a header a request may take
	// altogether: there may be a token server, a redirect and a second round.
	maxSteps = 3
)

func isRedirect(resp *http.Response) bool {
	return resp.StatusCode >= 300 && resp.StatusCode <= 399 && resp.StatusCode != http.StatusNotModified
}

// redirectTarget returns the target of a redirect, within the rules of W41.
func redirectTarget(at *url.URL, location string) (*url.URL, error) {
	to, err := at.Parse(location)
	switch {
	case err != nil || location == "" || to.Host == "":
		return nil, fmt.Errorf("%w: a redirect without a valid target", ErrInvalidResponse)
	case to.Scheme != "https" && (to.Scheme != "http" || at.Scheme == "https"):
		return nil, fmt.Errorf("%w: a redirect from %s to %s", ErrInvalidResponse, at.Scheme, to.Scheme)
	}
	return to, nil
}

// checkRedirect checks a target that is an address against the rules of W41. A
// name is checked when it is dialled.
func (r *Remote) checkRedirect(ctx context.Context, to *url.URL) error {
	if literal, err := netip.ParseAddr(to.Hostname()); err == nil {
		return r.guard.check(ctx, to.Hostname(), literal)
	}
	return nil
}

func (r *Remote) location(a request) *url.URL {
	u := r.endpoint.at(a.repo, a.path, a.query)
	if a.url != nil {
		u = r.endpoint.root.ResolveReference(a.url)
	}
	if r.opts.SendNamespace && u.Host == r.home.url.Host && !u.Query().Has("ns") {
		// Beside the query of a Link, which stays as the registry wrote it.
		and := ""
		if u.RawQuery != "" {
			and = "&"
		}
		u.RawQuery += and + url.Values{"ns": {r.opts.Name}}.Encode()
	}
	return u
}

// roundTrip sends a request once.
func (r *Remote) roundTrip(ctx context.Context, a request, h *host, at *url.URL, authorization string) (*http.Response, error) {
	// The transport limits the wait for a connection, and the body's idle timer
	// the wait for the body.
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, header := r.limitHeader(ctx, a.by, cancel)
	defer header.Stop()
	req, err := http.NewRequestWithContext(ctx, a.method, at.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("%w: %w", ErrInvalidResponse, err)
	}
	wishAge(ctx, req.Header)
	req.Header.Set("Accept-Encoding", "identity") // W2: some compress by default
	if a.accept != "" {
		req.Header.Set("Accept", a.accept)
	}
	if a.byteRange != "" {
		req.Header.Set("Range", a.byteRange)
	}
	if r.opts.UserAgent != "" {
		req.Header.Set("User-Agent", r.opts.UserAgent)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	began := time.Now()
	resp, err := r.client.RoundTrip(req)
	seen := Observation{Kind: a.kind, Method: a.method, Duration: time.Since(began)}
	if err == nil && !header.Stop() {
		resp.Body.Close() // it came at the last moment, and its request is over
		err = ctx.Err()
	}
	if err != nil {
		r.observe(seen)
		if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
			return nil, causeFor(ctx, at.Host)
		}
		cancel(nil)
		return nil, r.transportError(err, at.Host)
	}
	seen.Status = resp.StatusCode
	if h.home {
		seen.Limit, seen.Remaining, seen.Window = rateLimitOf(resp)
	}
	r.observe(seen)
	resp.Body = newBody(resp.Body, resp.ContentLength, waitOf(ctx, r.opts.Waits.Idle), cancel)
	return resp, nil
}

// limitHeader ends a request if no header of its response comes. The time
// begins when there is a connection.
func (r *Remote) limitHeader(ctx context.Context, by time.Time, cancel context.CancelCauseFunc) (context.Context, *time.Timer) {
	w := r.opts.Waits
	most := waitOf(ctx, w.Header)
	if !by.IsZero() {
		most = min(most, time.Until(by))
	}
	timer := time.AfterFunc(most+w.Connect+w.TLS, func() { cancel(errNoHeader) })
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { timer.Reset(most) }}), timer
}

// causeFor returns why a request to a host was ended.
func causeFor(ctx context.Context, host string) error {
	err := context.Cause(ctx)
	if errors.Is(err, errNoHeader) {
		return fmt.Errorf("%w: %s", err, host)
	}
	return err
}

func (r *Remote) observe(o Observation) {
	if r.opts.Observe != nil {
		r.opts.Observe(o)
	}
}

// transportError maps a transport's error to one of the package's.
func (r *Remote) transportError(err error, host string) error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	var op *net.OpError
	dialled := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, ErrInvalidResponse):
		return err
	case errors.As(err, &cert):
		return unhealthy(fmt.Errorf("%w: the certificate of %s is not trusted (%w); add its CA with tls.ca_file", ErrRefused, host, cert.Err))
	case errors.As(err, &dns) && dns.IsNotFound:
		return unhealthy(fmt.Errorf("%w: no such host %s", ErrRefused, dns.Name))
	case isUnreachable(err):
		return unhealthy(fmt.Errorf("%w: %s: %w", ErrRefused, host, cause(err)))
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		late := fmt.Errorf("%w: %s", ErrTimeout, host)
		if dialled || strings.Contains(err.Error(), "TLS handshake timeout") { // net/http exports no error for it
			return unhealthy(late)
		}
		return late // slow, but not unhealthy
	case isTLS(err):
		return unhealthy(fmt.Errorf("%w: %s: %w", ErrUnavailable, host, cause(err)))
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, host, cause(err))
}

// isUnreachable reports whether the kernel or a router refused the connection.
func isUnreachable(err error) bool {
	return slices.ContainsFunc(unreachable, func(refused error) bool { return errors.Is(err, refused) })
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &record) || errors.As(err, &alert)
}

// cause removes the URL from an error, because it may be signed.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
