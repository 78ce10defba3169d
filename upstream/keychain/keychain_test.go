package keychain

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream"
)

// home makes a home without any credentials.
func home(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	at := t.TempDir()
	t.Setenv("HOME", at)
	t.Setenv("USERPROFILE", at)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(at, "run"))
	return at
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func encoded(password string) string {
	return base64.StdEncoding.EncodeToString([]byte("me:" + password))
}

// auths is a file with a password for each key: "for " and the key.
func auths(keys ...string) string {
	var entries []string
	for _, key := range keys {
		entries = append(entries, fmt.Sprintf("%q: {%q: %q}", key, "auth", encoded("for "+key)))
	}
	return `{"auths": {` + strings.Join(entries, ", ") + "}}"
}

const dockerFile, podmanFile = ".docker/config.json", ".config/containers/auth.json"

// keychainOf returns the keychain of an upstream, and its log.
func keychainOf(name, host, prefix string, aliases ...string) (*Keychain, *bytes.Buffer) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	return New(Options{
		Files: NewFiles(logger), Helpers: NewHelpers(), Log: logger,
		Upstream: name, Aliases: aliases, Host: host, Prefix: prefix,
	}), &log
}

// want asks twice for a repository's credentials.
func (k *Keychain) want(t *testing.T, repo string, want upstream.Credentials) {
	t.Helper()
	for range 2 {
		if got, err := k.Credentials(t.Context(), repo); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", repo, got, err, want)
		}
	}
}

