package upstreamtest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Relay stands before a registry as a NAT, a firewall or a load balancer does.
// It can forget the connections that there are: whatever is sent on them is
// taken and lost, and new connections work.
type Relay struct {
	t        testing.TB
	listener net.Listener
	url, to  string

	mu    sync.Mutex
	flows []*flow
	left  int64 // bytes that still pass to clients before all is forgotten; negative means no such limit
}

type flow struct {
	client, registry net.Conn
	forgotten        bool
}

// NewRelay starts a relay that lives as long as the test.
func NewRelay(t testing.TB, to *Registry) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("a relay for the test: %v", err)
	}
	address := to.server.Listener.Addr().String()
	r := &Relay{t: t, listener: l, url: strings.Replace(to.server.URL, address, l.Addr().String(), 1), to: address, left: -1}
	var passing sync.WaitGroup
	passing.Go(func() { r.accept(&passing) })
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, f := range r.flows {
			f.client.Close()
			f.registry.Close()
		}
		r.mu.Unlock()
		passing.Wait()
	})
	return r
}

// URL is where it listens.
func (r *Relay) URL() string { return r.url }

// Connections is how many connections have been made through it.
func (r *Relay) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flows)
}

// Forget forgets the connections that there are.
func (r *Relay) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
}

func (r *Relay) forget() {
	for _, f := range r.flows {
		f.forgotten = true
	}
}

// ForgetAfter forgets the connections that there are, once, when another n bytes
// have passed to clients.
func (r *Relay) ForgetAfter(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = n
}

func (r *Relay) accept(passing *sync.WaitGroup) {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		registry, err := net.Dial("tcp", r.to)
		if err != nil {
			client.Close()
			continue
		}
		f := &flow{client: client, registry: registry}
		r.mu.Lock()
		r.flows = append(r.flows, f)
		r.mu.Unlock()
		passing.Go(func() { r.pass(f, registry, client, false) })
		passing.Go(func() { r.pass(f, client, registry, true) })
	}
}

// pass passes on what comes, and takes what comes for a connection that it has
// forgotten.
func (r *Relay) pass(f *flow, to, from net.Conn, toClient bool) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		passes, forgotten := r.passes(f, n, toClient)
		if passes > 0 {
			if _, failed := to.Write(b[:passes]); failed != nil {
				err = failed
			}
		}
		switch {
		case forgotten && toClient:
			return // what the registry sends stays with it
		case err != nil && forgotten:
			from.Close() // the other end does not learn that
			return
		case err != nil:
			from.Close()
			to.Close()
			return
		}
	}
}

// passes is how many of n bytes are passed on, and whether the connection is
// forgotten.
func (r *Relay) passes(f *flow, n int, toClient bool) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.forgotten {
		return 0, true
	}
	if toClient && r.left >= 0 {
		if int64(n) >= r.left {
			n = int(r.left)
			r.left = -1
			r.forget()
			return n, true
		}
		r.left -= int64(n)
	}
	return n, false
}
