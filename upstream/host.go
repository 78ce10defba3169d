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
)

// host is one server that answers for a registry, with what it wants of who
// asks. Each has a state of its own: nothing that one of them says changes how
// another is asked. Only the configured one, home, is ever shown credentials;
// one that it redirects to is asked as anybody would.
type host struct {
	r    *Remote
	url  *url.URL // scheme and host
	home bool

	pings singleflight.Group

	mu       sync.Mutex
	pinged   bool
	settled  bool // by an answer in a registry's form, or that to the ping
	last     want // what it asked for last, whatever for
	varies   bool // one repository's token server refused another's scope
	wants    *lru.Cache[string, want]
	noTokens time.Time // it limits those that it gives, until then
	absent   string    // where credentials were looked for last, in vain
}

const (
	maxHosts = 64
	maxWants = 4096
)

func newHost(r *Remote, at *url.URL, home bool) *host {
	return &host{
		r: r, url: &url.URL{Scheme: at.Scheme, Host: at.Host}, home: home,
		wants: newLRU[want](maxWants),
	}
}

func newLRU[V any](size int) *lru.Cache[string, V] {
	c, err := lru.New[string, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// want is what a host asks for before it answers about a repository.
type want struct {
	scheme                string // "", "basic" or "bearer"
	realm, service, scope string // of the token server
}

// shown is what a request carries in answer to a want.
type shown struct {
	header string
	by     want
	fresh  bool // obtained for this very question
}

// known is what the host is expected to want for a repository, and whether that
// is its own word about this one, or what it wanted last for another.
func (h *host) known(repo string) (w want, own bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w, ok := h.wants.Get(repo); ok {
		return w, true
	}
	w = h.last
	if w.scheme == "bearer" {
		if h.varies {
			return want{}, false
		}
		w.scope = ""
		if repo != "" {
			w.scope = scopeOf(repo)
		}
	}
	return w, false
}

func scopeOf(repo string) string { return "repository:" + repo + ":pull" }

// learn takes in what a 401 asks for. A page is nobody's word: it changes
// nothing that a host has shown before, and where nothing is known it counts
// only of a registry that says that it is one, or that has shown by its
// certificate whose word it is (nginx in front of one asks with a page).
func (h *host) learn(repo string, resp *http.Response) (want, error) {
	c, ok := chooseChallenge(resp.Header.Values("WWW-Authenticate"))
	page := isPage(resp, nil)
	if !ok || page && h.url.Scheme != "https" && resp.Header.Get("Docker-Distribution-Api-Version") == "" {
		return want{}, errNoChallenge
	}
	w := want{scheme: c.scheme}
	if c.scheme == "basic" && (!h.home || h.r.opts.Credentials == nil) {
		if page {
			return want{}, errNoChallenge
		}
		// Not learnt: with nothing to show, the next question goes out as this did.
		return want{}, fmt.Errorf("%w: %s wants a user name and password, and none are configured", ErrDenied, h.url.Host)
	}
	if c.scheme == "bearer" {
		realm, err := h.trusted(c.params["realm"])
		if err != nil {
			return want{}, err
		}
		w.realm, w.service, w.scope = realm.String(), c.params["service"], c.params["scope"]
		if w.scope == "" && repo != "" {
			w.scope = scopeOf(repo)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if page && h.settled && (w.scheme != h.last.scheme || w.realm != h.last.realm || w.service != h.last.service) {
		return want{}, fmt.Errorf("%w: a page of %s asks for credentials", ErrBadAnswer, h.url.Host)
	}
	h.settled = h.settled || !page
	h.last = w
	h.wants.Add(repo, w)
	return w, nil
}

// obtain gets what the host wants.
func (h *host) obtain(ctx context.Context, w want) (shown, error) {
	switch w.scheme {
	case "basic":
		c, err := h.credentials(ctx)
		if err != nil {
			return shown{}, err
		}
		if c.Username == "" {
			return shown{}, fmt.Errorf("%w: %s wants a user name and password, and %s", ErrDenied, h.url.Host, cmp.Or(c.Absent, "none are configured"))
		}
		req := http.Request{Header: http.Header{}}
		req.SetBasicAuth(c.Username, c.Password)
		return shown{header: req.Header.Get("Authorization"), by: w}, nil
	case "bearer":
		t, fresh, err := h.token(ctx, w)
		if err != nil {
			return shown{}, err
		}
		return shown{header: "Bearer " + t, by: w, fresh: fresh}, nil
	}
	return shown{}, nil
}

// credentials are empty for every host but the configured one.
func (h *host) credentials(ctx context.Context) (Credentials, error) {
	if !h.home || h.r.opts.Credentials == nil {
		return Credentials{}, nil
	}
	c, err := h.r.opts.Credentials(ctx)
	if err != nil {
		return Credentials{}, fmt.Errorf("%w: credentials for %s: %w", ErrUnavailable, h.r.opts.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.absent = c.Absent
	return c, nil
}

// unarmed adds to a refusal that there was nothing to show, where somebody
// thought that there was.
func (h *host) unarmed() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.absent == "" {
		return ""
	}
	return ", and " + h.absent
}

// introduce asks /v2/ once what the host wants, where there are credentials to
// show: some hide what is private behind 404 until they see any, and say only
// there that they take them (Artifactory). An error says that it is still not
// known.
func (h *host) introduce(ctx context.Context) error {
	if !h.home || h.r.opts.Credentials == nil {
		return nil
	}
	h.mu.Lock()
	done := h.pinged || h.last.scheme != ""
	h.mu.Unlock()
	if done {
		return nil
	}
	waited := h.pings.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), tokenWait, ErrTimeout) // others wait for it too
		defer cancel()
		resp, err := h.r.roundTrip(ctx, ask{kind: "ping", method: http.MethodGet}, h, h.r.endpoint.ping(), "")
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized {
			_, err = h.learn("", resp)
		}
		if status := resp.StatusCode; !isRegistry(resp) || err != nil {
			return nil, fmt.Errorf("%w: /v2/ of %s answered %d, which does not say what it wants", ErrUnavailable, h.url.Host, status)
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
	// errNoChallenge and errNotTaken leave it to the answer itself to say why.
	errNoChallenge = errors.New("no challenge that is known")
	errNotTaken    = errors.New("what was shown is not taken")
)

// maxRounds bounds how often one question is asked of one host with something
// else to show: a token that is kept, one that is fresh, one more, none, one of
// another token server, and that one's once more.
const maxRounds = 6

// ask asks this host once, with what it wants. A 401 that comes back is its
// last word.
//
// What is shown goes from what is known to what the answer asks for. A token
// that is refused, expired perhaps, is dropped, and the host asked without
// any: what it says to a bad token may not be what it says to none. But an
// answer to a question without what it should have shown is only believed
// where it is a success: some hide behind 404 what they show to others.
func (h *host) ask(ctx context.Context, a ask, at *url.URL) (*http.Response, error) {
	failed := make(map[want]error) // what was tried to no avail
	owed := h.introduce(ctx)       // why what should be shown is not
	expected, own := h.known(a.repo)
	with, err := h.obtain(ctx, expected)
	if err != nil {
		if ctx.Err() != nil || expected.scheme != "bearer" {
			return nil, err
		}
		if !own && errors.Is(err, ErrDenied) {
			h.tellApart()
		}
		failed[expected], owed = err, err
	}
	var refused want
	bare := false
	for round := 1; ; round++ {
		bare = bare || with.header == ""
		resp, err := h.r.roundTrip(ctx, a, h, at, with.header)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized {
			if owed != nil && with.header == "" && isNo(resp.StatusCode) {
				drop(resp)
				return nil, owed
			}
			return resp, nil
		}
		if round == maxRounds {
			return resp, nil
		}
		if with.header != "" {
			if with.fresh && a.method == http.MethodHead {
				return resp, nil // the token is good, and it knows no HEAD: a GET will tell (W44)
			}
			h.r.tokens.Remove(h.tokenKey(with.by))
			switch {
			case with.by.scheme == "basic", with.fresh && refused == with.by:
				failed[with.by] = errNotTaken
			case with.fresh:
				refused = with.by // once it may be a mistake: not every server knows a new token at once
			}
		}
		asks, err := h.learn(a.repo, resp)
		if err == nil {
			err = failed[asks]
		}
		if err == nil {
			var next shown
			if next, err = h.obtain(ctx, asks); err == nil {
				drop(resp)
				with, owed = next, nil
				with.fresh = true
				continue
			}
			failed[asks] = err
		}
		switch {
		case ctx.Err() != nil:
			drop(resp)
			return nil, context.Cause(ctx)
		case !bare && with.by.scheme == "bearer":
			drop(resp)
			with, owed = shown{}, err
			if errors.Is(err, errNotTaken) {
				owed = fmt.Errorf("%w: %s does not take these credentials", ErrDenied, h.url.Host)
			}
		case errors.Is(err, errNoChallenge), errors.Is(err, errNotTaken):
			return resp, nil
		default:
			drop(resp)
			return nil, err
		}
	}
}

// isNo says whether a status may be a word about what was asked for; a limit and
// a failure are the host's own.
func isNo(status int) bool {
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// tellApart notes that one repository's token server does not serve another.
func (h *host) tellApart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.varies = true
}

// limited remembers for how long the host gives no more tokens.
func (h *host) limited(wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noTokens = time.Now().Add(wait)
}

// isLimited says for how long yet.
func (h *host) isLimited() (left time.Duration, limited bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	left = time.Until(h.noTokens)
	return left, left > 0
}
