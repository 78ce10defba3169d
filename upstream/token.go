package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/entrepot/entrepot/limits/panics"
)

const (
	// maxTokens is how many tokens are held, and maxTokensBytes what they take in
	// all, in bytes. Usual ones have one to four thousand.
	maxTokens      = 4096
	maxTokensBytes = 16 << 20
	pingWait       = 15 * time.Second
	maxTokenBytes  = 256 << 10
	maxTokenHops   = 3
	// defaultTokenLife is the life of a token without expires_in
	// (distribution's token authentication specification); maxTokenLife is the
	// longest that is trusted.
	defaultTokenLife = time.Minute
	maxTokenLife     = 24 * time.Hour
)

// token is a token, and the time at which it has to be renewed.
type token struct {
	value   string
	renewAt time.Time
}

func (t token) size() int { return len(t.value) }

// trustedRealm checks a realm (W40), because it gets the credentials. It must
// be the host that names it, or https on the same registrable domain, or
// configured as trusted. What an https registry names must be https, whatever is
// configured: the configuration names hosts, and does not say that passwords may
// be sent to them in the clear.
func (h *host) trustedRealm(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: the token server %q of %s is not a URL", ErrInvalidResponse, realm, h.url.Host)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || h.url.Scheme != "http") {
		return nil, fmt.Errorf("%w: %s wants the credentials sent to %s without https", ErrInvalidResponse, h.r.opts.Name, u.Host)
	}
	switch {
	case slices.Contains(h.r.opts.TrustedRealms, u.Host), slices.Contains(h.r.opts.TrustedRealms, u.Hostname()):
		return u, nil
	case u.Hostname() == h.url.Hostname():
		return u, nil
	case u.Scheme == "https" && sameSite(u.Hostname(), h.url.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%w: %s wants the credentials sent to %s, which is outside of its domain; trusted_realms permits it", ErrInvalidResponse, h.r.opts.Name, u.Host)
}

// sameSite reports whether two hosts are on one registrable domain.
func sameSite(a, b string) bool {
	if a == b {
		return true
	}
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	siteA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	siteB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && siteA == siteB
}

// tokenKey identifies a token. It contains the host and the account, because a
// token obtained with credentials is only for what they belong to.
func (h *host) tokenKey(repo string, w authParams) string {
	return strings.Join([]string{h.url.Scheme, h.url.Host, h.account(repo), w.realm, w.service, w.scope}, "\x00")
}

// keptToken returns a token that is kept, unless it has to be renewed.
func (h *host) keptToken(repo string, w authParams) (value string, ok bool) {
	t, ok := h.r.tokens.Get(h.tokenKey(repo, w))
	return t.value, ok && time.Now().Before(t.renewAt)
}

// token obtains a token with credentials. Requests that need the same token
// share one exchange.
func (h *host) token(ctx context.Context, repo string, w authParams, c Credentials) (value string, err error) {
	key := h.tokenKey(repo, w)
	done := h.r.exchanges.DoChan(key, func() (_ any, err error) {
		defer panics.Catch("request for a token", &err)
		if value, ok := h.keptToken(repo, w); ok {
			return value, nil
		}
		// Other requests wait for it, too, so it does not end with the first
		// one.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), waitOf(ctx, h.r.opts.Waits.Header), errNoHeader)
		defer cancel()
		t, err := h.exchange(ctx, w, c)
		if err != nil && errors.Is(err, ErrDenied) && !c.isNone() {
			h.r.opts.Credentials.Reject(repo, c)
			if next, lookup := h.credentials(ctx, repo); lookup == nil && !next.isNone() && next != c {
				t, err = h.exchange(ctx, w, next)
			}
		}
		if err != nil {
			return nil, err
		}
		h.r.tokens.Add(key, t)
		return t.value, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// exchange requests a token from the token server.
func (h *host) exchange(ctx context.Context, w authParams, creds Credentials) (token, error) {
	realm, err := url.Parse(w.realm)
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrInvalidResponse, err)
	}
	server := h.r.host(realm)
	if left, limited := server.tokensLimited(); limited {
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, &RateLimitedError{RetryAfter: left, elsewhere: true})
	}
	began := time.Now()
	resp, err := h.r.requestToken(ctx, realm, w, creds)
	if err != nil {
		if ctx.Err() != nil {
			err = ErrTimeout
		}
		return token{}, fmt.Errorf("%w: token server %s: %w", ErrThirdParty, realm.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, h.tokenError(server, realm, resp)
	}
	defer drain(resp)
	body, done, err := h.r.readDecoded(resp, maxTokenBytes)
	defer done()
	if err != nil {
		return token{}, fmt.Errorf("%w: the token server %s: %w", ErrThirdParty, realm.Host, err)
	}
	value, life, err := parseToken(body)
	if err != nil {
		return token{}, fmt.Errorf("%w: the token server %s sent no token: %w", ErrThirdParty, realm.Host, err)
	}
	return token{value: value, renewAt: began.Add(life * 4 / 5)}, nil
}

// tokenError returns the error of a token server's response without a token. It
// concerns the token server, not the registry.
func (h *host) tokenError(server *host, realm *url.URL, resp *http.Response) error {
	failure := readFailure(resp)
	switch {
	case failure.status == http.StatusTooManyRequests:
		wait := retryAfter(resp)
		server.limitTokens(wait)
		return fmt.Errorf("token server %s: %w", realm.Host, &RateLimitedError{RetryAfter: wait, elsewhere: true})
	case failure.form == formBare || failure.form == formRegistry:
		switch failure.status {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%w: the token server %s of %s refused a token (%s)%s", ErrDenied, realm.Host, h.r.opts.Name, failure, h.missingCredentials())
		}
	}
	return fmt.Errorf("%w: the token server %s answered %s", ErrThirdParty, realm.Host, failure)
}

// requestToken follows redirects on the token server's own host only, because
// it gets the credentials. Some move the path.
func (r *Remote) requestToken(ctx context.Context, realm *url.URL, w authParams, c Credentials) (*http.Response, error) {
	at := realm
	for hop := 0; ; hop++ {
		req, err := tokenRequest(ctx, at, w, c)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidResponse, err)
		}
		req.Header.Set("Accept-Encoding", "identity")
		if r.opts.UserAgent != "" {
			req.Header.Set("User-Agent", r.opts.UserAgent)
		}
		began := time.Now()
		resp, err := r.client.RoundTrip(req)
		seen := Observation{Kind: "token", Method: req.Method, Duration: time.Since(began)}
		if err != nil {
			r.observe(seen)
			return nil, r.transportError(err, realm.Host)
		}
		seen.Status = resp.StatusCode
		r.observe(seen)
		next := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || next == "" {
			return resp, nil
		}
		drain(resp)
		to, err := at.Parse(next)
		if err != nil || hop == maxTokenHops || to.Host != realm.Host || to.Scheme != realm.Scheme {
			return nil, fmt.Errorf("%w: it redirects to another host, or in a loop", ErrInvalidResponse)
		}
		at = to
	}
}

