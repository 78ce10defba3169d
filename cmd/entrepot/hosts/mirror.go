// Package hosts makes runtimes pull through entrepot: what each of them reads,
// how that goes into files that people already have without taking anything
// from them, and how it comes out again.
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
	// Addresses are what runtimes reach entrepot under, in the order in which
	// they are tried: scheme and host only. There is at least one.
	Addresses []*url.URL
	// CAFile holds who signed entrepot's certificate, as an absolute path; it
	// is empty where the system knows, or where it speaks plain HTTP.
	CAFile string
	// Registries are all names that images can begin with, in the order of the
	// configuration.
	Registries []Registry
}

// Registry is a name, as images begin, that entrepot stands before.
type Registry struct {
	Name string
	// Upstream is the name of the upstream that it means.
	Upstream string
	// Prefix is the element of a path by which it is asked for under entrepot's
	// own name. It is empty for an IPv6 address, which no repository can hold.
	Prefix string
	// Hosts are virtual hosts that mean this registry, without a port.
	Hosts []string
	// Default says that a request that names no registry means this one.
	Default bool
	// Server is the registry itself, for when entrepot can't be reached.
	Server Server
}

// Server is where a registry itself is, as entrepot's configuration knows it:
// the last endpoint, because before it other mirrors may stand.
type Server struct {
	config.Place
	// CAFile is whose certificates are believed beside the system's, as an
	// absolute path; empty where none is, and with plain HTTP.
	CAFile string
	// Insecure says that its certificate is not checked.
	Insecure bool
	// Known says that a runtime that is told nothing goes to the same place.
	Known bool
}

// Settings are what people say of the mirror beside its configuration.
type Settings struct {
	Addresses []*url.URL
	CAFile    string // absolute, or empty
}

// NewMirror puts together what runtimes are told of a configuration, which has
// been checked. The paths of CA files in it are absolute.
func NewMirror(upstreams []config.Upstream, s Settings) (Mirror, error) {
	m := Mirror{Addresses: s.Addresses, CAFile: s.CAFile}
	if len(s.Addresses) == 0 {
		return m, errors.New("no address of entrepot is known")
	}
	for _, address := range s.Addresses {
		if of, ok := (config.Config{Upstreams: upstreams}).VirtualHost(address.Host); ok {
			return m, Wrong(fmt.Sprintf("%s is a virtual host of %s (its hosts): what is asked for there is %s's, whatever registry an image names; use an address of entrepot that is none",
				address, of, of))
		}
	}
	for _, u := range upstreams {
		prefix := PrefixOf(u)
		if slices.ContainsFunc(upstreams, func(other config.Upstream) bool {
			return other.Name != u.Name && slices.Contains(append([]string{other.Name}, other.Aliases...), prefix)
		}) {
			prefix = "" // with a port: it is another's name as it stands
		}
		for _, name := range append([]string{u.Name}, u.Aliases...) {
			// Image names never begin with these: every client takes them to
			// be docker.io before it looks for a mirror.
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

// Wrong is an error in what somebody said, not in what was found.
type Wrong string

func (w Wrong) Error() string { return string(w) }

// component is what a repository's name is made of (distribution-spec, "Pulling
// manifests"). A registry's name with a port is none.
var component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// PrefixOf is the name by which a repository of the upstream can be asked for
// under entrepot's own name, or empty where it has no such name. A port stands
// behind an underscore there.
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

// dockerHub is at another host than its name says, and every runtime knows it.
const (
	dockerHub       = "docker.io"
	dockerHubServer = "registry-1.docker.io"
)

// serverOf is where the registry itself is, of which an image's name says no
// more than the name. All formats go by this.
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

// Registry is the registry of that name.
func (m Mirror) Registry(name string) (Registry, bool) {
	i := slices.IndexFunc(m.Registries, func(r Registry) bool { return r.Name == name })
	if i < 0 {
		return Registry{}, false
	}
	return m.Registries[i], true
}

// AtVirtualHost are the mirror's addresses with the registry's first virtual
// host in place of their own: there, what names no registry means this one.
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

// Loopback is the first address that only this machine can use, or nil.
func (m Mirror) Loopback() *url.URL {
	for _, address := range m.Addresses {
		if IsLoopback(address.Host) {
			return address
		}
	}
	return nil
}

// IsLoopback says whether an address is this machine's own.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ParseAddress reads what somebody says entrepot is reached under.
func ParseAddress(told string) (*url.URL, error) {
	u, err := url.Parse(told)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, Wrong(fmt.Sprintf("--address %q is not a URL such as http://entrepot.example.com:5000", told))
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, Wrong(fmt.Sprintf("--address has more than a scheme and a host: did you mean %s://%s?", u.Scheme, u.Host))
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}
