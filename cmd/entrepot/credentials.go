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

// registryLogin holds the credentials for a registry; see upstream.Credentials.
type registryLogin struct {
	Username, Password string
	IdentityToken      string
	Absent             string
}

// credentials returns a function that reads the credentials when they are
// needed, so that a changed password needs no restart.
func credentials(c config.Credentials, upstreamName string, endpoint *url.URL, log *slog.Logger) func(context.Context) (registryLogin, error) {
	switch {
	case c.Username != "":
		return func(context.Context) (registryLogin, error) {
			password, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				return registryLogin{}, fmt.Errorf("password_file: %w", err)
			}
			return registryLogin{Username: c.Username, Password: strings.TrimRight(string(password), "\r\n")}, nil
		}
	case c.DockerConfig:
		// "docker login" stores credentials under the host it was given. That is
		// usually the endpoint's, but people also log in to the name that
		// clients use.
		registries := []string{hostOf(endpoint)}
		if upstreamName != registries[0] {
			registries = append(registries, upstreamName)
		}
		d := &dockerConfig{registries: registries, log: log.With("upstream", upstreamName)}
		return d.login
	}
	return nil
}

// hostOf returns an endpoint's host as a login to it names it: without the
// scheme's default port.
func hostOf(endpoint *url.URL) string {
	if port := endpoint.Port(); endpoint.Scheme == "https" && port == "443" || endpoint.Scheme == "http" && port == "80" {
		return strings.TrimSuffix(endpoint.Host, ":"+port)
	}
	return endpoint.Host
}

// dockerConfig reads the credentials for one endpoint from Docker's or Podman's
// configuration.
type dockerConfig struct {
	registries []string
	log        *slog.Logger

	mu     sync.Mutex
	logged string
}

// login returns the first login that one of the registries has. A broken entry
// does not stop the search. Clients see errors with the registries that were
// looked up, the log also has the name of the file.
func (d *dockerConfig) login(ctx context.Context) (registryLogin, error) {
	var keys []string
	var failed error
	for _, registry := range d.registries {
		key, found, err := dockerEntry(ctx, registry)
		if err == nil && (found.Username != "" || found.IdentityToken != "") {
			d.warnOnce("", nil)
			return registryLogin{Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken}, nil
		}
		keys, failed = append(keys, key), errors.Join(failed, err)
	}
	asked := strings.Join(keys, " or ")
	if failed != nil {
		d.warnOnce("the Docker configuration can't be used", failed, "file", dockerConfigFile(), "asked", asked)
		return registryLogin{}, fmt.Errorf("the Docker configuration of the mirror can't be used for %s; the mirror's log has the reason", asked)
	}
	d.warnOnce("the Docker configuration has no credentials for an upstream", nil, "file", dockerConfigFile(), "asked", asked)
	return registryLogin{Absent: "the Docker configuration of the mirror has nothing for " + asked}, nil
}

// warnOnce logs a problem unless it is the one that was logged last. An empty
// message means that the problem is gone.
func (d *dockerConfig) warnOnce(message string, err error, attrs ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	problem := fmt.Sprint(message, err, attrs)
	known := message == "" || problem == d.logged
	d.logged = problem
	if known {
		return
	}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	d.log.Warn(message, attrs...)
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

// dockerConfigFile returns the file that authn.DefaultKeychain reads, or the
// first one that it would look for if there is none. The keychain itself does
// not report the file.
func dockerConfigFile() string {
	isFile := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir()
	}
	home, _ := os.UserHomeDir()
	docker := filepath.Join(home, ".docker", "config.json")
	inHome := isFile(docker)
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		docker = filepath.Join(dir, "config.json")
	}
	if inHome || isFile(docker) {
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