func TestTheMostSpecificEntryIsUsed(t *testing.T) {
	const server = "https://index.docker.io/v1/"
	for _, c := range []struct {
		name           string
		keys           []string
		upstream, host string
		prefix, repo   string
		want           string // the key that is used; empty if there is none
	}{
		{name: "by the name", keys: []string{"reg.example"}, upstream: "reg.example", host: "reg.example", want: "reg.example"},
		{name: "by the name of another's endpoint", keys: []string{"reg.example"}, upstream: "reg.example", host: "127.0.0.1:5000", want: "reg.example"},
		{name: "by the endpoint's host", keys: []string{"harbor.example"}, upstream: "quay.io", host: "harbor.example", prefix: "quay-proxy", want: "harbor.example"},
		{name: "by the endpoint's host and port", keys: []string{"harbor.example:8443"}, upstream: "quay.io", host: "harbor.example:8443", want: "harbor.example:8443"},
		{name: "the port is part of the name", keys: []string{"harbor.example:8443"}, upstream: "harbor.example", host: "harbor.example"},
		{name: "the usual port is not", keys: []string{"harbor.example:443"}, upstream: "harbor.example", host: "harbor.example", want: "harbor.example:443"},
		{name: "a name in capitals", keys: []string{"Harbor.Example"}, upstream: "harbor.example", host: "harbor.example", want: "Harbor.Example"},
		{name: "the endpoint's own before the name's", keys: []string{"quay.io", "harbor.example"}, upstream: "quay.io", host: "harbor.example", want: "harbor.example"},
		{name: "the endpoint's own before a more specific one of the name", keys: []string{"quay.io/team", "harbor.example"}, upstream: "quay.io", host: "harbor.example", repo: "team/app", want: "harbor.example"},

		{name: "Docker Hub as docker login writes it", keys: []string{server}, upstream: "docker.io", host: "registry-1.docker.io", want: server},
		{name: "Docker Hub as podman login writes it", keys: []string{"docker.io"}, upstream: "docker.io", host: "registry-1.docker.io", want: "docker.io"},
		{name: "Docker Hub as index.docker.io", keys: []string{"index.docker.io"}, upstream: "docker.io", host: "registry-1.docker.io", want: "index.docker.io"},
		{name: "Docker Hub as index.docker.io/v1", keys: []string{"index.docker.io/v1"}, upstream: "docker.io", host: "registry-1.docker.io", want: "index.docker.io/v1"},
		{name: "Docker Hub by its endpoint", keys: []string{"registry-1.docker.io", server}, upstream: "docker.io", host: "registry-1.docker.io", want: "registry-1.docker.io"},
		{name: "Docker Hub by a name of one's own", keys: []string{"docker.io"}, upstream: "hub", host: "registry-1.docker.io", want: "docker.io"},
		{name: "Docker Hub by another's endpoint", keys: []string{"docker.io", "harbor.example"}, upstream: "docker.io", host: "harbor.example", prefix: "hub", want: "harbor.example"},
		{name: "Docker Hub's path before its host", keys: []string{server, "docker.io/team"}, upstream: "docker.io", host: "registry-1.docker.io", repo: "team/app", want: "docker.io/team"},
		{name: "Docker Hub's path for another team", keys: []string{server, "docker.io/team"}, upstream: "docker.io", host: "registry-1.docker.io", repo: "library/alpine", want: server},

		{name: "an old entry, which is a URL", keys: []string{"https://harbor.example/v1/"}, upstream: "quay.io", host: "harbor.example", want: "https://harbor.example/v1/"},
		{name: "the URL of the API", keys: []string{"https://harbor.example/v2/"}, upstream: "quay.io", host: "harbor.example", want: "https://harbor.example/v2/"},
		{name: "a URL with a path", keys: []string{"https://harbor.example/v2/team"}, upstream: "harbor.example", host: "harbor.example", repo: "team/app", want: "https://harbor.example/v2/team"},

		{name: "a wildcard", keys: []string{"*.example.com"}, upstream: "a.example.com", host: "a.example.com", want: "*.example.com"},
		{name: "a wildcard is one label", keys: []string{"*.example.com"}, upstream: "a.b.example.com", host: "a.b.example.com"},
		{name: "a wildcard is no name without it", keys: []string{"*.example.com"}, upstream: "example.com", host: "example.com"},
		{name: "a wildcard in the middle", keys: []string{"k8s.*.io"}, upstream: "k8s.gcr.io", host: "k8s.gcr.io", want: "k8s.*.io"},
		{name: "a part of a label", keys: []string{"app*.example.com"}, upstream: "app7.example.com", host: "app7.example.com", want: "app*.example.com"},
		{name: "a wildcard with the port", keys: []string{"*.example.com:8443"}, upstream: "x", host: "a.example.com:8443", want: "*.example.com:8443"},
		{name: "a wildcard without the port", keys: []string{"*.example.com"}, upstream: "x", host: "a.example.com:8443"},
		{name: "a wildcard with a path", keys: []string{"*.example.com/team", "*.example.com"}, upstream: "x", host: "a.example.com", repo: "team/app", want: "*.example.com/team"},
		{name: "an exact host before a wildcard", keys: []string{"*.example.com", "a.example.com"}, upstream: "x", host: "a.example.com", want: "a.example.com"},
		{name: "a longer pattern before a shorter one", keys: []string{"*.*.com", "*.example.com"}, upstream: "x", host: "a.example.com", want: "*.example.com"},
		{name: "by an alias", keys: []string{"images.example"}, upstream: "x", host: "10.0.0.1:5000", want: "images.example"},

		{name: "a path", keys: []string{"quay.io/team"}, upstream: "quay.io", host: "quay.io", repo: "team/app", want: "quay.io/team"},
		{name: "the path itself", keys: []string{"quay.io/team/app"}, upstream: "quay.io", host: "quay.io", repo: "team/app", want: "quay.io/team/app"},
		{name: "a path of another team", keys: []string{"quay.io/team"}, upstream: "quay.io", host: "quay.io", repo: "other/app"},
		{name: "a path that begins with the same letters", keys: []string{"quay.io/team"}, upstream: "quay.io", host: "quay.io", repo: "teamwork/app"},
		{name: "the longest path", keys: []string{"quay.io", "quay.io/team", "quay.io/team/a", "quay.io/team/b"}, upstream: "quay.io", host: "quay.io", repo: "team/b/app", want: "quay.io/team/b"},
		{name: "the path that fits", keys: []string{"quay.io/team/a", "quay.io/team/b"}, upstream: "quay.io", host: "quay.io", repo: "team/a", want: "quay.io/team/a"},
		{name: "the host where no path fits", keys: []string{"quay.io", "quay.io/team"}, upstream: "quay.io", host: "quay.io", repo: "other/app", want: "quay.io"},
		{name: "a path at a proxy project", keys: []string{"harbor.example/quay"}, upstream: "quay.io", host: "harbor.example", prefix: "quay", repo: "quay/team/app", want: "harbor.example/quay"},
		{name: "a path of the registry behind a proxy project", keys: []string{"quay.io/team"}, upstream: "quay.io", host: "harbor.example", prefix: "quay", repo: "quay/team/app", want: "quay.io/team"},
		{name: "another project's path", keys: []string{"harbor.example/hub"}, upstream: "quay.io", host: "harbor.example", prefix: "quay", repo: "quay/hub/app"},
	} {
		for _, file := range []string{dockerFile, podmanFile} {
			t.Run(c.name+" in "+file, func(t *testing.T) {
				write(t, filepath.Join(home(t), file), auths(c.keys...))
				k, log := keychainOf(c.upstream, c.host, c.prefix, "images.example")
				if c.want == "" {
					if got, err := k.Credentials(t.Context(), c.repo); err != nil || got.Absent == "" || got.Username != "" {
						t.Errorf("got %+v, %v, want none", got, err)
					}
					return
				}
				k.want(t, c.repo, upstream.Credentials{Username: "me", Password: "for " + c.want})
				if log.Len() > 0 {
					t.Errorf("logged: %s", log)
				}
			})
		}
	}
}

