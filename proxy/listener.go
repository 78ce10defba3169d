package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// LimitConnections returns a listener over l that lets s have at most n
// connections at once. When all slots are taken, an idle connection is closed
// to make room. If none is idle, new connections wait for a while in the
// kernel's queue, and are refused after that. They are also refused when the
// process can't open more files: a client that is refused goes on to its next
// host at once, and one that waits may wait for half a minute with each
// request. Few of the connections can send a large header at once.
// LimitConnections sets the server's ConnState.
//
// Connections are not wrapped as netutil.LimitListener would do, which hides
// that a *net.TCPConn has sendfile. The server's ConnState reports when a slot
// is free again.
func LimitConnections(s *http.Server, l net.Listener, n int, log *slog.Logger) net.Listener {
	b := &boundedListener{Listener: l, log: log, timeout: slotTimeout, headers: newHeaderTurns(maxLargeHeaders), slots: make(chan struct{}, n), closed: make(chan struct{})}
	b.idle, _ = simplelru.NewLRU[net.Conn, struct{}](max(n, 1), nil) // fails only for sizes below one
	b.openSpare()
	s.ConnState = b.trackState
	return b
}

// manyConnections is the number of connections above which each further one
// gets little of the kernel's memory. By default the kernel buffers megabytes
// for a client that reads slowly. With thousands of them it runs out of memory
// and breaks everybody's connections (tcp(7), tcp_mem). The first ones get the
// default, because waking up for each small chunk would double the cost of
// sending a file.
const manyConnections = 64

// slotTimeout is how long a further connection waits for a slot. Clients that
// come and go free theirs sooner.
const slotTimeout = 5 * time.Second

type boundedListener struct {
	net.Listener
	log     *slog.Logger
	timeout time.Duration
	headers *headerTurns
	slots   chan struct{}
	closed  chan struct{}
	close   sync.Once

	accepting // used by the goroutine that calls Accept

	mu      sync.Mutex
	waiting bool                               // for a slot
	idle    *simplelru.LRU[net.Conn, struct{}] // in order of last use
	spare   *os.File                           // closed to accept a connection when the process has no files left
}

// accepting is what Accept remembers from one connection to the next.
type accepting struct {
	fullSince time.Time // since when all slots are taken; zero while some are free
	warned    time.Time // when a warning was logged last
	noSpare   bool      // spare is nil
}

// Accept is called by one goroutine, the server's.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		acquired := b.acquire()
		conn, err := b.Listener.Accept()
		if isOutOfFiles(err) {
			conn, err = b.acceptWithSpare(err)
		}
		switch {
		case err != nil:
			if acquired {
				<-b.slots
			}
			return nil, err
		case conn == nil:
			// It was refused for lack of files.
		case acquired || b.acquire():
			if b.noSpare {
				b.openSpare()
			}
			if len(b.slots) > manyConnections {
				limitUnsent(conn)
			}
			return b.headers.wrap(conn), nil
		default:
			resetConnection(conn)
		}
		if acquired {
			<-b.slots
		}
	}
}

// acquire waits for a slot and reports whether it got one.
func (b *boundedListener) acquire() bool {
	if b.tryAcquire() {
		return true
	}
	now := time.Now()
	if b.fullSince.IsZero() {
		b.fullSince = now
	}
	if now.Sub(b.warned) > time.Minute {
		b.warned = now
		b.log.Warn("all slots for client connections are taken", "slots", cap(b.slots))
	}
	left := b.fullSince.Add(b.timeout).Sub(now)
	if b.setWaiting(true) {
		left = max(left, time.Second) // a slot will be free soon
	}
	defer b.setWaiting(false)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case b.slots <- struct{}{}:
		b.fullSince = time.Time{}
		return true
	case <-timer.C:
	case <-b.closed:
	}
	return false
}

// tryAcquire takes a slot if one is free.
func (b *boundedListener) tryAcquire() bool {
	select {
	case b.slots <- struct{}{}:
		b.fullSince = time.Time{}
		return true
	default:
		return false
	}
}

// setWaiting records whether a connection is waiting for a slot. If so, an idle
// connection is closed, now or as soon as there is one. It reports whether one
// was closed.
func (b *boundedListener) setWaiting(waiting bool) (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = waiting
	return waiting && b.closeIdle()
}

// trackState is the server's ConnState.
func (b *boundedListener) trackState(conn net.Conn, state http.ConnState) {
	trackHeader(conn, state)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch state {
	case http.StateIdle:
		b.idle.Add(conn, struct{}{})
		if b.waiting {
			b.closeIdle()
		}
		return
	case http.StateClosed, http.StateHijacked:
		<-b.slots
	}
	b.idle.Remove(conn)
}

// closeIdle closes the connection that has been idle for the longest time. A
// client that is about to use it sees it closed before any response, and
// retries over a new connection, as it does after any long pause. b.mu is held.
func (b *boundedListener) closeIdle() bool {
	conn, _, ok := b.idle.RemoveOldest()
	if ok {
		b.waiting = false // one is enough
		go conn.Close()   // blocks over TLS, which sends an alert first
	}
	return ok
}

// acceptWithSpare accepts a connection with the file that is kept in reserve.
// If an idle connection could be closed instead, it returns the original error,
// and the server retries after a moment. If no other file can be opened
// afterwards, the connection is refused, and acceptWithSpare returns neither a
// connection nor an error.
func (b *boundedListener) acceptWithSpare(full error) (net.Conn, error) {
	b.mu.Lock()
	madeRoom, spare := b.closeIdle(), b.spare
	b.mu.Unlock()
	if madeRoom || spare == nil {
		return nil, full
	}
	spare.Close()
	conn, err := b.Listener.Accept()
	if b.openSpare() || err != nil {
		return conn, err
	}
	resetConnection(conn)
	b.openSpare()
	if now := time.Now(); now.Sub(b.warned) > time.Minute {
		b.warned = now
		b.log.Warn("clients are refused: this process has reached its limit of open files")
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
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // sends a reset, which reaches a client that has already sent its request
	}
	conn.Close()
}

// Close also ends a wait for a slot.
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
