package keychain

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/entrepot/entrepot/upstream"
)

// An entry is what a file says about one registry, or about a part of one.
type entry struct {
	file, key string
	host      string // lower case; a pattern if it has wildcards
	path      string // of repositories; empty for all of the registry's
	login     upstream.Credentials
	helper    string // a program, which has the login
	server    string // what the helper is asked for
	forAll    bool   // the helper is for all registries
	err       error  // why the entry cannot be used
}

// id names the entry without what it contains.
func (e entry) id() string { return strings.Join([]string{e.file, e.key, e.helper}, "\x00") }

// asking returns the entry with what its helper is asked for.
func (e entry) asking(host string) entry {
	if e.server = host; slices.Contains(hub, host) {
		e.server = hubServer
	}
	return e
}

// file is a file in Docker's format (docker/cli, "config.json"), which Podman
// (containers-auth.json(5)) and Kubernetes (kubernetes.io/dockerconfigjson)
// use too. Each entry is read by itself.
type file struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  json.RawMessage            `json:"credsStore"`
	CredHelpers map[string]json.RawMessage `json:"credHelpers"`
}

// parse returns the entries of a file in a fixed order, helpers first. Those
// that cannot be used have an error. legacy is the format of .dockercfg, whose
// entries are at the top.
func parse(name string, content []byte, legacy bool) ([]entry, error) {
	var f file
	var err error
	if legacy {
		err = json.Unmarshal(content, &f.Auths)
	} else {
		err = json.Unmarshal(content, &f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, noContent(err))
	}
	var all []entry
	add := func(key string, fill func(*entry) error) {
		e := entry{file: name, key: key}
		e.host, e.path, e.err = splitKey(key)
		if err := fill(&e); e.err == nil && err != nil {
			e.err = err
		}
		if e.err != nil {
			e.err = fmt.Errorf("%s: the entry %q: %w", name, key, e.err)
		}
		all = append(all, e)
	}
	for _, key := range slices.Sorted(maps.Keys(f.CredHelpers)) {
		add(key, func(e *entry) (err error) {
			e.helper, err = helperName(f.CredHelpers[key])
			return err
		})
	}
	for _, key := range slices.Sorted(maps.Keys(f.Auths)) {
		add(key, func(e *entry) (err error) {
			e.login, err = loginOf(f.Auths[key])
			return err
		})
	}
	if len(f.CredsStore) > 0 && string(f.CredsStore) != `""` && string(f.CredsStore) != "null" {
		store := entry{file: name, key: "credsStore", forAll: true}
		if store.helper, err = helperName(f.CredsStore); err != nil {
			store.err = fmt.Errorf("%s: credsStore: %w", name, err)
		}
		all = append(all, store)
	}
	return all, nil
}

// noContent removes from an error of the JSON decoder what it quotes.
func noContent(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("%s is not what belongs there", cmp.Or(kind.Field, "the content"))
	}
	return errors.New("not valid JSON")
}

// splitKey splits the key of an entry, as Docker, Podman and the kubelet
// understand it: a host, perhaps with a scheme, a port and the path of the API
// or of repositories.
func splitKey(key string) (host, repositories string, err error) {
	rest, https := strings.CutPrefix(key, "https://")
	rest, http := strings.CutPrefix(rest, "http://")
	host, repositories, _ = strings.Cut(rest, "/")
	host = strings.ToLower(host)
	repositories = strings.Trim(repositories, "/")
	for _, version := range []string{"v1", "v2"} {
		if below, ok := strings.CutPrefix(repositories, version); ok && (below == "" || below[0] == '/') {
			repositories = strings.TrimPrefix(below, "/")
			break
		}
	}
	if !http {
		host = strings.TrimSuffix(host, ":443")
	}
	if !https {
		host = strings.TrimSuffix(host, ":80")
	}
	_, badPattern := path.Match(host, "")
	switch {
	case host == "" || strings.ContainsAny(host, " \t@"):
		return host, repositories, errors.New("it does not begin with the name of a registry")
	case badPattern != nil:
		return host, repositories, errors.New("its pattern is malformed")
	case strings.ContainsAny(repositories, "*?[@ ") || strings.Contains(repositories, ":"):
		return host, repositories, errors.New("only hosts have wildcards, and a path is that of a repository without its tag")
	}
	return host, repositories, nil
}

var errAuth = errors.New("auth is not the base64 of user:password")

// loginOf reads the entry of a registry. One without content marks that a helper
// has the login, and is not an error.
func loginOf(raw json.RawMessage) (upstream.Credentials, error) {
	var a authn.AuthConfig // decodes auth, which is the base64 of user:password
	if err := json.Unmarshal(raw, &a); err != nil && a.Auth != "" {
		return upstream.Credentials{}, errAuth
	} else if err != nil {
		return upstream.Credentials{}, noContent(err)
	}
	c := upstream.Credentials{
		Username: a.Username, Password: strings.Trim(a.Password, "\x00"), // as Docker pads it
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
	if a.Auth != "" && c.Username == "" && c.IdentityToken == "" && c.RegistryToken == "" {
		return upstream.Credentials{}, errAuth
	}
	if c.Username == "" && c.Password != "" {
		return upstream.Credentials{}, errors.New("it has a password and no user name")
	}
	return c, nil
}

// helperName reads the name of a helper. It is a part of the name of a program,
// never a path.
func helperName(raw json.RawMessage) (string, error) {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil || name == "" || strings.ContainsAny(name, `/\`+"\x00") {
		return "", errors.New("it does not name a credential helper")
	}
	return name, nil
}
