package proxy

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// LimitConnections returns a listener over l whose connections take one of the
// places each. Connections are also refused when the process can't open more
// files. Few of them can send a large header at once. LimitConnections sets the
// server's ConnState, which reports when a place is free again, and its
// ConnContext.
func LimitConnections(s *http.Server, l net.Listener, p *Places) net.Listener {
	b := &boundedListener{Listener: l, places: p, closed: make(chan struct{})}
	b.openSpare()
	s.ConnState = p.trackState
	s.ConnContext = withConn
	return b
}

// manyConnections is the number of connections above which each further one
// gets little of the kernel's memory. By default the kernel buffers megabytes
// for a client that reads slowly. With thousands of them it runs out of memory
// and breaks everybody's connections (tcp(7), tcp_mem). The first ones get the
// default, because waking up for each small chunk would double the cost of
// sending a file.
const manyConnections = 64

// KeepAlive is how connections of clients are probed. A host that has gone
// without a word is noticed after a minute and a half, while nothing is being
// sent to it. See Places.Watch for the others.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}
}

type boundedListener struct {
	net.Listener
	places *Places
	closed chan struct{}
	close  sync.Once

	warned  time.Time // when a lack of files was logged last; used by the goroutine that calls Accept
	noSpare bool      // spare is nil; likewise

	mu    sync.Mutex
	spare *os.File // closed to accept a connection when the process has no files left
}

// Accept is called by one goroutine, the server's.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if isOutOfFiles(err) {
			conn, err = b.acceptWithSpare(err)
		}
		switch {
		case err != nil:
			return nil, err
		case conn == nil:
			// It was refused for lack of files.
		case b.places.take(forConnection, b.closed, b.places.times.wait):
			if b.noSpare {
				b.openSpare()
			}
			if n, _ := b.places.Taken(); n > manyConnections {
				limitUnsent(conn)
			}
			return b.places.track(conn), nil
		default:
			resetConnection(conn)
		}
	}
}

// track notes a connection that has taken a place.
func (p *Places) track(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	c := &clientConn{headerConn: p.headers.wrap(tcp)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return c
}

// trackState is the server's ConnState.
func (p *Places) trackState(conn net.Conn, state http.ConnState) {
	c := clientConnOf(conn)
	if c != nil {
		c.track(state)
	}
	p.noteState(conn, c, state)
	if state == http.StateClosed || state == http.StateHijacked {
		p.free(forConnection)
	}
}

func (p *Places) noteState(conn net.Conn, c *clientConn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == http.StateIdle {
		p.idle.Add(conn, struct{}{})
	} else {
		p.idle.Remove(conn)
	}
	if state == http.StateNew {
		p.fresh.Add(conn, time.Now())
	} else {
		p.fresh.Remove(conn)
	}
	if state == http.StateClosed || state == http.StateHijacked {
		delete(p.conns, c)
	}
}

// acceptWithSpare accepts a connection with the file that is kept in reserve.
// If room could be made instead, it returns the original error, and the server
// retries after a moment. If no other file can be opened afterwards, the
// connection is refused, and acceptWithSpare returns neither a connection nor an
// error.
func (b *boundedListener) acceptWithSpare(full error) (net.Conn, error) {
	b.mu.Lock()
	spare := b.spare
	b.mu.Unlock()
	if b.places.makeRoom() || spare == nil {
		return nil, full
	}
	spare.Close()
	conn, err := b.Listener.Accept()
	if b.openSpare() || err != nil {
		return conn, err
	}
	resetConnection(conn)
	b.openSpare()
	b.places.refuse()
	if now := time.Now(); now.Sub(b.warned) > time.Minute {
		b.warned = now
		b.places.log.Warn("clients are refused: this process has reached its limit of open files")
	}
	return nil, nil //nolint:nilnil // neither a connection nor an error
}

// openSpare opens the spare file unless the listener is closed. It reports
// false if there are no files left.
func (b *boundedListener) openSpare() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return true
	default:
	}
	spare, err := os.Open(os.DevNull)
	b.noSpare = err != nil
	if b.noSpare {
		spare = nil
	}
	b.spare = spare
	return !b.noSpare
}

func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// resetConnection closes a connection in a way that its client notices at once.
func resetConnection(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // sends a reset, which reaches a client that has already sent its request
	}
	conn.Close()
}

// Close also ends a wait for a place.
func (b *boundedListener) Close() error {
	b.close.Do(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		close(b.closed)
		if b.spare != nil {
			b.spare.Close()
		}
	})
	return b.Listener.Close()
}
