package upstreamtest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
)

// Network is what connects servers and clients within the process, so that
// waits between them go by synctest's clock. The zero value has no servers.
type Network struct {
	mu      sync.Mutex
	servers map[string]*pipes // by address
}

// WithNetwork puts a registry into a network within the process.
func WithNetwork(n *Network) Option { return func(r *Registry) { r.network = n } }

// Listen begins to listen on an address, or on any port of it if that is 0.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.servers == nil {
		n.servers = make(map[string]*pipes)
	}
	if host, ok := strings.CutSuffix(address, ":0"); ok {
		address = fmt.Sprintf("%s:%d", host, 1024+len(n.servers))
	}
	if n.servers[address] != nil {
		return nil, fmt.Errorf("%s: %w", address, syscall.EADDRINUSE)
	}
	p := &pipes{network: n, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.servers[address] = p
	return p, nil
}

// Dial connects to a server of the network.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	address = strings.Replace(address, "localhost:", "127.0.0.1:", 1)
	n.mu.Lock()
	p := n.servers[address]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	if p == nil {
		return nil, refused
	}
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipes is a listener of a Network.
type pipes struct {
	network *Network
	address string
	conns   chan net.Conn
	closed  chan struct{}
	close   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() {
		close(p.closed)
		p.network.mu.Lock()
		defer p.network.mu.Unlock()
		delete(p.network.servers, p.address)
	})
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddr(p.address) }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
