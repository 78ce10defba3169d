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

// Bound lets s have at most n connections at once over l. Where all places are
// taken, connections that nobody uses at the moment make room; where there are
// none, further ones wait for a while in the kernel's queue. After that they
// are refused, and so is who comes when there are no files left: a client that
// is refused goes to its next host at once, and one that waits does so for half
// a minute, with each request. It takes the server's ConnState for itself.
//
// The connections are not wrapped, as netutil.LimitListener wraps them: a
// connection that is no *net.TCPConn has no sendfile. Their places are given
// back when the server says that they are closed.
func Bound(s *http.Server, l net.Listener, n int, log *slog.Logger) net.Listener {
	b := &bounded{Listener: l, log: log, patience: fullPatience, places: make(chan struct{}, n), closed: make(chan struct{})}
	b.idle, _ = simplelru.NewLRU[net.Conn, struct{}](max(n, 1), nil) // fails for sizes below one
	b.keepSpare()
	s.ConnState = b.follow
	return b
}

// crowd is how many connections there have to be for each further one to get
// little of the kernel's memory. By itself the kernel takes megabytes for a
// client that reads slowly, and where thousands do, it has no memory left and
// breaks the connections of everybody (tcp(7), tcp_mem). A few may have it: to
// be woken for each small piece would cost half of what sending a file costs.
const crowd = 64

// fullPatience is how long a further connection waits for a place: those of
// clients that come and go are free before.
const fullPatience = 5 * time.Second

type bounded struct {
	net.Listener
	log      *slog.Logger
	patience time.Duration
	places   chan struct{}
	closed   chan struct{}
	close    sync.Once

	accepting // used by the goroutine that calls Accept

	mu      sync.Mutex
	waiting bool                               // for a place
	idle    *simplelru.LRU[net.Conn, struct{}] // the one that was used last comes last
	spare   *os.File                           // to have a file when there are none
}

// accepting is what Accept remembers from one connection to the next.
type accepting struct {
	full time.Time // since when all places are taken; zero while some are free
	told time.Time // when that was logged last
	bare bool      // there is no spare file
}

// Accept is called by one goroutine, the server's.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		placed := b.place()
		conn, err := b.Listener.Accept()
		if isOutOfFiles(err) {
			conn, err = b.acceptOverSpare(err)
		}
		switch {
		case err != nil:
			if placed {
				<-b.places
			}
			return nil, err
		case conn == nil:
			// It is refused for want of files.
		case placed || b.place():
			if b.bare {
				b.keepSpare()
			}
			if len(b.places) > crowd {
				boundUnsent(conn)
			}
			return conn, nil
		default:
			refuseConnection(conn)
		}
		if placed {
			<-b.places
		}
	}
}

// place waits for a place, and says whether it got one.
func (b *bounded) place() bool {
	if b.take() {
		return true
	}
	now := time.Now()
	if b.full.IsZero() {
		b.full = now
	}
	if now.Sub(b.told) > time.Minute {
		b.told = now
		b.log.Warn("all places for connections of clients are taken", "places", cap(b.places))
	}
	left := b.full.Add(b.patience).Sub(now)
	if b.wait(true) {
		left = max(left, time.Second) // a place is on its way
	}
	defer b.wait(false)
	patience := time.NewTimer(left)
	defer patience.Stop()
	select {
	case b.places <- struct{}{}:
		b.full = time.Time{}
		return true
	case <-patience.C:
	case <-b.closed:
	}
	return false
}

// take takes a place that is free.
func (b *bounded) take() bool {
	select {
	case b.places <- struct{}{}:
		b.full = time.Time{}
		return true
	default:
		return false
	}
}

// wait says whether a place is waited for: then a connection that is idle, or
// the first to be, makes room.
func (b *bounded) wait(waiting bool) (closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = waiting
	return waiting && b.closeIdle()
}

// follow hears of what becomes of connections.
func (b *bounded) follow(conn net.Conn, state http.ConnState) {
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
		<-b.places
	}
	b.idle.Remove(conn)
}

// closeIdle closes the connection that nobody has used for the longest time.
// Who is about to use it finds it closed before it gets any answer, and asks
// once more over another, as after any wait. b.mu is held.
func (b *bounded) closeIdle() bool {
	conn, _, ok := b.idle.RemoveOldest()
	if ok {
		b.waiting = false // one is enough
		go conn.Close()   // which says goodbye first, over TLS
	}
	return ok
}

// acceptOverSpare accepts with the one file that is kept for that, where no
// connection is idle that could make room: then the server tries again by
// itself in a moment. The connection is refused, and none returned, where no
// other file can be had since.
func (b *bounded) acceptOverSpare(full error) (net.Conn, error) {
	b.mu.Lock()
	madeRoom, spare := b.closeIdle(), b.spare
	b.mu.Unlock()
	if madeRoom || spare == nil {
		return nil, full
	}
	spare.Close()
	conn, err := b.Listener.Accept()
	if b.keepSpare() || err != nil {
		return conn, err
	}
	refuseConnection(conn)
	b.keepSpare()
	if now := time.Now(); now.Sub(b.told) > time.Minute {
		b.told = now
		b.log.Warn("clients are refused: this process may open no more files")
	}
	return nil, nil //nolint:nilnil // neither a connection nor an end
}

// keepSpare keeps a file, where one is to be had and is still wanted.
func (b *bounded) keepSpare() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
		return true
	default:
	}
	spare, err := os.Open(os.DevNull)
	b.bare = err != nil
	if b.bare {
		spare = nil
	}
	b.spare = spare
	return !b.bare
}

func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// refuseConnection ends a connection in a way that its client sees at once.
func refuseConnection(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a client that has sent its request hears of it all the same
	}
	conn.Close()
}

// Close ends the wait for a place as well.
func (b *bounded) Close() error {
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
