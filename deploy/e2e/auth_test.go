package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// The mirror's account at the upstream.
const (
	account  = "mirror"
	password = "correct horse battery staple"
)

// guard is how an upstream wants to be shown credentials.
type guard struct {
	name  string
	start func(*testing.T, *suite) *upstream
}

var guards = []guard{
	{"Basic, by distribution's htpasswd", func(t *testing.T, s *suite) *upstream { return s.startHtpasswd(t) }},
	{"Bearer, by a token server", func(t *testing.T, s *suite) *upstream { return s.startTokens(t) }},
}

// source is where the mirror has its credentials from.
type source struct {
	name string
	// tell makes the mirror find a secret there, now and where it is running.
	tell func(t *testing.T, m *mirror, secret string)
}

var sources = []source{{"`password_file`", passwordFile}, {"`docker_config`, a credential helper", credentialHelper}}

func TestTheMirrorHasCredentialsOfItsOwn(t *testing.T) {
	s := newSuite(t)
	img := s.images[1]
	results := &table{}
	t.Run("upstreams", func(t *testing.T) {
		for _, g := range guards {
			for _, from := range sources {
				t.Run(g.name+"/"+from.name, func(t *testing.T) {
					t.Parallel()
					up := g.start(t, s)
					m := s.newMirror(t, up)
					from.tell(t, m, "a wrong password")
					m.configure(t, time.Hour)
					m.start(t)
					took := checkDenied(t, s, m, img)

					// A password is read when it is used.
					from.tell(t, m, password)
					time.Sleep(2 * time.Second) // a helper that was refused twice is not run again for one
					up.take()
					for _, c := range []client{s.startCrane(t, m), s.startOras(t, m)} {
						c.pull(t, img)
						c.check(t, img)
					}
					m.waitAllLearnt(t)
					asked, _ := up.take().apart()
					checkFirst(t, asked.where(func(r request) bool { return r.status != http.StatusUnauthorized }), []image{img})
					t.Logf("the upstream is asked %s", asked.summary())
					results.add(g.name, from.name, took, "pulled by crane, pulled by oras", asked.summary())
				})
			}
		}
	})
	put(t, "credentials", `## Credentials

Upstreams that want a user name and password, which only the mirror has: crane and oras pull through it without any. The
mirror is started with a wrong password, which is then put right where it is kept.

`+results.sorted("the upstream asks for", "the mirror has them from", "with the wrong password", "with the right one", "asked of the upstream"))
}

// checkDenied checks that a client is told fast, and by whom, that the mirror's
// credentials are not taken.
func checkDenied(t *testing.T, s *suite, m *mirror, img image) string {
	t.Helper()
	for _, ref := range []string{img.tag, img.digest} {
		began := time.Now()
		resp, err := http.Get("http://" + m.address + "/v2/registry.example/" + img.repository + "/manifests/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var answer struct {
			Errors []struct{ Code, Message string }
		}
		if err != nil || json.Unmarshal(body, &answer) != nil || len(answer.Errors) != 1 {
			t.Fatalf("the answer is %v, %q", err, body)
		}
		if resp.StatusCode != http.StatusForbidden || answer.Errors[0].Code != "DENIED" || !strings.Contains(answer.Errors[0].Message, "registry.example") {
			t.Errorf("with a wrong password: %s, %s, want 403 DENIED of registry.example", resp.Status, body)
		}
		if strings.Contains(string(body), "wrong password") {
			t.Errorf("the password is in the answer: %s", body)
		}
		checkFast(t, began)
	}
	for _, program := range []struct {
		tool string
		args []string
	}{{"crane", []string{"digest"}}, {"oras", []string{"manifest", "fetch", "--plain-http"}}} {
		began := time.Now()
		dir := s.folder(t)
		stdout, stderr, err := try(t.Context(), dir, environment(dir), s.tool(t, program.tool).program(program.tool), append(program.args, m.address+"/"+img.reference())...)
		if err == nil {
			t.Errorf("%s succeeds with a wrong password: %s", program.tool, stdout)
		}
		if !strings.Contains(strings.ToLower(stderr), "denied: ") || !strings.Contains(stderr, " of registry.example") {
			t.Errorf("%s is not told by whom it is denied but %s", program.tool, stderr)
		}
		checkFast(t, began)
	}
	return "403 that names it"
}

