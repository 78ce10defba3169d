package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// ask is one question to a registry.
type ask struct {
	kind, method string
	repo, path   string // the repository as the endpoint knows it
	query        url.Values
	url          *url.URL // instead of repo, path and query: a following page
	accept       string
	byteRange    string
	// follow says which redirects are followed; nil means all within the rules.
	follow func(to *url.URL) bool
}

// do asks, with credentials where the registry wants them, and returns an
// answer with a status of success. Everything else becomes an error.
func (r *Remote) do(ctx context.Context, a ask) (*http.Response, error) {
	h, at := r.home, r.location(a)
	if a.url != nil {
		h = r.host(at)
	}
	trail := map[string]bool{}
	for hop := 0; ; hop++ {
		resp, err := h.ask(ctx, a, at)
		if err != nil {
			return nil, h.blame(ctx, err)
		}
		if !isRedirect(resp) {
			return h.judge(ctx, a, at, resp)
		}
		to, err := redirected(at, resp.Header.Get("Location"))
		drop(resp)
		if err == nil && a.follow != nil && !a.follow(to) {
			return nil, &statusError{said{status: resp.StatusCode}, ErrNoAPI, fmt.Sprintf("%s redirects to %s", r.opts.Name, to.Host)}
		}
		if err == nil {
			err = r.permit(ctx, to)
		}
		switch {
		case err != nil:
			return nil, err
		case hop == maxHops || trail[to.String()]:
			return nil, fmt.Errorf("%w: redirects in a circle, at %s", ErrBadAnswer, to.Host)
		}
		trail[to.String()] = true
		at, h = to, r.host(to)
	}
}

const maxHops = 5

func isRedirect(resp *http.Response) bool {
	return resp.StatusCode >= 300 && resp.StatusCode <= 399 && resp.StatusCode != http.StatusNotModified
}

// redirected is where a redirect leads, within the rules of W41.
func redirected(at *url.URL, location string) (*url.URL, error) {
	to, err := at.Parse(location)
	switch {
	case err != nil || location == "" || to.Host == "":
		return nil, fmt.Errorf("%w: a redirect to nowhere", ErrBadAnswer)
	case to.Scheme != "https" && (to.Scheme != "http" || at.Scheme == "https"):
		return nil, fmt.Errorf("%w: a redirect from %s to %s", ErrBadAnswer, at.Scheme, to.Scheme)
	}
	return to, nil
}

// permit holds an address against the rules of W41; a name is held against
// them when it is dialled.
func (r *Remote) permit(ctx context.Context, to *url.URL) error {
	if literal, err := netip.ParseAddr(to.Hostname()); err == nil {
		return r.guard.permit(ctx, to.Hostname(), literal)
	}
	return nil
}

func (r *Remote) location(a ask) *url.URL {
	u := r.endpoint.at(a.repo, a.path, a.query)
	if a.url != nil {
		u = r.endpoint.root.ResolveReference(a.url)
	}
	if r.opts.SendNamespace && u.Host == r.home.url.Host {
		q := u.Query()
		q.Set("ns", r.opts.Name)
		u.RawQuery = q.Encode()
	}
	return u
}

// roundTrip asks once.
func (r *Remote) roundTrip(ctx context.Context, a ask, h *host, at *url.URL, authorization string) (*http.Response, error) {
	// The wait for headers is bounded by the transport, that for the body by
	// silence: the request as a whole by its caller.
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, a.method, at.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	req.Header.Set("Accept-Encoding", "identity") // W2: some compress unless they are told not to
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
	client := r.client
	if a.kind == "referrers" {
		client = r.patient
	}
	began := time.Now()
	resp, err := client.RoundTrip(req)
	seen := Observation{Kind: a.kind, Method: a.method, Duration: time.Since(began)}
	if err != nil {
		cancel(nil)
		r.observe(seen)
		if ctxErr := req.Context().Err(); ctxErr != nil && context.Cause(ctx) != nil && errors.Is(err, ctxErr) {
			return nil, context.Cause(ctx)
		}
		return nil, r.reach(err, at.Host)
	}
	seen.Status = resp.StatusCode
	if h.home {
		seen.Limit, seen.Remaining, seen.Window = rateOf(resp)
	}
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
func (r *Remote) reach(err error, host string) error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timeout net.Error
	var op *net.OpError
	dialled := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, ErrBadAnswer):
		return err
	case errors.As(err, &cert):
		return unwell(fmt.Errorf("%w: the certificate of %s is not trusted (%w); name its authority with tls.ca_file", ErrRefused, host, cert.Err))
	case errors.As(err, &dns) && dns.IsNotFound:
		return unwell(fmt.Errorf("%w: no such host %s", ErrRefused, dns.Name))
	case isUnreachable(err):
		return unwell(fmt.Errorf("%w: %s: %w", ErrRefused, host, cause(err)))
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		late := fmt.Errorf("%w: %s", ErrTimeout, host)
		if dialled || strings.Contains(err.Error(), "TLS handshake timeout") { // net/http has no other name for it
			return unwell(late)
		}
		return late // slow, which is no illness
	case isTLS(err):
		return unwell(fmt.Errorf("%w: %s: %w", ErrUnavailable, host, cause(err)))
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, host, cause(err))
}

// isUnreachable says whether the kernel, or another on the way, refused the
// connection.
func isUnreachable(err error) bool {
	return slices.ContainsFunc(unreachable, func(refused error) bool { return errors.Is(err, refused) })
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &record) || errors.As(err, &alert)
}

// cause is an error without the URL around it, which may be signed.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
