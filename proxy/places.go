package proxy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// closeTimeout is how long a connection that is closed may take to free its
	// place.
	closeTimeout = time.Second
	// roomInterval is how often whoever waits looks for room again.
	roomInterval = 100 * time.Millisecond
)

// Places are what clients may take of this process at once: one for each
// connection, and one for each blob that is being sent, which is an open file.
// Connections have two thirds of them at most, so that there is something that
// can be sent over them.
//
// When all are taken, room is made: the connection that has been idle for
// longest is closed, then one that never sent a request, then that of the client
// that has read nothing for longest (for a minute at least). If there is
// none, the house is full: further connections wait for a moment, and are
// refused after that. A client that is refused goes on to its next host at once,
// and one that waits may wait for half a minute with each request.
type Places struct {
	log     *slog.Logger
	refuse  func()
	headers *headerTurns
	times   placeTimes
	limit   int // of all places
	full    fullHouse
	wake    chan struct{} // has an element when a place has come free

	mu    sync.Mutex
	taken taken
	conns map[*clientConn]struct{}
	idle  *simplelru.LRU[net.Conn, struct{}]  // in order of last use
	fresh *simplelru.LRU[net.Conn, time.Time] // have sent nothing yet, and since when
}

// place is what a place is for.
type place int

const (
	forConnection place = iota
	forBlob
)

type taken struct{ connections, blobs int }

// fullHouse notes that no room could be made.
type fullHouse struct {
	since   atomic.Int64 // in nanoseconds since 1970; zero while there is room
	refused atomic.Int64 // how many were, since then
	warned  time.Time    // when that was logged last; guarded by mu of Places
}

// placeTimes are how long places are waited for, and left to those who do
// nothing with theirs while others wait.
type placeTimes struct {
	wait    time.Duration // of a further connection: clients that come and go free theirs sooner
	fresh   time.Duration // of a new connection without a request: clients send their first one at once
	stalled time.Duration // of a client that reads nothing
	watch   time.Duration // between two looks at the clients that read nothing
	silent  silences
}

// silences are how long a client's host may acknowledge nothing.
type silences struct {
	sent   time.Duration // of what was sent: a link that is down for a minute loses no pull
	probed time.Duration // of the questions that the kernel asks while the client's buffers are full
}

// defaultPlaceTimes are those of the program. The kernel asks every two minutes
// at last (TCP_RTO_MAX), and its questions may be lost, too.
func defaultPlaceTimes() placeTimes {
	return placeTimes{
		wait: 5 * time.Second, fresh: time.Second, stalled: time.Minute, watch: 15 * time.Second,
		silent: silences{sent: 2 * time.Minute, probed: 5 * time.Minute},
	}
}

// PlacesOptions say how many places there are.
type PlacesOptions struct {
	Places       int // zero means 4096
	LargeHeaders int // how many connections may send a large header at once; zero means 16
	Logger       *slog.Logger
	Refused      func() // counts who found no place; may be nil
}

// NewPlaces returns places of which none is taken.
func NewPlaces(opts PlacesOptions) *Places {
	n := max(cmp.Or(opts.Places, 4096), 1)
	p := &Places{
		log: opts.Logger, refuse: opts.Refused, times: defaultPlaceTimes(),
		headers: newHeaderTurns(cmp.Or(opts.LargeHeaders, maxLargeHeaders)),
		limit:   n,
		wake:    make(chan struct{}, 1),
		conns:   make(map[*clientConn]struct{}),
	}
	if p.refuse == nil {
		p.refuse = func() {}
	}
	p.idle, _ = simplelru.NewLRU[net.Conn, struct{}](n, nil) // fails only for sizes below one
	p.fresh, _ = simplelru.NewLRU[net.Conn, time.Time](n, nil)
	return p
}

// Taken is how many connections there are, and how many blobs are being sent.
func (p *Places) Taken() (connections, blobs int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken.connections, p.taken.blobs
}

// connections is how many of the places connections may take.
func (p *Places) connections() int { return (2*p.limit + 2) / 3 }

// has says whether a place is free. p.mu is held.
func (p *Places) has(what place) bool {
	return p.taken.connections+p.taken.blobs < p.limit && (what == forBlob || p.taken.connections < p.connections())
}

