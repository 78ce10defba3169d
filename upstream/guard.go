package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// guard dials only where an upstream may send us (W41): never to loopback or
// link-local addresses, nor from a public registry into a private network. It
// looks at the address that is really dialled, so that no name can rebind.
type guard struct {
	dialer net.Dialer
	home   string // the registry's own host: what is configured may be dialled
	allow  bool
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := g.dialer.DialContext(ctx, network, address)
	if err != nil || host == g.home || g.allow {
		return conn, err
	}
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err == nil && !forbidden(at.Addr().Unmap()) {
		return conn, nil
	}
	home, homeErr := g.homeAddr(ctx)
	if err == nil && homeErr == nil && forbidden(home) && home.IsLoopback() == at.Addr().Unmap().IsLoopback() && !at.Addr().IsLinkLocalUnicast() {
		return conn, nil // a private registry may use its own network
	}
	conn.Close()
	return nil, fmt.Errorf("%w: a redirect to %s, a private address; allow_private_redirects permits it", ErrBadAnswer, host)
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
