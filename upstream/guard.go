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

// guard dials only where an upstream may send us (W41): never to loopback or
// link-local addresses, nor from a public registry into a private network. It
// looks at the address that is really dialled, so that no name can rebind.
// Behind a proxy, which looks names up itself, only addresses can be judged.
type guard struct {
	dialer  net.Dialer
	home    string // the registry's own host: what is configured may be dialled
	allow   bool
	proxies sync.Map // hosts of proxies in use: the environment's wish
}

// throughProxy is http.Transport's Proxy, for the proxies of the environment.
func (g *guard) throughProxy() func(*http.Request) (*url.URL, error) {
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
		err = g.permit(ctx, host, at.Addr())
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// permit says whether a host at an address may be asked.
func (g *guard) permit(ctx context.Context, host string, at netip.Addr) error {
	at = at.Unmap()
	if _, proxy := g.proxies.Load(host); proxy || host == g.home || g.allow || !forbidden(at) {
		return nil
	}
	home, err := g.homeAddr(ctx)
	if err == nil && forbidden(home) && home.IsLoopback() == at.IsLoopback() && !at.IsLinkLocalUnicast() {
		return nil // a private registry may use its own network
	}
	return fmt.Errorf("%w: a redirect to %s, a private address; allow_private_redirects permits it", ErrBadAnswer, host)
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
