package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// logins is a keychain that keeps a login until it is refused, and then has the
// next one, if there is another.
type logins struct {
	mu      sync.Mutex
	all     []upstream.Credentials
	perRepo map[string]upstream.Credentials
	refused int
}

func (l *logins) Account(repo string) string {
	if _, ok := l.perRepo[repo]; ok {
		return repo
	}
	return ""
}

func (l *logins) Credentials(_ context.Context, repo string) (upstream.Credentials, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.perRepo[repo]; ok {
		return c, nil
	}
	return l.all[0], nil
}

func (l *logins) Reject(_ string, refused upstream.Credentials) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	if len(l.all) > 1 && refused == l.all[0] {
		l.all = l.all[1:]
	}
}

func (l *logins) use(o *upstream.RemoteOptions) { o.Credentials = l }

func TestRefusedCredentialsAreLookedUpAgainOnce(t *testing.T) {
	expired, good := upstream.Credentials{Username: "me", Password: "expired"}, upstream.Credentials{Username: "me", Password: password}
	for name, c := range map[string]struct {
		auth    upstreamtest.Auth
		forbids bool // with 403
	}{
		"basic":          {auth: upstreamtest.Auth{Scheme: "basic", Username: "me", Password: password}},
		"basic with 403": {auth: upstreamtest.Auth{Scheme: "basic", Username: "me", Password: password}, forbids: true},
		"token":          {auth: upstreamtest.Auth{Scheme: "token", Username: "me", Password: password}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(c.auth))
			image, _ := fake.AddImage("app", "1", []byte("layer"))
			if c.forbids { // as ECR says that a token has expired
				fake.Always("GET manifests", func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, _ upstreamtest.Request) {
					switch _, given, ok := req.BasicAuth(); {
					case !ok:
						w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
						w.WriteHeader(http.StatusUnauthorized)
					case given != password:
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(http.StatusForbidden)
						_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
					default:
						w.Header().Set("Content-Type", image.MediaType)
						_, _ = io.WriteString(w, "{}")
					}
				})
			}
			keys := &logins{all: []upstream.Credentials{expired, good}}
			r := remote(t, fake.URL(), keys.use)
			for range 5 {
				content, err := r.Manifest(t.Context(), "app", "1")
				if err != nil {
					t.Fatal(err)
				}
				content.Body.Close()
			}
			if keys.refused != 1 {
				t.Errorf("%d refusals were reported, want one", keys.refused)
			}

			keys = &logins{all: []upstream.Credentials{expired}}
			if _, err := remote(t, fake.URL(), keys.use).Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrDenied) || keys.refused != 1 {
				t.Errorf("nothing else is there: %v after %d refusals", err, keys.refused)
			}
		})
	}
}

func TestARegistryTokenIsSentAsItIs(t *testing.T) {
	for name, challenge := range map[string]string{"bearer": `Bearer realm="/token",service="x"`, "basic": `Basic realm="x"`} {
		t.Run(name, func(t *testing.T) {
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/token"):
					t.Errorf("the token server is asked: %s", r.URL)
				case r.Header.Get("Authorization") != "Bearer rt":
					w.Header().Set("WWW-Authenticate", strings.Replace(challenge, "/token", server.URL+"/token", 1))
					w.WriteHeader(http.StatusUnauthorized)
				default:
					w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					_, _ = io.WriteString(w, "{}")
				}
			}))
			defer server.Close()
			keys := &logins{all: []upstream.Credentials{{RegistryToken: "rt"}}}
			c, err := remote(t, server.URL, keys.use).Manifest(t.Context(), "app", "1")
			if err != nil {
				t.Fatal(err)
			}
			c.Body.Close()
		})
	}
}

// A token opens what its account may read, and nothing of another account.
func TestTokensAreNotSharedBetweenAccounts(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		owner, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
		switch {
		case r.URL.Path == "/token":
			if r.FormValue("scope") != "aws" {
				_, _ = io.WriteString(w, `{"token":"nobody","expires_in":300}`)
				return
			}
			mu.Lock()
			asked[user]++
			mu.Unlock()
			_, _ = io.WriteString(w, `{"token":"`+user+`","expires_in":300}`)
		case r.Header.Get("Authorization") == "Bearer "+owner:
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(w, "{}")
		default: // one scope for all, as public.ecr.aws has
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`/token",service="x",scope="aws"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	keys := &logins{all: []upstream.Credentials{{Username: "anna", Password: "a"}}, perRepo: map[string]upstream.Credentials{"bert/app": {Username: "bert", Password: "b"}}}
	r := remote(t, server.URL, keys.use)
	for range 3 {
		for _, repo := range []string{"anna/app", "bert/app", "anna/other"} {
			c, err := r.Manifest(t.Context(), repo, "1")
			if err != nil {
				t.Fatalf("%s: %v", repo, err)
			}
			c.Body.Close()
		}
	}
	if asked["anna"] != 1 || asked["bert"] != 1 {
		t.Errorf("tokens were asked for by %v, want one for each account", asked)
	}
}
