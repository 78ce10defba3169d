package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// idleHTTP1 is how long a connection of HTTP/1.1 may have been idle that the next
// request is sent on. Without pings nothing tells a dead one from a slow
// registry, so only requests that follow at once share one.
const idleHTTP1 = 5 * time.Millisecond

// silence is what nothing received on a connection with open requests means.
// The registry may be slow, or a NAT, a firewall or a load balancer may have
// forgotten the connection, and drop what is sent or even acknowledge it.
type silence struct {
	// ping is after how long HTTP/2 asks for a sign of life, and pong is how
	// long that may take until the request is sent on another connection too.
	ping, pong time.Duration
}

// doubtful is after how long nothing new is sent on a connection.
func (s silence) doubtful() time.Duration { return s.ping * 2 / 3 }

// lost is how long the sign of life may take until a connection is closed.
func (s silence) lost() time.Duration { return 5 * s.pong }

// idle is how long a connection of HTTP/2 is kept without open requests. It is
// closed before it would be pinged, since some servers take pings without
// requests for an attack. It can't be kept for longer: net/http pings whatever it
// has read nothing from, requests or not, has one setting for all connections,
// and gives nobody a way to ping one of them (http.ClientConn has none), so that
// it could be done here for those with requests open.
func (s silence) idle() time.Duration { return s.ping - s.ping/15 }

// connections sends requests over connections that are not known to be dead. A
// connection on which a request has timed out, or on which too little arrives,
// gets no more requests. Those that are open on it go on.
type connections struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	suspect func(address net.Addr) // is told of addresses where requests time out
	silence silence
	model   *http.Transport // of pools

	mu    sync.Mutex
	pools map[int]*http.Transport // for new requests, by their number beside others
	busy  map[*connection]int     // open requests
}

func newConnections(g *guard, s silence, model *http.Transport) *connections {
	model.HTTP2 = &http.HTTP2Config{SendPingTimeout: s.ping, PingTimeout: s.lost(), WriteByteTimeout: s.lost()}
	model.IdleConnTimeout = s.idle()
	c := &connections{dial: g.dial, suspect: g.suspect, silence: s, model: model, busy: make(map[*connection]int)}
	c.pools = map[int]*http.Transport{0: c.newPool()}
	return c
}

func (c *connections) newPool() *http.Transport {
	pool := c.model.Clone()
	pool.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &connection{Conn: conn, of: c, pool: pool, opened: time.Now()}, nil
	}
	return pool
}

// CloseIdleConnections closes the connections without open requests.
func (c *connections) CloseIdleConnections() {
	c.mu.Lock()
	pools := slices.Collect(maps.Values(c.pools))
	c.mu.Unlock()
	for _, pool := range pools {
		pool.CloseIdleConnections()
	}
}

// connection is a connection that notes when something arrives.
type connection struct {
	net.Conn
	of     *connections
	pool   *http.Transport
	opened time.Time
	heard  atomic.Int64 // when something arrived last, in nanoseconds since then
}

func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(int64(time.Since(c.opened)))
	}
	return n, err
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.busy, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *connection) silentFor() time.Duration {
	return time.Since(c.opened) - time.Duration(c.heard.Load())
}

// connectionOf returns the connection below TLS, and whether HTTP/2 is spoken
// on it.
func connectionOf(conn net.Conn) (c *connection, http2 bool) {
	for {
		switch at := conn.(type) {
		case *connection:
			return at, http2
		case *tls.Conn:
			http2 = http2 || at.ConnectionState().NegotiatedProtocol == "h2"
			conn = at.NetConn()
		default:
			return nil, http2
		}
	}
}

// current returns the transport for a new request: another one than before, if a
// connection that the last one would use is in doubt.
func (c *connections) current(number int) *http.Transport {
	c.mu.Lock()
	pool, doubtful := c.pools[number], false
	if pool == nil {
		pool = c.newPool()
		c.pools[number] = pool
	}
	for conn := range c.busy {
		doubtful = doubtful || conn.pool == pool && conn.silentFor() >= c.silence.doubtful()
	}
	c.mu.Unlock()
	if doubtful {
		c.replace(pool)
		return c.current(number)
	}
	return pool
}

