package config

import (
	"net"
	"net/netip"
	"strings"
)

// VirtualHost is the upstream of which a host, with or without a port, is a
// virtual host. Such a name is no address for the other upstreams: a client
// that asks there without saying which registry it means gets this one's.
func (c Config) VirtualHost(host string) (upstream string, ok bool) {
	i, _, ok := c.virtualHost(host)
	if !ok {
		return "", false
	}
	return c.Upstreams[i].Name, true
}

func (c Config) virtualHost(host string) (upstream, index int, ok bool) {
	asked := bareHost(host)
	for i, u := range c.Upstreams {
		for j, own := range u.Hosts {
			if asked != "" && bareHost(own) == asked {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

// bareHost is a host as it can be compared: without a port, a dot at the end or
// brackets, in lower case, and an address in its one form.
func bareHost(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String()
	}
	return host
}

// checkVirtualHosts refuses a virtual host by which every client comes. That of
// every address nobody can tell from here.
func (r *report) checkVirtualHosts(cfg *Config) {
	i, j, ok := cfg.virtualHost(cfg.Listen)
	if !ok {
		return
	}
	u := cfg.Upstreams[i]
	r.add(at(at("upstreams", i)+".hosts", j), quoted(u.Hosts[j])+" is the address that all clients come by: unless they say which registry they mean, they would get "+u.Name,
		"write a name of its own, such as ghcr.mirror.example.com, or take it out")
}
