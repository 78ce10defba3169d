package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/limits/panics"
)

// host is one server that answers for a registry, with the authentication that
// it requires. Each has its own state: a response of one does not change
// requests to another. Only the configured one, home, ever gets credentials;
// requests to hosts that it redirects to are anonymous.
type host struct {
	r    *Remote
	url  *url.URL // scheme and host
	home bool

	pingGroup singleflight.Group

	mu                 sync.Mutex
	pinged             bool
	verified           bool       // by a registry's response, or by the ping
	lastAuth           authParams // what it required last, for any repository
	perRepository      bool       // the token server depends on the repository
	auth               *sized[authParams]
	tokensLimitedUntil time.Time // it limits tokens until then
	missing            string    // why there were no credentials last time
}

const (
	maxHosts = 64
	// maxAuth is for how many repositories a host's challenges are held, and
	// maxAuthBytes what they take in all, in bytes.
	maxAuth      = 4096
	maxAuthBytes = 1 << 20
)

func newHost(r *Remote, at *url.URL, home bool) *host {
	return &host{
		r: r, url: &url.URL{Scheme: at.Scheme, Host: at.Host}, home: home,
		auth: newSized(maxAuth, maxAuthBytes, authParams.size),
	}
}

func newLRU[V any](size int) *lru.Cache[string, V] {
	c, err := lru.New[string, V](size)
	if err != nil {
		panic(err) // only if the size is not positive
	}
	return c
}

// authParams are the parameters of the authentication that a host requires for
// a repository.
type authParams struct {
	scheme                string // "", "basic" or "bearer"
	realm, service, scope string // of the token server
}

func (w authParams) size() int { return len(w.scheme) + len(w.realm) + len(w.service) + len(w.scope) }

// authorization is a request's Authorization header, and the parameters it was
// made for.
type authorization struct {
	header string
	params authParams
	fresh  bool        // a token that was obtained for this request
	sent   Credentials // what the header contains, unless it is a token of the token server
}

// expectedAuth returns what the host is expected to require for a repository,
// and whether it has said so for this one, or for another.
func (h *host) expectedAuth(repo string) (w authParams, own bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w, ok := h.auth.Get(repo); ok {
		return w, true
	}
	w = h.lastAuth
	if w.scheme == "bearer" {
		if h.perRepository {
			return authParams{}, false
		}
		w.scope = ""
		if repo != "" {
			w.scope = scopeOf(repo)
		}
	}
	return w, false
}

func scopeOf(repo string) string { return "repository:" + repo + ":pull" }

