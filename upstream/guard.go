package upstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// guard limits the addresses to which an upstream may send requests (W41):
// never to loopback or link-local addresses, nor from a public registry to a
// private network. It checks the address that is actually dialled, so that DNS
// rebinding has no effect. A proxy resolves names itself; then only literal
// addresses can be checked.
type guard struct {
	dialer       net.Dialer
	doubtful     time.Duration // how long what is sent may stay unacknowledged
	home         string        // the registry's configured host, which is always allowed
	allowPrivate bool
	proxies      sync.Map // hosts of the proxies that the environment names

	mu       sync.Mutex
	suspects map[string]time.Time // addresses that are dialled last, until then
}

// suspectFor is how long an address at which a request has timed out is dialled
// after the others of its host.
const suspectFor = time.Minute

// otherWait is how long a connection to another address may take. It may be one
// that is never reached.
const otherWait = time.Second

func newGuard(home string, allowPrivate bool, w Timeouts) *guard {
	g := &guard{home: home, allowPrivate: allowPrivate, suspects: make(map[string]time.Time)}
	s := w.silence()
	g.doubtful = s.doubtful()
	g.dialer = net.Dialer{
		Timeout: w.Connect,
		// They find connections that are dead while only the registry sends.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: s.ping, Interval: s.pong, Count: 3},
	}
	return g
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
	conn, err := g.connect(ctx, network, host, address)
	var op *net.OpError
	if errors.Is(err, ErrInvalidResponse) && errors.As(err, &op) {
		return nil, op.Err // it was not dialled
	}
	return conn, err
}

// connect dials the addresses of a host: those that are suspect only if there is
// no other one.
func (g *guard) connect(ctx context.Context, network, host, address string) (net.Conn, error) {
	if g.hasSuspects() {
		soon, cancel := context.WithTimeout(ctx, otherWait)
		conn, err := g.dialerTo(host, true).DialContext(soon, network, address)
		cancel()
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	return g.dialerTo(host, false).DialContext(ctx, network, address)
}

// dialerTo returns a dialer that judges each address of a host before anything
// is sent to it.
func (g *guard) dialerTo(host string, skipsSuspects bool) *net.Dialer {
	d := g.dialer
	d.ControlContext = func(ctx context.Context, _, address string, c syscall.RawConn) error {
		if skipsSuspects && g.isSuspect(address) {
			return errSuspect
		}
		at, err := netip.ParseAddrPort(address)
		if err == nil {
			err = g.check(ctx, host, at.Addr())
		}
		if err != nil {
			return err
		}
		return limitUnacknowledged(c, g.doubtful)
	}
	return &d
}

var errSuspect = errors.New("a request to this address has timed out")

// suspect notes that a request to an address has timed out.
func (g *guard) suspect(address net.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.suspects[address.String()] = time.Now().Add(suspectFor)
}

func (g *guard) hasSuspects() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.suspects, func(_ string, until time.Time) bool { return time.Now().After(until) })
	return len(g.suspects) > 0
}

func (g *guard) isSuspect(address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.suspects[address]
	return ok
}

// check reports whether a host at an address may be contacted.
func (g *guard) check(ctx context.Context, host string, at netip.Addr) error {
	at = reached(at)
	if _, proxy := g.proxies.Load(host); proxy || host == g.home || g.allowPrivate || !forbidden(at) {
		return nil
	}
	home, err := g.homeAddr(ctx)
	if err == nil && forbidden(home) && home.IsLoopback() == at.IsLoopback() && !isOfMachine(at) {
		return nil // a private registry may use its own network
	}
	return fmt.Errorf("%w: a redirect to %s, which has a private address; allow_private_redirects permits it", ErrInvalidResponse, host)
}

func (g *guard) homeAddr(ctx context.Context) (netip.Addr, error) {
	if a, err := netip.ParseAddr(g.home); err == nil {
		return reached(a), nil
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", g.home)
	if err != nil || len(all) == 0 {
		return netip.Addr{}, fmt.Errorf("look up %s: %w", g.home, err)
	}
	return reached(all[0]), nil
}