// checkFast checks that a refusal lets a runtime move on.
func checkFast(t *testing.T, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the refusal takes %s", took)
	}
}

func passwordFile(t *testing.T, m *mirror, secret string) {
	t.Helper()
	file := filepath.Join(m.dir, "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.settings = fmt.Sprintf("    credentials: {username: %s, password_file: %q}", account, file)
}

// credentialHelper is one of Docker's: a program that is named in config.json
// and found in the path.
func credentialHelper(t *testing.T, m *mirror, secret string) {
	t.Helper()
	bin := filepath.Join(m.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		filepath.Join(m.dir, "config.json"): `{"credHelpers": {"registry.example": "test"}}`,
		filepath.Join(bin, "docker-credential-test"): `#!/bin/sh
read -r server
[ "$1" = get ] && [ "$server" = registry.example ] || exit 1
printf '{"ServerURL": "%s", "Username": "` + account + `", "Secret": "%s"}' "$server" "$(cat "$0.secret")"
`,
		filepath.Join(bin, "docker-credential-test.secret"): secret,
	} {
		if err := os.WriteFile(file, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.settings = "    credentials: {docker_config: true}"
	m.env = append(environment(m.dir, bin), "DOCKER_CONFIG="+m.dir)
}

// startHtpasswd serves the suite's images to whoever has the password.
func (s *suite) startHtpasswd(t *testing.T) *upstream {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.folder(t), "htpasswd")
	if err := os.WriteFile(file, []byte(account+":"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := s.startDistribution(t, s.store, fmt.Sprintf("auth: {htpasswd: {realm: e2e, path: %q}}\n", file))
	return s.serveUpstream(t, reverseProxy(registry.host), func(t *testing.T) { registry.process.end(t, syscall.SIGTERM) })
}

// startTokens serves the suite's images to whoever has a token for the
// repository, which a server of its own gives for the password.
func (s *suite) startTokens(t *testing.T) *upstream {
	t.Helper()
	registry := s.startDistribution(t, s.store)
	tokens := &tokenServer{next: reverseProxy(registry.host), given: map[string]string{}}
	server := s.serveUpstream(t, http.HandlerFunc(tokens.give), func(*testing.T) {})
	tokens.realm = "http://" + server.host + "/token"
	t.Cleanup(func() {
		if n := len(tokens.given); !t.Failed() && n != 1 {
			t.Errorf("%d tokens were given for one repository", n)
		}
	})
	return s.serveUpstream(t, tokens, func(t *testing.T) { registry.process.end(t, syscall.SIGTERM) })
}

// tokenServer stands before a registry, and lets in who shows it a token.
type tokenServer struct {
	realm string
	next  http.Handler

	mu    sync.Mutex
	given map[string]string // scopes, by token
}

const service = "registry.example"

// give answers requests for tokens.
func (s *tokenServer) give(w http.ResponseWriter, r *http.Request) {
	user, secret, ok := r.BasicAuth()
	if !ok || user != account || secret != password || r.FormValue("service") != service {
		http.Error(w, `{"details": "incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	value := rand.Text()
	s.mu.Lock()
	s.given[value] = r.FormValue("scope")
	s.mu.Unlock()
	fmt.Fprintf(w, `{"token": %q, "expires_in": 3600}`, value)
}

// ServeHTTP wants a token whose scope is to pull from the very repository.
func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repository := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		repository, _, _ = strings.Cut(repository, part)
	}
	scope := "repository:" + repository + ":pull"
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	allowed := s.given[value] == scope
	s.mu.Unlock()
	if !allowed {
		w.Header().Set("WWW-Authenticate", "Bearer realm="+strconv.Quote(s.realm)+",service="+strconv.Quote(service)+",scope="+strconv.Quote(scope))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`) // The client may have left.
		return
	}
	s.next.ServeHTTP(w, r)
}