// learnAuth records what a 401 requires. A web page can't replace what a host
// has required before. If nothing is known, a page's challenge only counts with
// a registry's version header or over verified TLS: nginx in front of a
// registry sends a page with its challenge.
func (h *host) learnAuth(repo string, resp *http.Response) (authParams, error) {
	c, ok := chooseChallenge(resp.Header.Values("WWW-Authenticate"))
	page := isPage(resp, nil)
	if !ok || page && h.url.Scheme != "https" && resp.Header.Get("Docker-Distribution-Api-Version") == "" {
		return authParams{}, errNoChallenge
	}
	w := authParams{scheme: c.scheme}
	if c.scheme == "basic" && (!h.home || h.r.opts.Credentials == nil) {
		if page {
			return authParams{}, errNoChallenge
		}
		// Not recorded: without credentials, the next request can only be
		// anonymous, too.
		return authParams{}, fmt.Errorf("%w: %s requires a user name and password, and none are configured", ErrDenied, h.url.Host)
	}
	if c.scheme == "bearer" {
		realm, err := h.trustedRealm(c.params["realm"])
		if err != nil {
			return authParams{}, err
		}
		w.realm, w.service, w.scope = realm.String(), c.params["service"], c.params["scope"]
		if w.scope == "" && repo != "" {
			w.scope = scopeOf(repo)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if page && h.verified && (w.scheme != h.lastAuth.scheme || w.realm != h.lastAuth.realm || w.service != h.lastAuth.service) {
		return authParams{}, fmt.Errorf("%w: a web page of %s asks for credentials", ErrInvalidResponse, h.url.Host)
	}
	h.verified = h.verified || !page
	h.lastAuth = w
	h.auth.Add(repo, w)
	return w, nil
}

// authorize obtains the authorization that the host requires for a repository.
func (h *host) authorize(ctx context.Context, repo string, w authParams) (authorization, error) {
	if w.scheme == "" {
		return authorization{}, nil
	}
	if w.scheme == "bearer" {
		if t, ok := h.keptToken(repo, w); ok {
			return authorization{header: "Bearer " + t, params: w}, nil
		}
	}
	c, err := h.credentials(ctx, repo)
	switch {
	case err != nil:
		return authorization{}, err
	case c.RegistryToken != "":
		return authorization{header: "Bearer " + c.RegistryToken, params: w, sent: c}, nil
	case w.scheme == "bearer":
		t, err := h.token(ctx, repo, w, c)
		if err != nil {
			return authorization{}, err
		}
		return authorization{header: "Bearer " + t, params: w, fresh: true}, nil
	case c.Username == "":
		return authorization{}, fmt.Errorf("%w: %s requires a user name and password, and %s", ErrDenied, h.url.Host, cmp.Or(c.Absent, "none are configured"))
	}
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(c.Username, c.Password)
	return authorization{header: req.Header.Get("Authorization"), params: w, sent: c}, nil
}

// reauthorize obtains the authorization again after the host has refused the
// credentials themselves. It reports whether there are others now.
func (h *host) reauthorize(ctx context.Context, repo string, refused authorization) (authorization, bool) {
	if refused.sent.isNone() {
		return authorization{}, false
	}
	h.r.opts.Credentials.Reject(repo, refused.sent)
	next, err := h.authorize(ctx, repo, refused.params)
	return next, err == nil && next.header != refused.header
}

// credentialsWait is how long a request waits for its credentials. A helper
// program may take longer; whoever asks later gets what it has returned.
const credentialsWait = 15 * time.Second

// credentials are empty for every host but the configured one.
func (h *host) credentials(ctx context.Context, repo string) (Credentials, error) {
	if !h.home || h.r.opts.Credentials == nil {
		return Credentials{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, credentialsWait, ErrTimeout)
	defer cancel()
	c, err := h.r.opts.Credentials.Credentials(ctx, repo)
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: credentials for %s: %w", ErrUnavailable, h.r.opts.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missing = c.Absent
	return c, nil
}

// account names the credentials that are used for a repository.
func (h *host) account(repo string) string {
	if !h.home || h.r.opts.Credentials == nil {
		return ""
	}
	return h.r.opts.Credentials.Account(repo)
}

// missingCredentials explains in an error that the expected credentials were
// missing.
func (h *host) missingCredentials() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.missing == "" {
		return ""
	}
	return ", and " + h.missing
}

// ping requests /v2/ once, if there are credentials, to learn what the host
// requires. Some registries answer 404 for private content without credentials,
// and send a challenge only there (Artifactory). An error means that it is
// still unknown.
func (h *host) ping(ctx context.Context) error {
	if !h.home || h.r.opts.Credentials == nil {
		return nil
	}
	h.mu.Lock()
	done := h.pinged || h.lastAuth.scheme != ""
	h.mu.Unlock()
	if done {
		return nil
	}
	waited := h.pingGroup.DoChan("", func() (_ any, err error) {
		defer panics.Catch("request to an upstream", &err)
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), pingWait, errNoHeader) // other requests wait for it, too
		defer cancel()
		resp, err := h.r.roundTrip(ctx, request{kind: "ping", method: http.MethodGet}, h, h.r.endpoint.ping(), "")
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized {
			_, err = h.learnAuth("", resp)
		}
		if status := resp.StatusCode; !h.r.isRegistry(resp) || err != nil {
			return nil, fmt.Errorf("%w: /v2/ of %s answered %d, which does not say what authentication it requires", ErrUnavailable, h.url.Host, status)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.pinged = true
		return nil, nil
	})
	select {
	case r := <-waited:
		return r.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var (
	// With errNoChallenge and errRejected, the response itself explains the
	// failure.
	errNoChallenge = errors.New("no supported challenge")
	errRejected    = errors.New("the authorization was rejected")
)

// maxRounds limits how often one request is sent to one host with different
// authorizations: a cached token, a fresh one, one more, none, one of another
// token server, and a second one of that.
const maxRounds = 6

// do sends a request to this host once, with the authorization that it
// requires. A 401 that is returned is final.
//
// If the credentials themselves are refused, they are looked up again, once.
// Some registries answer 403 when they have expired (ECR).
//
// If a token is refused, perhaps because it has expired, it is dropped and the
// request is sent without one: a host may answer a bad token differently from
// none. But a failure without the authorization that should have been sent is
// not trusted, because some hosts hide private content behind a 404.
func (h *host) do(ctx context.Context, a request, at *url.URL) (*http.Response, error) {
	failed := make(map[authParams]error) // authorizations that failed
	missing := h.ping(ctx)               // why the required authorization is missing
	expected, own := h.expectedAuth(a.repo)
	with, err := h.authorize(ctx, a.repo, expected)
	if err != nil {
		if ctx.Err() != nil || expected.scheme != "bearer" {
			return nil, err
		}
		if !own && errors.Is(err, ErrDenied) {
			h.setPerRepository()
		}
		failed[expected], missing = err, err
	}
	var refused authParams
	bare, renewed := false, false
	for round := 1; ; round++ {
		bare = bare || with.header == ""
		resp, err := h.r.roundTrip(ctx, a, h, at, with.header)
		if err != nil {
			return nil, err
		}
		if c := with.sent; !renewed && !c.isNone() && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden) {
			renewed = true // once
			if next, ok := h.reauthorize(ctx, a.repo, with); ok {
				drain(resp)
				with = next
				continue
			}
		}
		if resp.StatusCode != http.StatusUnauthorized {
			if missing != nil && with.header == "" && isRefusal(resp.StatusCode) {
				drain(resp)
				return nil, missing
			}
			return resp, nil
		}
		if round == maxRounds {
			return resp, nil
		}
		if with.header != "" {
			if with.fresh && a.method == http.MethodHead {
				return resp, nil // the token is good, but HEAD is not supported: use GET (W44)
			}
			h.r.tokens.Remove(h.tokenKey(a.repo, with.params))
			switch {
			case !with.sent.isNone(), with.fresh && refused == with.params:
				failed[with.params] = errRejected
			case with.fresh:
				refused = with.params // try once more: not every server accepts a new token at once
			}
		}
		asks, err := h.learnAuth(a.repo, resp)
		if err == nil {
			err = failed[asks]
		}
		if err == nil {
			var next authorization
			if next, err = h.authorize(ctx, a.repo, asks); err == nil {
				drain(resp)
				with, missing = next, nil
				with.fresh = true
				continue
			}
			failed[asks] = err
		}
		switch {
		case ctx.Err() != nil:
			drain(resp)
			return nil, context.Cause(ctx)
		case !bare && with.params.scheme == "bearer":
			drain(resp)
			with, missing = authorization{}, err
			if errors.Is(err, errRejected) {
				missing = fmt.Errorf("%w: %s does not accept these credentials", ErrDenied, h.url.Host)
			}
		case errors.Is(err, errNoChallenge), errors.Is(err, errRejected):
			return resp, nil
		default:
			drain(resp)
			return nil, err
		}
	}
}

// isRefusal reports whether a status may be an answer about what was requested.
// Rate limits and server errors are not.
func isRefusal(status int) bool {
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// setPerRepository records that a token server only serves some of the
// repositories.
func (h *host) setPerRepository() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.perRepository = true
}

// limitTokens records for how long the host limits tokens.
func (h *host) limitTokens(wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokensLimitedUntil = time.Now().Add(wait)
}

// tokensLimited reports whether the host limits tokens, and for how long.
func (h *host) tokensLimited() (left time.Duration, limited bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	left = time.Until(h.tokensLimitedUntil)
	return left, left > 0
}
