package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// nat is between a Remote and a server within the process. It can forget the
// connections that there are: what is sent on them is lost, without an error.
type nat struct {
	*wired
	began time.Time

	mu    sync.Mutex
	flows []*flow
}

type flow struct {
	net.Conn
	to     string
	began  time.Time
	gone   chan struct{} // closed when it is forgotten
	ended  chan struct{} // closed by the Remote
	end    func()
	mu     sync.Mutex
	writes []time.Duration // when something was sent to the server
	closed time.Duration
	held   chan struct{} // nothing passes to the Remote before; nil means that it does
}

func (n *nat) dial(ctx context.Context, _, address string) (net.Conn, error) {
	near, far := net.Pipe()
	f := &flow{Conn: near, to: address, began: n.began, gone: make(chan struct{}), ended: make(chan struct{})}
	f.end = sync.OnceFunc(func() {
		f.mu.Lock()
		f.closed = time.Since(f.began)
		f.mu.Unlock()
		close(f.ended)
	})
	select {
	case n.conns <- far:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flows = append(n.flows, f)
	return f, nil
}

// forget forgets the connections to an address that there are, or all.
func (n *nat) forget(address string) {
	for _, f := range n.to(address) {
		select {
		case <-f.gone:
		default:
			close(f.gone)
		}
	}
}

// to returns the connections to an address that there have been, or all.
func (n *nat) to(address string) (all []*flow) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.flows {
		if address == "" || f.to == address {
			all = append(all, f)
		}
	}
	return all
}

func (f *flow) Write(b []byte) (int, error) {
	f.mu.Lock()
	f.writes = append(f.writes, time.Since(f.began))
	f.mu.Unlock()
	select {
	case <-f.gone:
		return len(b), nil
	default:
		return f.Conn.Write(b)
	}
}

func (f *flow) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-f.ended:
		}
	}
	select {
	case <-f.gone:
		<-f.ended
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

// hold keeps back what the server sends for that long.
func (f *flow) hold(d time.Duration) {
	held := make(chan struct{})
	f.mu.Lock()
	f.held = held
	f.mu.Unlock()
	time.AfterFunc(d, func() {
		f.mu.Lock()
		f.held = nil
		f.mu.Unlock()
		close(held)
	})
}

func (f *flow) Close() error {
	f.end()
	return f.Conn.Close()
}

// sent is when something was sent since a time.
func (f *flow) sent(since time.Duration) (all []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.writes {
		if at > since {
			all = append(all, at)
		}
	}
	return all
}

func (f *flow) closedAt() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// reachOver is reach with a protocol, "HTTP/1.1" or "HTTP/2.0", over TLS and
// through a nat.
func reachOver(t *testing.T, protocol string, answer http.HandlerFunc) (*Remote, *nat) {
	t.Helper()
	donor := httptest.NewTLSServer(nil)
	certificates := donor.TLS.Certificates
	donor.Close()
	n := &nat{wired: &wired{conns: make(chan net.Conn), done: make(chan struct{})}, began: time.Now()}
	n.close = sync.OnceFunc(func() { close(n.done) })
	server := &http.Server{
		TLSConfig: &tls.Config{Certificates: certificates}, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if req.Proto != protocol {
				t.Errorf("asked by %s", req.Proto)
			}
			n.wired.mu.Lock()
			n.asked = append(n.asked, req.Method+" "+req.Host+req.URL.Path+" "+req.Header.Get("Range"))
			n.wired.mu.Unlock()
			answer(rw, req)
		}),
	}
	server.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	server.Protocols.SetHTTP2(protocol == "HTTP/2.0")
	go func() { _ = server.ServeTLS(n, "", "") }()
	r, err := NewRemote(RemoteOptions{Name: "hub.test", Endpoint: "https://hub.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	r.client.dial = n.dial
	t.Cleanup(func() {
		r.Close()
		for _, f := range n.to("") {
			f.Close()
		}
		server.Close()
	})
	return r, n
}
