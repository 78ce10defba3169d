// Package hosts configures runtimes to pull through entrepot. It writes the
// configuration of each runtime, merges it into existing files without losing
// settings, and removes it again.
package hosts

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/config"
)

// Mirror is what the configuration of every runtime is made from.
type Mirror struct {
	// Addresses are entrepot's addresses, in the order in which runtimes try
	// them. Each is a scheme and a host. There is at least one.
	Addresses []*url.URL
	// CAFile is the absolute path of the CA of entrepot's certificate. It is
	// empty if the system trusts the certificate, or with plain HTTP.
	CAFile string
	// Registries are all registry names that images can begin with, in the
	// order of the configuration.
	Registries []Registry
}

// Registry is a registry that entrepot mirrors, by its name in images.
type Registry struct {
	Name string
	// Upstream is the name of the upstream for this registry.
	Upstream string
	// Prefix is the path element that selects this registry under entrepot's
	// name. It is empty for an IPv6 address, which a repository name can't
	// contain.
	Prefix string
	// Hosts are the virtual hosts of this registry, without a port.
	Hosts []string
	// Default says that requests without a registry's name mean this registry.
	Default bool
	// Server is the registry itself, for when entrepot can't be reached.
	Server Server
}

// Server is where a registry itself is: the last endpoint in entrepot's
// configuration, because other mirrors may come before it.
type Server struct {
	config.Place
	// CAFile is the absolute path of CAs to trust besides the system's. It is
	// empty if there are none, and with plain HTTP.
	CAFile string
	// Insecure says that its certificate is not checked.
	Insecure bool
	// Known says that a runtime uses the same place by default.
	Known bool
}

// Settings describe the mirror beyond its configuration.
type Settings struct {
	Addresses []*url.URL
	CAFile    string // absolute, or empty
}

// NewMirror returns the mirror for a configuration that has been checked. The
// paths of CA files in the configuration are absolute.
func NewMirror(upstreams []config.Upstream, s Settings) (Mirror, error) {
	m := Mirror{Addresses: s.Addresses, CAFile: s.CAFile}
	if len(s.Addresses) == 0 {
		return m, errors.New("no address of entrepot is known")
	}
	for _, address := range s.Addresses {
		if of, ok := (config.Config{Upstreams: upstreams}).VirtualHost(address.Host); ok {
			return m, Wrong(fmt.Sprintf("%s is a virtual host of %s (its hosts): every request there goes to %s, whatever registry the image names; use an address that is not a virtual host",
				address, of, of))
		}
	}
	for _, u := range upstreams {
		prefix := PrefixOf(u)
		if slices.ContainsFunc(upstreams, func(other config.Upstream) bool {
			return other.Name != u.Name && slices.Contains(append([]string{other.Name}, other.Aliases...), prefix)
		}) {
			prefix = "" // with a port, the name means another registry
		}
		for _, name := range append([]string{u.Name}, u.Aliases...) {
			// Image names never begin with these. Every client replaces them by
			// docker.io before it looks for a mirror.
			if name != u.Name && (name == "index.docker.io" || name == "registry-1.docker.io") {
				continue
			}
			m.Registries = append(m.Registries, Registry{
				Name: name, Upstream: u.Name, Prefix: prefix, Hosts: u.Hosts, Default: u.Default, Server: serverOf(u, name),
			})
		}
	}
	return m, nil
}

// Wrong is an error in the user's input.
type Wrong string

func (w Wrong) Error() string { return string(w) }

// component matches an element of a repository's name (distribution-spec,
// "Pulling manifests"). A registry's name with a port does not match.
var component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// PrefixOf returns the path element that selects an upstream under entrepot's
// name, or "" if there is none. It writes a port with an underscore.
func PrefixOf(u config.Upstream) string {
	names := append([]string{u.Name}, u.Aliases...)
	for _, name := range names {
		if component.MatchString(name) {
			return name
		}
	}
	for _, name := range names {
		if host, port, err := net.SplitHostPort(name); err == nil && component.MatchString(host+"_"+port) {
			return host + "_" + port
		}
	}
	return ""
}

// dockerHub is at another host than its name says. Every runtime knows it.
const (
	dockerHub       = "docker.io"
	dockerHubServer = "registry-1.docker.io"
)

// serverOf returns where the registry itself is, which the name in an image
// does not always say. All formats use this.
func serverOf(u config.Upstream, name string) Server {
	own := config.Place{Scheme: "https", Host: name}
	if name == dockerHub {
		own.Host = dockerHubServer
	}
	s := Server{Place: own}
	if len(u.Endpoints) > 0 {
		if last, err := config.PlaceOf(u.Endpoints[len(u.Endpoints)-1]); err == nil {
			s.Place = last
		}
	}
	if s.Scheme == "https" {
		s.CAFile, s.Insecure = u.TLS.CAFile, u.TLS.InsecureSkipVerify
	}
	s.Known = s.Place == own && s.CAFile == "" && !s.Insecure
	return s
}

// Registry returns the registry with that name.
func (m Mirror) Registry(name string) (Registry, bool) {
	i := slices.IndexFunc(m.Registries, func(r Registry) bool { return r.Name == name })
	if i < 0 {
		return Registry{}, false
	}
	return m.Registries[i], true
}

// AtVirtualHost returns the mirror's addresses with the registry's first
// virtual host in place of their host. Requests there that name no registry
// mean this one.
func (m Mirror) AtVirtualHost(r Registry) []*url.URL {
	if len(r.Hosts) == 0 {
		return nil
	}
	var all []*url.URL
	for _, address := range m.Addresses {
		host := r.Hosts[0]
		if port := address.Port(); port != "" {
			host = net.JoinHostPort(host, port)
		}
		all = append(all, &url.URL{Scheme: address.Scheme, Host: host})
	}
	return slices.CompactFunc(all, func(a, b *url.URL) bool { return *a == *b })
}

// Loopback returns the first loopback address, or nil.
func (m Mirror) Loopback() *url.URL {
	for _, address := range m.Addresses {
		if IsLoopback(address.Host) {
			return address
		}
	}
	return nil
}

// IsLoopback reports whether a host is a loopback address.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ParseAddress parses an address of entrepot that the user gave.
func ParseAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, Wrong(fmt.Sprintf("--address %q is not a URL such as http://entrepot.example.com:5000", text))
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, Wrong(fmt.Sprintf("--address has more than a scheme and a host: did you mean %s://%s?", u.Scheme, u.Host))
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}
