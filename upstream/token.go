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
)

const (
	maxTokens     = 4096
	tokenWait     = 15 * time.Second
	maxTokenBytes = 256 << 10
	maxTokenHops  = 3
	// defaultToken is the life of a token that tells none (distribution's
	// token authentication specification, "expires_in"); longestToken the most
	// that is believed.
	defaultToken = time.Minute
	longestToken = 24 * time.Hour
)

// token is what a token server gave, until it has to be asked again.
type token struct {
	value string
	until time.Time
}

// trusted checks a realm (W40): whoever is named there may be shown the
// credentials. It is https on the registrable domain of the host that names
// it, or named in the configuration, or that very host.
func (h *host) trusted(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: the token server %q of %s is no URL", ErrBadAnswer, realm, h.url.Host)
	}
	switch {
	case slices.Contains(h.r.opts.TrustedRealms, u.Host), slices.Contains(h.r.opts.TrustedRealms, u.Hostname()):
		return u, nil
	case u.Hostname() == h.url.Hostname() && (u.Scheme == "https" || u.Scheme == h.url.Scheme):
		return u, nil
	case u.Scheme == "https" && sameSite(u.Hostname(), h.url.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%w: %s sends credentials to %s, which is not of its domain; trusted_realms permits it", ErrBadAnswer, h.r.opts.Name, u.Host)
}

// sameSite says whether two hosts are of one registrable domain.
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

// tokenKey tells apart whose tokens are whose: what is got with credentials is
// for the host that they are of.
func (h *host) tokenKey(w want) string {
	return strings.Join([]string{h.url.Scheme, h.url.Host, w.realm, w.service, w.scope}, "\x00")
}

// token is one that is kept, or a fresh one: one exchange at a time for all who
// wait for it.
func (h *host) token(ctx context.Context, w want) (value string, fresh bool, err error) {
	key := h.tokenKey(w)
	if t, ok := h.r.tokens.Get(key); ok && time.Now().Before(t.until) {
		return t.value, false, nil
	}
	done := h.r.dances.DoChan(key, func() (any, error) {
		if t, ok := h.r.tokens.Get(key); ok && time.Now().Before(t.until) {
			return t, nil
		}
		// Others wait for it too: it does not end with who asked first.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), tokenWait, ErrTimeout)
		defer cancel()
		t, err := h.exchange(ctx, w)
		if err != nil {
			return nil, err
		}
		h.r.tokens.Add(key, t)
		return t, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return "", false, r.Err
		}
		return r.Val.(token).value, true, nil
	case <-ctx.Done():
		return "", false, context.Cause(ctx)
	}
}

// exchange asks the token server.
func (h *host) exchange(ctx context.Context, w want) (token, error) {
	realm, err := url.Parse(w.realm)
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	server := h.r.host(realm)
	if left, limited := server.isLimited(); limited {
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, &RateLimitedError{RetryAfter: left, elsewhere: true})
	}
	creds, err := h.credentials(ctx)
	if err != nil {
		return token{}, err
	}
	began := time.Now()
	resp, err := h.r.askForToken(ctx, realm, w, creds)
	if err != nil {
		if ctx.Err() != nil {
			err = ErrTimeout
		}
		return token{}, fmt.Errorf("%w: token server %s: %w", ErrElsewhere, realm.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, h.refusedToken(server, realm, resp)
	}
	defer drop(resp)
	body, err := readDecoded(resp, maxTokenBytes)
	if err != nil {
		return token{}, fmt.Errorf("%w: the token server %s: %w", ErrElsewhere, realm.Host, err)
	}
	value, life, err := parseToken(body)
	if err != nil {
		return token{}, fmt.Errorf("%w: the token server %s sent no token: %w", ErrElsewhere, realm.Host, err)
	}
	return token{value: value, until: began.Add(life * 4 / 5)}, nil
}

// refusedToken is what an answer of a token server that is no token means. It
// speaks for itself, not for the registry.
func (h *host) refusedToken(server *host, realm *url.URL, resp *http.Response) error {
	said := listen(resp)
	switch {
	case said.status == http.StatusTooManyRequests:
		wait := retryAfter(resp)
		server.limited(wait)
		return fmt.Errorf("token server %s: %w", realm.Host, &RateLimitedError{RetryAfter: wait, elsewhere: true})
	case said.form == formBare || said.form == formRegistry:
		switch said.status {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%w: the token server %s of %s gives no token (%s)%s", ErrDenied, realm.Host, h.r.opts.Name, said, h.unarmed())
		}
	}
	return fmt.Errorf("%w: the token server %s answered %s", ErrElsewhere, realm.Host, said)
}

// askForToken follows redirects on the token server's own host (some move the
// path), and no others: it is shown credentials.
func (r *Remote) askForToken(ctx context.Context, realm *url.URL, w want, c Credentials) (*http.Response, error) {
	at := realm
	for hop := 0; ; hop++ {
		req, err := tokenRequest(ctx, at, w, c)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
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
			return nil, r.reach(err, realm.Host)
		}
		seen.Status = resp.StatusCode
		r.observe(seen)
		next := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || next == "" {
			return resp, nil
		}
		drop(resp)
		to, err := at.Parse(next)
		if err != nil || hop == maxTokenHops || to.Host != realm.Host || to.Scheme != realm.Scheme {
			return nil, fmt.Errorf("%w: it redirects elsewhere, or in a circle", ErrBadAnswer)
		}
		at = to
	}
}

// tokenRequest asks with GET, or with an OAuth2 refresh token by POST
// (distribution's token and OAuth2 authentication specifications). What a
// redirect put into the query stays.
func tokenRequest(ctx context.Context, at *url.URL, w want, c Credentials) (*http.Request, error) {
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

// parseToken reads a token server's answer as leniently as clients do: a mark
// of byte order before it, a life as a number, a fraction, a string, null, or
// far too large.
func parseToken(body []byte) (value string, life time.Duration, err error) {
	var answer struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &answer); err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if value = answer.Token; value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsAny(value, "\r\n") {
		return "", 0, fmt.Errorf("%w: no member token", ErrBadAnswer)
	}
	return value, lifeOf(answer.ExpiresIn), nil
}

func lifeOf(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `" `), 64)
	if errors.Is(err, strconv.ErrRange) && seconds > 0 {
		err = nil
	}
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return defaultToken
	}
	return time.Duration(min(seconds, longestToken.Seconds()) * float64(time.Second))
}
