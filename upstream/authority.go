package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/sync/singleflight"
)

const (
	maxTokens    = 4096
	tokenWait    = 15 * time.Second
	defaultToken = time.Minute // the life of a token that tells none
)

// authority gets a registry's requests through: nothing, Basic, or tokens, one
// for each repository, shared by everyone and renewed before they expire.
type authority struct {
	r       *Remote
	tokens  *lru.Cache[string, token]
	dances  singleflight.Group
	mu      sync.Mutex
	scheme  string // what the registry asked for last: "", "basic" or "bearer"
	realm   *url.URL
	service string
}

type token struct {
	value string
	until time.Time
}

func newAuthority(r *Remote) *authority {
	tokens, err := lru.New[string, token](maxTokens)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &authority{r: r, tokens: tokens}
}

// authorize adds what the registry is known to want.
func (a *authority) authorize(ctx context.Context, req *http.Request, repo string) error {
	a.mu.Lock()
	scheme := a.scheme
	a.mu.Unlock()
	switch scheme {
	case "basic":
		c, err := a.credentials(ctx)
		if err != nil {
			return err
		}
		req.SetBasicAuth(c.Username, c.Password)
	case "bearer":
		t, ok := a.tokens.Get(repo)
		if !ok || time.Now().After(t.until) {
			var err error
			if t, err = a.dance(ctx, repo); err != nil {
				return err
			}
		}
		req.Header.Set("Authorization", "Bearer "+t.value)
	}
	return nil
}

// learn takes in why a request was refused, so that the next one is not.
func (a *authority) learn(ctx context.Context, repo string, headers []string) error {
	c, ok := chooseChallenge(headers)
	if !ok {
		return fmt.Errorf("%w: %s wants credentials in a way that is not known", ErrDenied, a.r.opts.Name)
	}
	if c.scheme == "basic" {
		creds, err := a.credentials(ctx)
		if err != nil {
			return err
		}
		if creds.Username == "" {
			return fmt.Errorf("%w: %s wants a user name and password, and none are configured", ErrDenied, a.r.opts.Name)
		}
	}
	var realm *url.URL
	if c.scheme == "bearer" {
		var err error
		if realm, err = a.trusted(c.params["realm"]); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.scheme, a.realm, a.service = c.scheme, realm, c.params["service"]
	a.mu.Unlock()
	a.tokens.Remove(repo)
	return nil
}

// trusted checks a realm (W40): whoever is named there is shown the
// credentials. It is https on the registry's registrable domain, or named in
// the configuration, or the very host of a registry.
func (a *authority) trusted(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: the token server %q of %s is no URL", ErrBadAnswer, realm, a.r.opts.Name)
	}
	base := a.r.base
	switch {
	case slices.Contains(a.r.opts.TrustedRealms, u.Host), slices.Contains(a.r.opts.TrustedRealms, u.Hostname()):
		return u, nil
	case u.Hostname() == base.Hostname() && (u.Scheme == "https" || u.Scheme == base.Scheme):
		return u, nil
	case u.Scheme == "https" && sameSite(u.Hostname(), base.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%w: %s sends credentials to %s, which is not of its domain; trusted_realms permits it", ErrBadAnswer, a.r.opts.Name, u.Host)
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

func (a *authority) credentials(ctx context.Context) (Credentials, error) {
	if a.r.opts.Credentials == nil {
		return Credentials{}, nil
	}
	c, err := a.r.opts.Credentials(ctx)
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: credentials for %s: %w", ErrUnavailable, a.r.opts.Name, err)
	}
	return c, nil
}

// dance gets a token for pulling from repo, one exchange at a time for all who
// wait for it.
func (a *authority) dance(ctx context.Context, repo string) (token, error) {
	done := a.dances.DoChan(repo, func() (any, error) {
		if t, ok := a.tokens.Get(repo); ok && time.Now().Before(t.until) {
			return t, nil
		}
		// Others wait for it too: it does not end with who asked first.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), tokenWait, ErrTimeout)
		defer cancel()
		t, err := a.exchange(ctx, repo)
		if err != nil {
			return nil, err
		}
		a.tokens.Add(repo, t)
		return t, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return token{}, r.Err
		}
		return r.Val.(token), nil
	case <-ctx.Done():
		return token{}, context.Cause(ctx)
	}
}

func (a *authority) exchange(ctx context.Context, repo string) (token, error) {
	a.mu.Lock()
	realm, service := a.realm, a.service
	a.mu.Unlock()
	creds, err := a.credentials(ctx)
	if err != nil {
		return token{}, err
	}
	req, err := tokenRequest(ctx, realm, service, "repository:"+repo+":pull", creds)
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if a.r.opts.UserAgent != "" {
		req.Header.Set("User-Agent", a.r.opts.UserAgent)
	}
	began := time.Now()
	resp, err := a.r.client.RoundTrip(req)
	if err != nil {
		a.r.observe(Observation{Kind: "token", Method: req.Method, Duration: time.Since(began)})
		if ctx.Err() != nil {
			return token{}, fmt.Errorf("%w: the token server %s", ErrTimeout, realm.Host)
		}
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, a.r.reach(err))
	}
	defer drop(resp)
	a.r.observe(Observation{Kind: "token", Method: req.Method, Status: resp.StatusCode, Duration: time.Since(began)})
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, &RateLimitedError{RetryAfter: retryAfter(resp)})
	case resp.StatusCode >= 500:
		return token{}, fmt.Errorf("%w: the token server %s answered %d", ErrUnavailable, realm.Host, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return token{}, fmt.Errorf("%w: the token server %s of %s refused the credentials (%d)", ErrDenied, realm.Host, a.r.opts.Name, resp.StatusCode)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 256<<10))
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if err != nil || answer.Token == "" {
		return token{}, fmt.Errorf("%w: the token server %s sent no token", ErrBadAnswer, realm.Host)
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	if life <= 0 {
		life = defaultToken
	}
	return token{value: answer.Token, until: began.Add(life * 4 / 5)}, nil
}

func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, c Credentials) (*http.Request, error) {
	q := realm.Query()
	q.Set("scope", scope)
	if service != "" {
		q.Set("service", service)
	}
	if c.IdentityToken != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", c.IdentityToken)
		q.Set("client_id", "entrepot")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	u := *realm
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && c.Username != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	return req, err
}
