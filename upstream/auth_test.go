package upstream_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const password = "hunter2-secret"

func as(user, pass string) func(*upstream.RemoteOptions) {
	return func(o *upstream.RemoteOptions) {
		o.Credentials = upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) {
			return upstream.Credentials{Username: user, Password: pass}, nil
		})
	}
}

// W40: one token a scope, shared.
func TestTokensAreSharedPerScope(t *testing.T) {
	for name, auth := range map[string]upstreamtest.Auth{
		"anonymous":        {Scheme: "token"},
		"with credentials": {Scheme: "token", Username: "me", Password: password},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(auth))
			fake.AddImage("app", "1", []byte("layer"))
			fake.AddImage("other", "1", []byte("layer"))
			r := remote(t, fake.URL(), as(auth.Username, auth.Password))
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					for _, repo := range []string{"app", "other"} {
						if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			tokens := 0
			for _, line := range fake.Transcript() {
				if strings.HasPrefix(line, "GET token") {
					tokens++
				}
			}
			if tokens != 2 {
				t.Errorf("%d tokens were asked for, want one for each of two repositories", tokens)
			}
		})
	}
}

func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	// A token of one second is renewed after 0.8 of it: at once, for a test
	// that waits for the clock of the registry.
	fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "token", ExpiresIn: 1}))
	fake.AddImage("app", "1", []byte("layer"))
	r := remote(t, fake.URL(), nil)
	refused := 0
	for i := range 12 {
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		wait(t, 150)
	}
	lines := fake.Transcript()
	tokens := len(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "GET token") }))
	for _, l := range lines {
		if strings.HasPrefix(l, "HEAD manifests") {
			refused++
		}
	}
	if tokens < 2 || refused != 13 {
		t.Errorf("%d tokens and %d questions for twelve answers: want at least two, and one refusal at the start", tokens, refused)
	}
}

// wait lets milliseconds of the registry's own clock pass.
func wait(t *testing.T, ms int) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	fake := upstreamtest.New(t)
	fake.AddImage("w", "1", nil)
	fake.Always("", upstreamtest.LateMillis(ms))
	if _, err := remote(t, fake.URL(), nil).Resolve(t.Context(), "w", "1"); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedCredentialsAreDeniedAndNotShown(t *testing.T) {
	for name, auth := range map[string]upstreamtest.Auth{
		"basic": {Scheme: "basic", Username: "me", Password: "right"},
		"token": {Scheme: "token", Username: "me", Password: "right"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(auth))
			fake.AddImage("app", "1", []byte("layer"))
			_, err := remote(t, fake.URL(), as("me", password)).Resolve(t.Context(), "app", "1")
			if !errors.Is(err, upstream.ErrDenied) || !strings.Contains(err.Error(), "hub.test") {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Error("the error shows the password")
			}
			if _, err := remote(t, fake.URL(), as("me", "right")).Resolve(t.Context(), "app", "1"); err != nil {
				t.Errorf("with the right password: %v", err)
			}
		})
	}
}

func TestARefusalSaysWhereCredentialsWereLookedFor(t *testing.T) {
	const absent = "config.json has nothing for hub.test"
	none := func(o *upstream.RemoteOptions) {
		o.Credentials = upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) { return upstream.Credentials{Absent: absent}, nil })
	}
	for name, auth := range map[string]upstreamtest.Auth{
		"basic": {Scheme: "basic", Username: "me", Password: password},
		"token": {Scheme: "token", Username: "me", Password: password},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(auth))
			fake.AddImage("app", "1", []byte("layer"))
			_, err := remote(t, fake.URL(), none).Resolve(t.Context(), "app", "1")
			if !errors.Is(err, upstream.ErrDenied) || !strings.HasSuffix(err.Error(), ", and "+absent) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a token for everybody, which opens nothing", func(t *testing.T) {
		fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "token"}))
		fake.AddImage("app", "1", []byte("layer"))
		r := remote(t, fake.URL(), none)
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Fatalf("what everybody may read: %v", err)
		}
		fake.Always("", upstreamtest.Status(http.StatusForbidden, "DENIED"))
		_, err := r.Resolve(t.Context(), "app", "1")
		if !errors.Is(err, upstream.ErrDenied) || !strings.HasSuffix(err.Error(), ", and "+absent) {
			t.Errorf("got %v", err)
		}
	})
}

