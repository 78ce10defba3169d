package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

// loggedIn makes a home with Docker's configuration in it, or Podman's, that
// has a password, which is the key backwards, for each key.
func loggedIn(t *testing.T, file string, keys ...string) (path string) {
	t.Helper()
	home := t.TempDir()
	for _, name := range []string{"DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	if strings.Contains(file, "config.json") {
		t.Setenv("DOCKER_CONFIG", filepath.Join(home, filepath.Dir(file))) // else the first test's home is every test's
	}
	var entries []string
	for _, key := range keys {
		entries = append(entries, fmt.Sprintf("%q: {%q: %q}", key, "auth", base64.StdEncoding.EncodeToString([]byte("me:for "+key))))
	}
	path = filepath.Join(home, file)
	content := "{\"auths\": {" + strings.Join(entries, ", ") + "}}"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lookUp asks twice, and returns what was logged.
func lookUp(t *testing.T, name, endpoint string) (l registryLogin, logged string, err error) {
	t.Helper()
	at, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	get := credentials(config.Credentials{DockerConfig: true}, name, at, slog.New(slog.NewTextHandler(&log, nil)))
	first, firstErr := get(context.Background())
	l, err = get(context.Background())
	if l != first || fmt.Sprint(err) != fmt.Sprint(firstErr) {
		t.Errorf("asked twice it answers %+v, %v, then %+v, %v", first, firstErr, l, err)
	}
	return l, log.String(), err
}

func TestDockersConfigurationIsAskedForTheEndpointAndForTheName(t *testing.T) {
	const docker, hub = ".docker/config.json", "https://index.docker.io/v1/"
	for _, c := range []struct {
		name           string
		file           string
		keys           []string
		upstream, from string // the endpoint
		want           string // the key that is taken
	}{
		{"by the name", docker, []string{"reg.example"}, "reg.example", "https://reg.example", "reg.example"},
		{"by the name of another's endpoint", docker, []string{"reg.example"}, "reg.example", "http://127.0.0.1:5000", "reg.example"},
		{"by the endpoint's host, as docker login writes it", docker, []string{"harbor.example"}, "quay.io", "https://harbor.example/v2/quay-proxy", "harbor.example"},
		{"by the endpoint's host and port", docker, []string{"harbor.example:8443"}, "quay.io", "https://harbor.example:8443", "harbor.example:8443"},
		{"by the endpoint's host without the usual port", docker, []string{"harbor.example"}, "quay.io", "https://harbor.example:443", "harbor.example"},
		{"the endpoint's own before the name's", docker, []string{"quay.io", "harbor.example"}, "quay.io", "https://harbor.example", "harbor.example"},
		{"Docker Hub", docker, []string{hub}, "docker.io", "https://registry-1.docker.io", hub},
		{"Docker Hub by its endpoint", docker, []string{"registry-1.docker.io", hub}, "docker.io", "https://registry-1.docker.io", "registry-1.docker.io"},
		{"Docker Hub by another's endpoint", docker, []string{hub, "harbor.example"}, "docker.io", "https://harbor.example/v2/hub", "harbor.example"},
		{"an old entry, which is a URL", docker, []string{"https://harbor.example/v1/"}, "quay.io", "https://harbor.example", "https://harbor.example/v1/"},
		{"Podman's file", ".config/containers/auth.json", []string{"harbor.example"}, "quay.io", "https://harbor.example", "harbor.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			loggedIn(t, c.file, c.keys...)
			got, logged, err := lookUp(t, c.upstream, c.from)
			if logged != "" {
				t.Errorf("logged: %s", logged)
			}
			if err != nil || got != (registryLogin{Username: "me", Password: "for " + c.want}) {
				t.Errorf("got %+v, %v, want those of %s", got, err, c.want)
			}
		})
	}
}

func TestWhatDockersConfigurationLacksIsToldWithItsFileAndTheKeys(t *testing.T) {
	for _, c := range []struct{ name, file, upstream, from, want string }{
		{"two keys", ".docker/config.json", "quay.io", "https://harbor.example:8443/v2/quay", "harbor.example:8443 or quay.io"},
		{"one", ".docker/config.json", "quay.io", "https://quay.io", "quay.io"},
		{"Docker Hub", ".docker/config.json", "docker.io", "https://registry-1.docker.io", "registry-1.docker.io or https://index.docker.io/v1/"},
		{"Podman's file", ".config/containers/auth.json", "quay.io", "https://quay.io", "quay.io"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := loggedIn(t, c.file, "other.example")
			got, logged, err := lookUp(t, c.upstream, c.from)
			if want := "the Docker configuration of the mirror has nothing for " + c.want; err != nil || got != (registryLogin{Absent: want}) {
				t.Errorf("got %+v, %v, want %s", got, err, want)
			}
			wantLoggedOnce(t, logged, c.upstream, path, c.want)
		})
	}
	t.Run("no file at all", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		got, logged, err := lookUp(t, "quay.io", "https://quay.io")
		if err != nil || !strings.HasSuffix(got.Absent, "has nothing for quay.io") {
			t.Errorf("got %+v, %v", got, err)
		}
		wantLoggedOnce(t, logged, "quay.io", path, "quay.io")
	})
	t.Run("a file that can't be read", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, logged, err := lookUp(t, "quay.io", "https://harbor.example")
		if want := "the Docker configuration of the mirror can't be used for harbor.example or quay.io; the mirror's log has the reason"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		wantLoggedOnce(t, logged, "quay.io", path, "harbor.example or quay.io", "unexpected EOF")
	})
	t.Run("a helper that fails for the endpoint alone", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		content := `{"credHelpers": {"harbor.example": "that-is-nowhere"}, "auths": {"quay.io": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("me:sesame")) + `"}}}`
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := lookUp(t, "quay.io", "https://harbor.example"); err != nil || got.Password != "sesame" {
			t.Errorf("the name's entry: got %+v, %v", got, err)
		}
		_, logged, err := lookUp(t, "ghcr.io", "https://harbor.example")
		if err == nil || strings.Contains(err.Error(), path) {
			t.Errorf("no other entry: %v", err)
		}
		wantLoggedOnce(t, logged, "ghcr.io", path, "harbor.example or ghcr.io", "that-is-nowhere")
	})
}

// wantLoggedOnce wants one line, which names an upstream, a file and more.
func wantLoggedOnce(t *testing.T, logged, upstream, file string, words ...string) {
	t.Helper()
	for _, word := range append(words, "level=WARN", "upstream="+upstream, "file="+file) {
		if !strings.Contains(logged, word) {
			t.Errorf("%q is not logged:\n%s", word, logged)
		}
	}
	if n := strings.Count(logged, "\n"); n != 1 {
		t.Errorf("%d lines are logged, want one:\n%s", n, logged)
	}
}