// tokenRequest returns a GET request, or a POST request with an OAuth2 refresh
// token (distribution's token and OAuth2 authentication specifications). It
// keeps the query of a redirect.
func tokenRequest(ctx context.Context, at *url.URL, w authParams, c Credentials) (*http.Request, error) {
	q := at.Query()
	if w.scope != "" {
		q.Set("scope", w.scope)
	}
	if w.service != "" {
		q.Set("service", w.service)
	}
	if c.IdentityToken != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", c.IdentityToken)
		q.Set("client_id", "entrepot")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header["Idempotency-Key"] = nil // is not sent: net/http may repeat the request on another connection
		}
		return req, err
	}
	u := *at
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && c.Username != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	return req, err
}

// parseToken parses a token server's response as leniently as clients do. There
// may be a byte order mark, and the life may be a number, a fraction, a string,
// null, or far too large.
func parseToken(body []byte) (value string, life time.Duration, err error) {
	var answer struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &answer); err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrInvalidResponse, err)
	}
	if value = answer.Token; value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsAny(value, "\r\n") {
		return "", 0, fmt.Errorf("%w: no token in the response", ErrInvalidResponse)
	}
	return value, lifeOf(answer.ExpiresIn), nil
}

func lifeOf(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `" `), 64)
	if errors.Is(err, strconv.ErrRange) && seconds > 0 {
		err = nil
	}
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return defaultTokenLife
	}
	return time.Duration(min(seconds, maxTokenLife.Seconds()) * float64(time.Second))
}
