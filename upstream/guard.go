package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"

	"golang.org/x/net/http/httpproxy"
)

// guard limits the addresses to which an upstream may send requests (W41):
// never to loopback or link-local addresses, nor from a public registry to a
// private network. It checks the address that is actually dialled, so that DNS
// rebinding has no effect. A proxy resolves names itself; then only literal
// addresses can be checked.
type guard struct {
	dialer       net.Dialer
	home         string // the registry's configured host, which is always allowed
	allowPrivate bool
	proxies      sync.Map // hosts of the proxies that the environment names
}

// proxyFunc returns http.Transport's Proxy, for the proxies of the environment.
func (g *guard) proxyFunc() func(*http.Request) (*url.URL, error) {
	choose := httpproxy.FromEnvironment().ProxyFunc()
	return func(req *http.Request) (*url.URL, error) {
		proxy, err := choose(req.URL)
		if proxy != nil {
			g.proxies.Store(proxy.Hostname(), true)
		}
		return proxy, err
	}
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := g.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err == nil {
		err = g.check(ctx, host, at.Addr())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// check reports whether a host at an address may be contacted.
func (g *guard) check(ctx context.Context, host string, at netip.Addr) error {
	at = at.Unmap()
	if _, proxy := g.proxies.Load(host); proxy || host == g.home || g.allowPrivate || !forbidden(at) {
		return nil
	}
	home, err := g.homeAddr(ctx)
	if err == nil && forbidden(home) && home.IsLoopback() == at.IsLoopback() && !at.IsLinkLocalUnicast() {
		return nil // a private registry may use its own network
	}
	return fmt.Errorf("%w: a redirect to %s, which has a private address; allow_private_redirects permits it", ErrInvalidResponse, host)
}

func (g *guard) homeAddr(ctx context.Context) (netip.Addr, error) {
	if a, err := netip.ParseAddr(g.home); err == nil {
		return a.Unmap(), nil
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", g.home)
	if err != nil || len(all) == 0 {
		return netip.Addr{}, fmt.Errorf("look up %s: %w", g.home, err)
	}
	return all[0].Unmap(), nil
}

func forbidden(a netip.Addr) bool {
	shared := netip.MustParsePrefix("100.64.0.0/10") // carrier-grade NAT
	return a.IsLoopback() || a.IsPrivate() || a.IsUnspecified() || a.IsMulticast() ||
		a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || shared.Contains(a)
}