// replace has new requests use new connections.
func (c *connections) replace(old *http.Transport) {
	c.mu.Lock()
	for number, pool := range c.pools {
		if pool == old {
			c.pools[number] = c.newPool()
		}
	}
	c.mu.Unlock()
	old.CloseIdleConnections()
}

// discard has no new request use a connection, nor its address if there is
// another one.
func (c *connections) discard(conn *connection) {
	c.suspect(conn.RemoteAddr())
	c.replace(conn.pool)
}

// RoundTrip sends a request. If the connection that it is on does not give a
// sign of life, it is sent on another one, too, and the first response counts.
func (c *connections) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	r := &rescue{connections: c, req: req, cancel: cancel}
	resp, err := c.send(req.WithContext(ctx), r.begin)
	return r.choose(resp, err)
}

// send sends a request on one connection. inDoubt is called at most once, if
// nothing arrives on that; it may be nil.
func (c *connections) send(req *http.Request, inDoubt func()) (*http.Response, error) {
	use := &use{connections: c, ctx: req.Context(), inDoubt: inDoubt}
	trace := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			use.begin(got.Conn)
			if got.WasIdle && got.IdleTime > idleHTTP1 {
				use.leaveHTTP1()
			}
		},
	})
	resp, err := c.current(numberOf(req.Context())).RoundTrip(req.WithContext(trace))
	use.stopWatching()
	if err != nil {
		use.end(err)
		return nil, err
	}
	if resp.Body == http.NoBody {
		use.end(nil)
		return resp, nil
	}
	resp.Body = usingBody{resp.Body, use}
	return resp, nil
}

// use is a request's use of a connection.
type use struct {
	*connections
	ctx     context.Context
	inDoubt func()

	using sync.Mutex
	conn  *connection // nil before it begins and after its end
	http2 bool
	watch *time.Timer
}

// begin notes the connection that the request is sent on. It is another one than
// before if net/http repeats the request.
func (u *use) begin(on net.Conn) {
	u.stopWatching()
	u.end(nil)
	conn, http2 := connectionOf(on)
	if conn == nil {
		return
	}
	u.mu.Lock()
	u.busy[conn]++
	u.mu.Unlock()
	u.using.Lock()
	defer u.using.Unlock()
	u.conn, u.http2 = conn, http2
	if http2 && u.inDoubt != nil {
		u.watch = time.AfterFunc(u.patience(), u.check)
	}
}

// leaveHTTP1 closes a connection of HTTP/1.1, so that net/http sends the request
// on another one.
func (u *use) leaveHTTP1() {
	u.using.Lock()
	conn, http2 := u.conn, u.http2
	u.using.Unlock()
	if conn != nil && !http2 {
		conn.Close()
	}
}

// patience is how long something may yet take to arrive. u.using is held.
func (u *use) patience() time.Duration {
	return u.silence.ping + u.silence.pong - u.conn.silentFor()
}

// check is called when a connection may be in doubt.
func (u *use) check() {
	u.using.Lock()
	conn, inDoubt := u.conn, u.inDoubt
	if conn == nil || inDoubt == nil {
		u.using.Unlock()
		return
	}
	if left := u.patience(); left > 0 {
		u.watch.Reset(left)
		u.using.Unlock()
		return
	}
	u.inDoubt = nil
	u.using.Unlock()
	u.discard(conn)
	inDoubt()
}

func (u *use) stopWatching() {
	u.using.Lock()
	defer u.using.Unlock()
	if u.watch != nil {
		u.watch.Stop()
	}
}

// end notes that the request does not use its connection any more, and why.
func (u *use) end(err error) {
	u.using.Lock()
	conn := u.conn
	u.conn = nil
	u.using.Unlock()
	if conn == nil {
		return
	}
	if err != nil && (errors.Is(context.Cause(u.ctx), ErrTimeout) || isTimeout(err)) {
		u.discard(conn)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy[conn] > 1 {
		u.busy[conn]--
	} else {
		delete(u.busy, conn)
	}
}

// usingBody is a response's body, on whose connection the request ends with it.
type usingBody struct {
	body io.ReadCloser
	*use
}

func (b usingBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b usingBody) Close() error {
	err := b.body.Close()
	b.end(nil)
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
