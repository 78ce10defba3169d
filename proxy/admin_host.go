package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// adminHosts are the hosts under which the admin address answers, beside
// loopback and the address that a connection came in on.
//
// A web page can have its own name resolve to this machine, and is then of one
// origin with what it asks here: that a request is of the same origin means
// nothing under a name that others give out. An address can't be given out.
type adminHosts struct {
	names     map[string]bool
	addresses map[netip.Addr]bool
}

func newAdminHosts(hosts []string) adminHosts {
	a := adminHosts{map[string]bool{}, map[netip.Addr]bool{}}
	for _, host := range hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if ip, ok := literal(host); ok {
			a.addresses[ip] = true
		} else if host != "" {
			a.names[host] = true
		}
	}
	return a
}

// only lets what is not for everybody pass under these hosts. Probes and
// Prometheus ask by whatever address they were told.
func (a adminHosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
		default:
			if !a.has(r) {
				writeJSON(w, http.StatusMisdirectedRequest, AdminError{
					fmt.Sprintf("the admin address does not answer as %.260q: ask by localhost or by its address, or name it in admin_hosts", r.Host), "wrong_host",
				})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (a adminHosts) has(r *http.Request) bool {
	host := hostOf(r.Host)
	ip, ok := literal(host)
	if !ok {
		return host == "localhost" || a.names[host]
	}
	return ip.IsLoopback() || a.addresses[ip] || ip == localAddress(r)
}

// literal reads an address as a host is written, in brackets or without.
func literal(host string) (netip.Addr, bool) {
	if inside, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inside, "]")
		if !ok {
			return netip.Addr{}, false
		}
	}
	ip, err := netip.ParseAddr(host)
	return ip.Unmap().WithZone(""), err == nil
}

// localAddress is where a request's connection came in: of all addresses of a
// machine, where the listener is on every one. The zero Addr is none.
func localAddress(r *http.Request) netip.Addr {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		ip, _ := netip.AddrFromSlice(local.IP)
		return ip.Unmap()
	}
	return netip.Addr{}
}