// W40: the realm is of the registry's own domain, or named in the configuration.
func TestRealms(t *testing.T) {
	for realm, trusted := range map[string]bool{
		"https://tokens.elsewhere.test/": false,
		"http://127.0.0.2/token":         false,
		"ftp://127.0.0.1/":               false,
		"":                               false,
	} {
		fake := upstreamtest.New(t)
		fake.Always("", func(_ *upstreamtest.Registry, w http.ResponseWriter, _ *http.Request, _ upstreamtest.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		})
		asked := false
		_, err := remote(t, fake.URL(), func(o *upstream.RemoteOptions) {
			o.Credentials = upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) {
				asked = true
				return upstream.Credentials{Username: "me", Password: password}, nil
			})
		}).Resolve(t.Context(), "app", "1")
		if (err == nil) != trusted || asked != trusted {
			t.Errorf("realm %q: %v, credentials asked for: %v", realm, err, asked)
		}
	}
}

// A configuration that names a host as trusted does not say that passwords may be
// sent to it in the clear.
func TestATrustedRealmOfAnHTTPSRegistryIsHTTPS(t *testing.T) {
	for _, trusted := range []string{"127.0.0.1", "localhost"} {
		var got []string
		tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("Authorization"))
			_, _ = io.WriteString(w, `{"token":"t"}`)
		}))
		defer tokens.Close()
		realm := strings.Replace(tokens.URL, "127.0.0.1", trusted, 1)
		registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, realm))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer registry.Close()
		_, err := remote(t, registry.URL, func(o *upstream.RemoteOptions) {
			as("me", password)(o)
			o.InsecureSkipVerify = true
			o.TrustedRealms = []string{trusted}
		}).Resolve(t.Context(), "app", "1")
		if err == nil || !strings.Contains(err.Error(), "without https") || len(got) > 0 {
			t.Errorf("%s: %v, and the token server got %q", realm, err, got)
		}
	}
}

// W41: credentials stay with the registry, and redirects within the rules.
func TestRedirects(t *testing.T) {
	content := upstreamtest.Bytes(1, 1000)
	var seen http.Header
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		_, _ = w.Write(content)
	}))
	defer store.Close()
	fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "basic", Username: "me", Password: password}))
	blob := fake.AddBlob("app", content)
	fake.Always("GET blobs", upstreamtest.Redirect(store.URL+"/signed?key=secret"))
	c, err := remote(t, fake.URL(), as("me", password)).Blob(t.Context(), "app", blob.Digest, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Body.Close()
	if got, err := io.ReadAll(c.Body); err != nil || string(got) != string(content) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if seen.Get("Authorization") != "" || strings.Contains(fmt.Sprint(seen), base64.StdEncoding.EncodeToString([]byte("me:"+password))) {
		t.Errorf("the store was shown credentials: %v", seen)
	}
	for name, to := range map[string]string{
		"another scheme":   "file:///etc/passwd",
		"a link-local":     "http://169.254.169.254/latest",
		"nowhere":          "",
		"a private subnet": "http://10.255.255.1:1/x?key=secret",
	} {
		fake.Mend()
		fake.Always("GET blobs", upstreamtest.Redirect(to))
		_, err := remote(t, fake.URL(), as("me", password)).Blob(t.Context(), "app", blob.Digest, 0, -1)
		if !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("a redirect to %s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a redirect to %s: the error shows a signed URL: %v", name, err)
		}
	}
}

