package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/entrepot/entrepot/config"
)

// login is what there is to show to a registry; see upstream.Credentials.
type login struct {
	Username, Password string
	IdentityToken      string
	Absent             string
}

// credentials are read at the time of use, so that a renewed password needs no
// restart.
func credentials(c config.Credentials, upstreamName string, endpoint *url.URL, log *slog.Logger) func(context.Context) (login, error) {
	switch {
	case c.Username != "":
		return func(context.Context) (login, error) {
			password, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				return login{}, fmt.Errorf("password_file: %w", err)
			}
			return login{Username: c.Username, Password: strings.TrimRight(string(password), "\r\n")}, nil
		}
	case c.DockerConfig:
		// "docker login" writes the host that it was told, which is the
		// endpoint's; what clients call the registry is what people try first.
		registries := []string{hostOf(endpoint)}
		if upstreamName != registries[0] {
			registries = append(registries, upstreamName)
		}
		d := &dockerConfig{registries: registries, log: log.With("upstream", upstreamName)}
		return d.login
	}
	return nil
}

// hostOf is an endpoint's host, as logging in there names it: without the port
// that goes without saying.
func hostOf(endpoint *url.URL) string {
	if port := endpoint.Port(); endpoint.Scheme == "https" && port == "443" || endpoint.Scheme == "http" && port == "80" {
		return strings.TrimSuffix(endpoint.Host, ":"+port)
	}
	return endpoint.Host
}

// dockerConfig is Docker's configuration, or Podman's, as far as it is about
// one endpoint.
type dockerConfig struct {
	registries []string
	log        *slog.Logger

	mu   sync.Mutex
	told string
}

// login is that of the first registry that has one. What is wrong with one
// entry is no reason not to look for the next. What is told to a client names
// what was looked for; in which file is for the log, once.
func (d *dockerConfig) login(ctx context.Context) (login, error) {
	var keys []string
	var failed error
	for _, registry := range d.registries {
		key, found, err := dockerEntry(ctx, registry)
		if err == nil && (found.Username != "" || found.IdentityToken != "") {
			d.tell("", nil)
			return login{Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken}, nil
		}
		keys, failed = append(keys, key), errors.Join(failed, err)
	}
	asked := strings.Join(keys, " or ")
	if failed != nil {
		d.tell("the Docker configuration can't be used", failed, "file", dockerConfigFile(), "asked", asked)
		return login{}, fmt.Errorf("the Docker configuration of the mirror can't be used for %s; its log says why", asked)
	}
	d.tell("the Docker configuration has no credentials for an upstream", nil, "file", dockerConfigFile(), "asked", asked)
	return login{Absent: "the Docker configuration of the mirror has nothing for " + asked}, nil
}

// tell logs what is wrong where that is news.
func (d *dockerConfig) tell(what string, err error, attrs ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := fmt.Sprint(what, err, attrs)
	known := what == "" || news == d.told
	d.told = news
	if known {
		return
	}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	d.log.Warn(what, attrs...)
}

func dockerEntry(ctx context.Context, registry string) (key string, found *authn.AuthConfig, err error) {
	r, err := name.NewRegistry(registry, name.WeakValidation)
	if err != nil {
		return registry, nil, err
	}
	if key = r.RegistryStr(); key == name.DefaultRegistry {
		key = authn.DefaultAuthKey
	}
	helper, err := authn.Resolve(ctx, authn.DefaultKeychain, r)
	if err != nil {
		return key, nil, err
	}
	found, err = authn.Authorization(ctx, helper)
	return key, found, err
}

// dockerConfigFile is the file that authn.DefaultKeychain reads, or the one that
// it would read first where there is none: it does not tell.
func dockerConfigFile() string {
	isFile := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir()
	}
	home, _ := os.UserHomeDir()
	docker := filepath.Join(home, ".docker", "config.json")
	ofHome := isFile(docker)
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		docker = filepath.Join(dir, "config.json")
	}
	if ofHome || isFile(docker) {
		return docker
	}
	folders := []string{os.Getenv("XDG_RUNTIME_DIR"), cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config"))}
	podman := []string{os.Getenv("REGISTRY_AUTH_FILE")}
	for _, folder := range folders {
		if folder != "" {
			podman = append(podman, filepath.Join(folder, "containers", "auth.json"))
		}
	}
	if at := slices.IndexFunc(podman, isFile); at >= 0 {
		return podman[at]
	}
	return docker
}
