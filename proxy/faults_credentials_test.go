package proxy_test

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/keychain"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A credentialRow is what is in the files of Docker and Podman for docker.io,
// which wants a password.
type credentialRow struct {
	name string
	file map[string]string // contents by path, below the home
	sees string
}

func credentialRows() []credentialRow {
	const docker, podman, denied = ".docker/config.json", ".config/containers/auth.json", "403 DENIED"
	entry := func(key, password string) string {
		return fmt.Sprintf("%q: {%q: %q}", key, "auth", base64.StdEncoding.EncodeToString([]byte("me:"+password)))
	}
	in := func(path, more, entries string) map[string]string {
		return map[string]string{path: fmt.Sprintf(`{%s"auths": {%s}}`, more, entries)}
	}
	var rows []credentialRow
	for _, key := range []string{"docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io", "*.docker.io", "docker.io/app"} {
		for _, path := range []string{docker, podman} {
			rows = append(rows, credentialRow{"`" + key + "` in `" + path + "`", in(path, "", entry(key, "right")), sound})
		}
	}
	both := in(docker, "", entry("quay.io", "other"))
	for path, content := range in(podman, "", entry("docker.io", "right")) {
		both[path] = content
	}
	return append(rows, []credentialRow{
		{"`docker.io` in a pull secret that is mounted", in(".docker/.dockerconfigjson", "", entry("docker.io", "right")), sound},
		{"Docker's file has nothing for it, and Podman's has", both, sound},
		{"a password for all, and the right one for the repository", in(docker, "", entry("docker.io", "other")+", "+entry("docker.io/app", "right")), sound},
		{"the right one for all, and one for another repository", in(docker, "", entry("docker.io/apps", "other")+", "+entry("docker.io", "right")), sound},
		{"one for another repository alone", in(docker, "", entry("docker.io/apps", "right")), denied},
		{"another registry's entry can't be read", in(docker, "", `"quay.io": {"auth": "?"}, `+entry("docker.io", "right")), sound},
		{"another registry's helper is not there", in(docker, `"credHelpers": {"quay.io": "gone"}, `, entry("docker.io", "right")), sound},
		{"its own helper is not there", in(docker, `"credHelpers": {"docker.io": "gone"}, `, ""), "502 UNAVAILABLE"},
		{"its own entry can't be read", in(docker, "", `"docker.io": {"auth": "?"}`), "502 UNAVAILABLE"},
		{"the password is wrong", in(docker, "", entry("docker.io", "wrong")), denied},
		{"there is nothing", nil, denied},
	}...)
}

func credentialFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range credentialRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				home := t.TempDir()
				for name, content := range row.file {
					path := filepath.Join(home, filepath.FromSlash(name))
					if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "basic", Username: "me", Password: "right"}))
				fake.AddImage("app", "1", upstreamtest.Bytes(1, 1000))
				log := slog.New(slog.DiscardHandler)
				mir := newMirror(t, fake, setup{remote: func(o *upstream.RemoteOptions) {
					// There is no environment but one that leads away from this machine's files.
					files := keychain.FilesOf(home, func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": home}[name] }, log)
					o.Credentials = keychain.New(keychain.Options{Files: files, Helpers: keychain.NewHelpers(), Upstream: "docker.io", Host: "registry-1.docker.io", Log: log})
				}})
				a := mir.get("/v2/app/manifests/1")
				sees := fmt.Sprintf("%d %s", a.status, a.code)
				if a.status == http.StatusOK && a.broken == nil {
					sees = sound
				}
				if sees != row.sees {
					t.Errorf("the client saw %q, want %q: %s", sees, row.sees, a.body)
				}
				lines.add(i, row.name, sees)
			})
		}
	})
	return "## Credentials\n\nDocker Hub wants a password, which the files of Docker or Podman have.\n\n" + lines.table("what is there", "the client sees")
}