func TestAccountsAreThoseOfTheEntries(t *testing.T) {
	write(t, filepath.Join(home(t), dockerFile), auths("quay.io", "quay.io/team"))
	k, _ := keychainOf("quay.io", "quay.io", "")
	if a, b, c := k.Account("team/a"), k.Account("team/b"), k.Account("other"); a == "" || a != b || a == c || c == "" {
		t.Errorf("%q, %q, %q", a, b, c)
	}
}

func TestNoFileHidesAnother(t *testing.T) {
	at := home(t)
	runtime, explicit, secret := filepath.Join(at, "run"), filepath.Join(at, "explicit.json"), filepath.Join(at, "secret")
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	t.Setenv("REGISTRY_AUTH_FILE", explicit)
	t.Setenv("DOCKER_CONFIG", secret)
	t.Setenv("DOCKER_AUTH_CONFIG", auths("environment.example"))
	write(t, explicit, auths("explicit.example", "twice.example"))
	write(t, filepath.Join(secret, "config.json"), auths("docker.example"))
	write(t, filepath.Join(secret, ".dockerconfigjson"), auths("secret.example"))
	write(t, filepath.Join(runtime, "containers/auth.json"), auths("runtime.example"))
	write(t, filepath.Join(at, podmanFile), `{"auths": {"podman.example": {"auth": "`+encoded("for podman.example")+`"}, "twice.example": {"auth": "`+encoded("of podman")+`"}}}`)
	write(t, filepath.Join(at, ".dockercfg"), `{"old.example": {"username": "me", "password": "for old.example", "email": "me@example"}}`)
	for _, name := range []string{"environment.example", "explicit.example", "docker.example", "secret.example", "runtime.example", "podman.example", "old.example", "twice.example"} {
		k, _ := keychainOf(name, name, "")
		k.want(t, "app", upstream.Credentials{Username: "me", Password: "for " + name})
	}
}

