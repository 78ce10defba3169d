package main

import (
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/keychain"
)

// hostOf returns an endpoint's host as a login to it names it: without the
// scheme's default port.
func hostOf(endpoint *url.URL) string {
	if port := endpoint.Port(); endpoint.Scheme == "https" && port == "443" || endpoint.Scheme == "http" && port == "80" {
		return strings.TrimSuffix(endpoint.Host, ":"+port)
	}
	return endpoint.Host
}

// logins makes the keychains of all upstreams. They share the files, so that
// these are read once, and no upstream waits for a helper of another.
type logins struct {
	files   *keychain.Files
	helpers map[string]*keychain.Helpers // by upstream
	log     *slog.Logger
}

// newLogins reads Docker's configuration, if an upstream has its credentials
// there, and logs what cannot be used in it.
func newLogins(cfg config.Config, log *slog.Logger) *logins {
	l := &logins{files: keychain.NewFiles(log), helpers: make(map[string]*keychain.Helpers), log: log}
	if slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Credentials.DockerConfig }) {
		l.files.Announce()
	}
	return l
}

// close ends the helpers that run.
func (l *logins) close() {
	for _, h := range l.helpers {
		h.Close()
	}
}

// keychain returns the credentials for an endpoint of an upstream; nil means
// anonymous access. prefix is before each of the endpoint's repositories.
func (l *logins) keychain(u config.Upstream, endpoint *url.URL, prefix string) keychain.Source {
	switch {
	case u.Credentials.Username != "":
		return keychain.PasswordFile(u.Credentials.Username, u.Credentials.PasswordFile, l.log)
	case !u.Credentials.DockerConfig:
		return nil
	}
	if l.helpers[u.Name] == nil {
		l.helpers[u.Name] = keychain.NewHelpers()
	}
	k := keychain.New(keychain.Options{
		Files: l.files, Helpers: l.helpers[u.Name], Log: l.log,
		Upstream: u.Name, Aliases: u.Aliases, Host: hostOf(endpoint), Prefix: prefix,
	})
	k.Announce()
	return k
}
