// Package admission decides who is answered: under which hosts, from which
// networks, and who may change the cache. It reads requests, and answers none.
//
// What a header says of where a request comes from is never believed in the
// request's favour (TestNetworks, TestOperators): whoever sends a request
// chooses its headers.
package admission

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// peer returns the address that a request came from.
func peer(r *http.Request) (netip.Addr, bool) {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap().WithZone(""), err == nil
}

// localAddress returns the address that the client connected to, or the zero
// Addr if it isn't known. A listener on all addresses has more than one.
func localAddress(r *http.Request) netip.Addr {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(local.IP)
		return ip.Unmap()
	}
	return netip.Addr{}
}

// hostname returns the host of a Host header, without its port, in lower case.
func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// parseAddress parses an IP address, with or without brackets.
func parseAddress(host string) (netip.Addr, bool) {
	if inside, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inside, "]")
		if !ok {
			return netip.Addr{}, false
		}
	}
	ip, err := netip.ParseAddr(host)
	return ip.Unmap().WithZone(""), err == nil
}
