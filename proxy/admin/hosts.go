package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// allowedHosts are the hosts under which the admin address answers, in addition
// to loopback and the address that a client connected to.
//
// A web page can make its own name resolve to this machine. The browser then
// takes its requests here for same-origin ones, so the origin proves nothing
// for a name that somebody else controls (DNS rebinding). An IP address can't
// be rebound.
type allowedHosts struct {
	names     map[string]bool
	addresses map[netip.Addr]bool
}

func newAllowedHosts(hosts []string) allowedHosts {
	a := allowedHosts{map[string]bool{}, map[netip.Addr]bool{}}
	for _, host := range hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if ip, ok := parseAddress(host); ok {
			a.addresses[ip] = true
		} else if host != "" {
			a.names[host] = true
		}
	}
	return a
}

// protect refuses requests under other hosts. Health and metrics are exempt:
// probes and Prometheus use whatever address they were configured with.
func (a allowedHosts) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
		default:
			if !a.allows(r) {
				writeJSON(w, http.StatusMisdirectedRequest, Error{
					fmt.Sprintf("the admin address does not answer as %.260q: use localhost or its IP address, or add the name to admin_hosts", r.Host), "wrong_host",
				})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (a allowedHosts) allows(r *http.Request) bool {
	host := hostname(r.Host)
	ip, ok := parseAddress(host)
	if !ok {
		return host == "localhost" || a.names[host]
	}
	return ip.IsLoopback() || a.addresses[ip] || ip == localAddress(r)
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

// localAddress returns the address that the client connected to, or the zero
// Addr if it isn't known. A listener on all addresses has more than one.
func localAddress(r *http.Request) netip.Addr {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(local.IP)
		return ip.Unmap()
	}
	return netip.Addr{}
}
