package main

import (
	"context"
	"encoding/base64"
	"fmt"
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

func lookUp(t *testing.T, name, endpoint string) (login, error) {
	t.Helper()
	at, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return credentials(config.Credentials{DockerConfig: true}, name, at)(context.Background())
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
			got, err := lookUp(t, c.upstream, c.from)
			if err != nil || got != (login{Username: "me", Password: "for " + c.want}) {
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
			got, err := lookUp(t, c.upstream, c.from)
			if want := path + " has nothing for " + c.want; err != nil || got != (login{Absent: want}) {
				t.Errorf("got %+v, %v, want %s", got, err, want)
			}
		})
	}
	t.Run("no file at all", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		got, err := lookUp(t, "quay.io", "https://quay.io")
		if want := path + " has nothing for quay.io"; err != nil || got.Absent != want {
			t.Errorf("got %+v, %v, want %s", got, err, want)
		}
	})
	t.Run("a file that can't be read", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := lookUp(t, "quay.io", "https://harbor.example")
		if want := "docker_config: " + path + ", asked for harbor.example or quay.io: "; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s…", err, want)
		}
	})
	t.Run("a helper that fails for the endpoint alone", func(t *testing.T) {
		path := loggedIn(t, ".docker/config.json")
		content := `{"credHelpers": {"harbor.example": "that-is-nowhere"}, "auths": {"quay.io": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("me:sesame")) + `"}}}`
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := lookUp(t, "quay.io", "https://harbor.example"); err != nil || got.Password != "sesame" {
			t.Errorf("the name's entry: got %+v, %v", got, err)
		}
		_, err := lookUp(t, "ghcr.io", "https://harbor.example")
		if err == nil || !strings.HasPrefix(err.Error(), "docker_config: "+path+", asked for harbor.example or ghcr.io: ") || !strings.Contains(err.Error(), "that-is-nowhere") {
			t.Errorf("no other entry: %v", err)
		}
	})
}
