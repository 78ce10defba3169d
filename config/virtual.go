package config

import (
	"net"
	"net/netip"
	"strings"
)

// VirtualHost returns the upstream that has a host, with or without a port, as
// a virtual host. Such a host can't be used for the other upstreams: a client
// that requests something there without naming a registry gets this upstream's.
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

// bareHost normalizes a host for comparison: lower case, without a port, a
// trailing dot or brackets, and IP addresses in their canonical form.
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

// checkVirtualHosts reports virtual hosts that all clients use. If entrepot
// listens on all addresses, they can't be known.
func (r *report) checkVirtualHosts(cfg *Config) {
	i, j, ok := cfg.virtualHost(cfg.Listen)
	if !ok {
		return
	}
	u := cfg.Upstreams[i]
	r.add(at(at("upstreams", i)+".hosts", j), quoted(u.Hosts[j])+" is the address that all clients come by: unless they say which registry they mean, they would get "+u.Name,
		"write a host name of its own, such as ghcr.mirror.example.com, or remove it")
}