func TestAllKindsOfLoginAreUsed(t *testing.T) {
	for _, c := range []struct {
		name, entry string
		want        upstream.Credentials
	}{
		{"a password in auth", `{"auth": "` + encoded("a:b") + `"}`, upstream.Credentials{Username: "me", Password: "a:b"}},
		{"without padding", `{"auth": "` + strings.TrimRight(encoded("ab"), "=") + `"}`, upstream.Credentials{Username: "me", Password: "ab"}},
		{"padded with zeros", `{"auth": "` + encoded("ab\x00\x00") + `"}`, upstream.Credentials{Username: "me", Password: "ab"}},
		{"in the clear", `{"username": "me", "password": "ab", "email": "x@y"}`, upstream.Credentials{Username: "me", Password: "ab"}},
		{"auth comes first", `{"username": "you", "password": "x", "auth": "` + encoded("ab") + `"}`, upstream.Credentials{Username: "me", Password: "ab"}},
		{"an identity token", `{"identitytoken": "it"}`, upstream.Credentials{IdentityToken: "it"}},
		{"an identity token of nobody", `{"auth": "` + base64.StdEncoding.EncodeToString([]byte("0000:")) + `", "identitytoken": "it"}`, upstream.Credentials{Username: "0000", IdentityToken: "it"}},
		{"a registry token", `{"registrytoken": "rt"}`, upstream.Credentials{RegistryToken: "rt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, filepath.Join(home(t), dockerFile), `{"auths": {"quay.io": `+c.entry+`}}`)
			k, _ := keychainOf("quay.io", "quay.io", "")
			k.want(t, "app", c.want)
		})
	}
}

func TestABrokenEntryConcernsNobodyElse(t *testing.T) {
	broken := map[string]string{
		`"auths": {"other.example": {"auth": "%%%"}, "quay.io": %s}`:                        "other.example",
		`"auths": {"other.example": {"auth": "bm9jb2xvbg=="}, "quay.io": %s}`:               "other.example",
		`"auths": {"other.example": {"password": "hunter2"}, "quay.io": %s}`:                "other.example",
		`"auths": {"other.example": "hunter2", "quay.io": %s}`:                              "other.example",
		`"auths": {"https://": {"auth": "bWU6aHVudGVyMg=="}, "quay.io": %s}`:                "https://",
		`"auths": {"[.example": {"auth": "bWU6aHVudGVyMg=="}, "quay.io": %s}`:               "[.example",
		`"auths": {"quay.io/a*": {"auth": "bWU6aHVudGVyMg=="}, "quay.io": %s}`:              "quay.io/a*",
		`"credHelpers": {"other.example": "that-is-nowhere"}, "auths": {"quay.io": %s}`:     "that-is-nowhere",
		`"credHelpers": {"other.example": "../that-is-a-path"}, "auths": {"quay.io": %s}`:   "other.example",
		`"credHelpers": {"other.example": 7}, "auths": {"quay.io": %s}`:                     "other.example",
		`"auths": {"quay.io": {"auth": "%%%"}, "quay.io/team": %s}`:                         "quay.io",
		`"auths": {"other.example": {"identitytoken": 7}, "quay.io": %s}, "credsStore": ""`: "other.example",
	}
	for content, named := range broken {
		t.Run(named, func(t *testing.T) {
			path := filepath.Join(home(t), dockerFile)
			write(t, path, "{"+strings.Replace(content, "%s", `{"auth": "`+encoded("sesame")+`"}`, 1)+"}")
			k, log := keychainOf("quay.io", "quay.io", "")
			k.opts.Files.Announce()
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, named) || !strings.Contains(got, path) || strings.Contains(got, "hunter2") {
				t.Errorf("%s: logged at the start:\n%s", content, got)
			}
			k.want(t, "team/app", upstream.Credentials{Username: "me", Password: "sesame"})
			if got := log.String(); strings.Count(got, "\n") != 1 {
				t.Errorf("%s: logged again:\n%s", content, got)
			}
		})
	}
	t.Run("a whole file", func(t *testing.T) {
		at := home(t)
		write(t, filepath.Join(at, dockerFile), "{")
		write(t, filepath.Join(at, podmanFile), auths("quay.io"))
		k, _ := keychainOf("quay.io", "quay.io", "")
		k.want(t, "app", upstream.Credentials{Username: "me", Password: "for quay.io"})
	})
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for _, c := range []struct{ name, file, content, upstream, host, want string }{
		{"two names", dockerFile, auths("other.example"), "quay.io", "harbor.example:8443", "harbor.example:8443 or quay.io"},
		{"one", dockerFile, auths("other.example"), "quay.io", "quay.io", "quay.io"},
		{"Docker Hub", dockerFile, auths("other.example"), "docker.io", "registry-1.docker.io", "registry-1.docker.io, docker.io or index.docker.io"},
		{"Podman's file", podmanFile, auths("other.example"), "quay.io", "quay.io", "quay.io"},
		{"an empty entry", dockerFile, `{"auths": {"quay.io": {}}}`, "quay.io", "quay.io", "quay.io"},
		{"no file", "", "", "quay.io", "quay.io", "quay.io"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := home(t)
			path := filepath.Join(at, dockerFile) // where it would be
			if c.file != "" {
				path = filepath.Join(at, c.file)
				write(t, path, c.content)
			}
			k, log := keychainOf(c.upstream, c.host, "")
			k.Announce()
			k.want(t, "app", upstream.Credentials{Absent: "the Docker configuration of the mirror has nothing for " + c.want})
			wantLoggedOnce(t, log, "upstream="+c.upstream, path, c.want)
		})
	}
	t.Run("it can't be used", func(t *testing.T) {
		path := filepath.Join(home(t), dockerFile)
		write(t, path, "{")
		k, log := keychainOf("quay.io", "harbor.example", "")
		for range 2 {
			_, err := k.Credentials(t.Context(), "app")
			if want := "the Docker configuration of the mirror can't be used for harbor.example or quay.io; the mirror's log has the reason"; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		if got := log.String(); !strings.Contains(got, path) || strings.Count(got, "\n") != 2 {
			t.Errorf("logged:\n%s", got)
		}
	})
}