// Full returns an error while clients find no place, and no room can be made.
func (p *Places) Full() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full.since.Load() == 0 || p.has(forConnection) {
		return nil
	}
	return fmt.Errorf("the places for clients are taken: %d connections, %d blobs being sent, %d in all", p.taken.connections, p.taken.blobs, p.limit)
}

// take takes a place and reports whether there was one. It waits until closed
// is, or the house has been full for a while.
func (p *Places) take(what place, closed <-chan struct{}, patience time.Duration) bool {
	if p.tryTake(what) {
		return true
	}
	now := time.Now()
	until := now.Add(patience)
	if since := p.full.since.Load(); since != 0 {
		until = time.Unix(0, since).Add(patience) // others have waited already
	}
	for {
		if p.makeRoom() {
			until = latest(until, now.Add(closeTimeout))
		} else {
			p.noteFull(now)
		}
		timer := time.NewTimer(min(roomInterval, max(until.Sub(now), 0)))
		select {
		case <-p.wake:
		case <-timer.C:
		case <-closed:
			timer.Stop()
			return false
		}
		timer.Stop()
		if p.tryTake(what) {
			return true
		}
		if now = time.Now(); !now.Before(until) {
			p.full.refused.Add(1)
			p.refuse()
			return false
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tryTake takes a place if one is free.
func (p *Places) tryTake(what place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.has(what) {
		return false
	}
	if what == forBlob {
		p.taken.blobs++
	} else {
		p.taken.connections++
		p.noteRoom()
	}
	return true
}

func (p *Places) free(what place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if what == forBlob {
		p.taken.blobs--
	} else {
		p.taken.connections--
	}
	if p.has(forConnection) {
		p.noteRoom()
	}
	select {
	case p.wake <- struct{}{}:
	default: // somebody is being woken; whoever misses it looks again soon
	}
}

// noteFull logs once that the house is full.
func (p *Places) noteFull(now time.Time) {
	if !p.full.since.CompareAndSwap(0, now.UnixNano()) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.full.warned) > time.Minute {
		p.full.warned = now
		p.log.Warn("all places for clients are taken and none of them is idle: further clients wait, and are refused after "+p.times.wait.String(), "connections", p.taken.connections, "blobs", p.taken.blobs, "places", p.limit)
	}
}

// noteRoom notes that there is room again.
func (p *Places) noteRoom() {
	if p.full.since.Load() == 0 || p.full.since.Swap(0) == 0 {
		return
	}
	if refused := p.full.refused.Swap(0); refused > 0 {
		p.log.Info("there are places for clients again", "refused", refused)
	}
}

// makeRoom closes a connection and reports whether there was one to close. A
// client that is about to use an idle one sees it closed before any response,
// and retries over a new connection, as it does after any long pause.
func (p *Places) makeRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn, _, ok := p.idle.RemoveOldest(); ok {
		go conn.Close() // blocks over TLS, which sends an alert first
		return true
	}
	if conn, since, ok := p.fresh.GetOldest(); ok && time.Since(since) >= p.times.fresh {
		p.fresh.Remove(conn)
		go conn.Close()
		return true
	}
	var stalled *clientConn
	for c := range p.conns {
		if c.stalledFor() >= p.times.stalled && (stalled == nil || c.stalledFor() > stalled.stalledFor()) {
			stalled = c
		}
	}
	if stalled == nil {
		return false
	}
	delete(p.conns, stalled)
	stalled.cut(errPlaceNeeded)
	return true
}

// Watch looks for clients that are gone without a word, until ctx ends. The
// kernel takes a quarter of an hour to notice that nothing is acknowledged any
// more, and it cannot be told to hurry in advance: TCP_USER_TIMEOUT would also
// end the connections of clients that are there and read nothing for a while.
func (p *Places) Watch(ctx context.Context) {
	ticker := time.NewTicker(p.times.watch)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, c := range p.stalled(p.times.stalled) {
			c.lookWhetherGone(p.times.silent)
		}
	}
}

// stalled are the connections on which nothing was read for some time.
func (p *Places) stalled(atLeast time.Duration) (all []*clientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.stalledFor() >= atLeast {
			all = append(all, c)
		}
	}
	return all
}