// W55, W43: what counts as no Referrers API, for this request and for all.
func TestNoReferrersAPI(t *testing.T) {
	subject := upstreamtest.New(t).AddBlob("x", []byte("subject")).Digest
	plain := func(status int, body string) upstreamtest.Fault {
		return func(_ *upstreamtest.Registry, w http.ResponseWriter, _ *http.Request, _ upstreamtest.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		fault    upstreamtest.Fault
		is       error
		forGood  bool
		answered bool
	}{
		"404 of a route that is not there": {fault: plain(404, "404 page not found"), is: upstream.ErrUnsupported, forGood: true},
		"404 of a manifest":                {fault: upstreamtest.Status(404, "MANIFEST_UNKNOWN"), is: upstream.ErrUnsupported},
		"404 of a repository":              {fault: upstreamtest.Status(404, "NAME_UNKNOWN"), is: upstream.ErrUnsupported},
		"400, as Quay says":                {fault: upstreamtest.Status(400, "MANIFEST_INVALID"), is: upstream.ErrUnsupported},
		"400 of anybody":                   {fault: plain(400, ""), is: upstream.ErrInvalidResponse},
		"405":                              {fault: plain(405, ""), is: upstream.ErrUnsupported, forGood: true},
		"406":                              {fault: plain(406, ""), is: upstream.ErrUnsupported, forGood: true},
		"a redirect, as GHCR sends":        {fault: upstreamtest.Redirect("https://web.test/"), is: upstream.ErrUnsupported, forGood: true},
		"a web page":                       {fault: upstreamtest.HTML(), is: upstream.ErrInvalidResponse},
		"404 with a web page":              {fault: plain(404, "<html>not found</html>"), is: upstream.ErrInvalidResponse},
		"401":                              {fault: upstreamtest.Status(401, "UNAUTHORIZED"), is: upstream.ErrDenied},
		"403":                              {fault: upstreamtest.Status(403, "DENIED"), is: upstream.ErrDenied},
		"500":                              {fault: plain(500, ""), is: upstream.ErrUnavailable},
		"503":                              {fault: plain(503, ""), is: upstream.ErrUnavailable},
		"an index that is none": {fault: func(_ *upstreamtest.Registry, w http.ResponseWriter, _ *http.Request, _ upstreamtest.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = io.WriteString(w, `{"manifests":`)
		}, is: upstream.ErrUnavailable},
	} {
		fake := upstreamtest.New(t)
		fake.Always("GET referrers", c.fault)
		_, err := remote(t, fake.URL(), nil).Referrers(t.Context(), "app", subject)
		if !errors.Is(err, c.is) || errors.Is(err, upstream.ErrNoAPI) != c.forGood {
			t.Errorf("%s: %v, want %v, for good: %v", name, err, c.is, c.forGood)
		}
	}
}

// W2, W3, W42.
func TestWhatIsAskedAndHeard(t *testing.T) {
	var seen http.Header
	fake := upstreamtest.New(t)
	fake.Always("", func(_ *upstreamtest.Registry, w http.ResponseWriter, r *http.Request, _ upstreamtest.Request) {
		seen = r.Header
		w.Header().Set("RateLimit-Limit", "200;w=21600")
		w.Header().Set("RateLimit-Remaining", "20;w=21600")
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
		w.Header().Add("Warning", `299 - "soon to go"`)
		w.Header().Add("Warning", `110 - "not ours to pass on"`)
		_, _ = io.WriteString(w, "{}")
	})
	var quota upstream.Quota
	r := remote(t, fake.URL(), func(o *upstream.RemoteOptions) {
		o.Observe = func(o upstream.Observation) { quota.Observe(o.Limit, o.Remaining, o.Window) }
	})
	c, err := r.Manifest(t.Context(), "app", "1")
	if err != nil {
		t.Fatal(err)
	}
	c.Body.Close()
	if got := seen.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("W2: the request allowed compression: %q", got)
	}
	for _, want := range []string{"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.v1+prettyjws", "*/*"} {
		if !strings.Contains(seen.Get("Accept"), want) {
			t.Errorf("W3: %s is not accepted", want)
		}
	}
	if c.MediaType != "application/vnd.oci.image.index.v1+json" {
		t.Errorf("the media type is %q", c.MediaType)
	}
	if !slices.Equal(c.Warnings, []string{`299 - "soon to go"`}) {
		t.Errorf("the warnings are %q", c.Warnings)
	}
	if got := quota.Share(); got != 0.1 {
		t.Errorf("W42: a share of %v is left, want 0.1", got)
	}
}

// TestAPanicCostsTheRequestsThatShareItsTask (13.1): a token and what a registry
// requires are found out once, for all requests that need it.
func TestAPanicCostsTheRequestsThatShareItsTask(t *testing.T) {
	for _, kind := range []string{"ping", "token"} {
		t.Run(kind, func(t *testing.T) {
			var told atomic.Int64
			panics.Handle(func(string, any, []byte) { told.Add(1) })
			defer panics.Handle(nil)
			fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "token", Username: "me", Password: password}))
			fake.AddImage("app", "1", []byte("layer"))
			var now atomic.Bool
			now.Store(true)
			r := remote(t, fake.URL(), func(opts *upstream.RemoteOptions) {
				as("me", password)(opts)
				opts.Observe = func(o upstream.Observation) {
					if o.Kind == kind && now.Load() {
						panic("broken")
					}
				}
			})
			// Without an answer to its ping, a request finds out by itself.
			if _, err := r.Resolve(t.Context(), "app", "1"); errors.Is(err, panics.ErrPanic) != (kind == "token") || told.Load() == 0 {
				t.Errorf("Resolve: %v, and %d panics were told of", err, told.Load())
			}
			now.Store(false)
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Errorf("then Resolve: %v", err)
			}
		})
	}
}