// wantLoggedOnce wants one warning with these words.
func wantLoggedOnce(t *testing.T, log *bytes.Buffer, words ...string) {
	t.Helper()
	logged := log.String()
	for _, word := range append(words, "level=WARN") {
		if !strings.Contains(logged, word) {
			t.Errorf("%q is not logged:\n%s", word, logged)
		}
	}
	if n := strings.Count(logged, "\n"); n != 1 {
		t.Errorf("%d lines are logged, want one:\n%s", n, logged)
	}
}

// A Secret is mounted as links into a folder that is exchanged as a whole.
func TestASecretThatRotatesIsReadAgain(t *testing.T) {
	at := home(t)
	secret := filepath.Join(at, "secret")
	t.Setenv("DOCKER_CONFIG", secret)
	rotate := func(name, password string) {
		t.Helper()
		write(t, filepath.Join(secret, name, ".dockerconfigjson"), `{"auths": {"quay.io": {"username": "me", "password": "`+password+`", "auth": "`+encoded(password)+`"}}}`)
		link := filepath.Join(secret, "..data_tmp")
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(secret, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	k, _ := keychainOf("quay.io", "quay.io", "")
	if got, err := k.Credentials(t.Context(), "app"); err != nil || got.Absent == "" {
		t.Errorf("nothing is mounted: %+v, %v", got, err)
	}
	rotate("..2026_01", "first")
	if err := os.Symlink(filepath.Join("..data", ".dockerconfigjson"), filepath.Join(secret, ".dockerconfigjson")); err != nil {
		t.Fatal(err)
	}
	k.want(t, "app", upstream.Credentials{Username: "me", Password: "first"})
	rotate("..2026_02", "again") // of the same size
	k.want(t, "app", upstream.Credentials{Username: "me", Password: "again"})
	if err := os.RemoveAll(filepath.Join(secret, "..2026_02")); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Credentials(t.Context(), "app"); err != nil || got.Absent == "" {
		t.Errorf("it is gone: %+v, %v", got, err)
	}
}
