package admission

import (
	"net/http"
	"net/netip"
)

// Hosts are the hosts under which an address answers, in addition to loopback
// and the address that a client connected to.
//
// A web page can make its own name resolve to this machine. The browser then
// takes its requests here for same-origin ones, so the origin proves nothing
// for a name that somebody else controls (DNS rebinding). An IP address can't
// be rebound.
type Hosts struct {
	names     map[string]bool
	addresses map[netip.Addr]bool
}

// NewHosts returns the hosts with these names and addresses. Ports do not
// matter.
func NewHosts(hosts []string) Hosts {
	h := Hosts{map[string]bool{}, map[netip.Addr]bool{}}
	for _, host := range hosts {
		host = hostname(host)
		if ip, ok := parseAddress(host); ok {
			h.addresses[ip] = true
		} else if host != "" {
			h.names[host] = true
		}
	}
	return h
}

// Allow says whether a request under its host is answered.
func (h Hosts) Allow(r *http.Request) bool {
	host := hostname(r.Host)
	ip, ok := parseAddress(host)
	if !ok {
		return host == "localhost" || h.names[host]
	}
	return ip.IsLoopback() || h.addresses[ip] || ip == localAddress(r)
}
