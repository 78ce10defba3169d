package proxy

import (
	"net"
	"net/http"
	"sync"
)

// Bound lets s have at most n connections at once over l: further ones wait in
// the kernel's queue. It takes the server's ConnState for itself.
//
// The connections are not wrapped, as netutil.LimitListener wraps them: a
// connection that is no *net.TCPConn has no sendfile. Their places are given
// back when the server says that they are closed.
func Bound(s *http.Server, l net.Listener, n int) net.Listener {
	b := &bounded{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			<-b.places
		}
	}
	return b
}

// crowd is how many connections there have to be for each further one to get
// little of the kernel's memory. By itself the kernel takes megabytes for a
// client that reads slowly, and where thousands do, it has no memory left and
// breaks the connections of everybody (tcp(7), tcp_mem). A few may have it: to
// be woken for each small piece would cost half of what sending a file costs.
const crowd = 64

type bounded struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	close  sync.Once
}

// Accept waits for a place first.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	if len(b.places) > crowd {
		boundUnsent(conn)
	}
	return conn, nil
}

// Close ends the wait for a place as well.
func (b *bounded) Close() error {
	b.close.Do(func() { close(b.closed) })
	return b.Listener.Close()
}
