package e2e

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// relay is the line between clients and a server. Its settings are made before it
// listens.
type relay struct {
	to    string
	delay time.Duration // each way
	limit *rate.Limiter // of what comes down, for all flows; nil: none
	// halfway is called once, when half bytes have come down.
	half    int64
	halfway func()

	ctx   context.Context // until the end of the test
	down  atomic.Int64
	made  atomic.Int64 // connections
	once  sync.Once
	mu    sync.Mutex
	flows map[*flow]bool
}

// flow is a connection through a relay. asker is the side that was accepted.
type flow struct {
	asker, server net.Conn
	forgotten     atomic.Bool
}

// listen has the relay answer at an address; it can have several.
func (r *relay) listen(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r.ctx = t.Context()
	t.Cleanup(func() {
		l.Close()
		for _, f := range r.open() {
			f.close()
		}
	})
	go func() {
		for {
			asker, err := l.Accept()
			if err != nil {
				return
			}
			go r.accepted(asker)
		}
	}()
}

func (r *relay) accepted(asker net.Conn) {
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		asker.Close()
		return
	}
	r.made.Add(1)
	f := &flow{asker: asker, server: server}
	r.mu.Lock()
	if r.flows == nil {
		r.flows = map[*flow]bool{}
	}
	r.flows[f] = true
	r.mu.Unlock()
	go r.carry(f, server, asker)
	r.carry(f, asker, server)
	r.mu.Lock()
	delete(r.flows, f)
	r.mu.Unlock()
}

func (r *relay) open() []*flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*flow
	for f := range r.flows {
		if !f.forgotten.Load() {
			all = append(all, f)
		}
	}
	return all
}

// forget has the relay pass nothing more on the flows that are open. It still
// acknowledges what it is sent, and new flows work. The server's side is closed,
// so that the server sends nothing that can't arrive.
func (r *relay) forget() []*flow {
	forgotten := r.open()
	for _, f := range forgotten {
		f.forgotten.Store(true)
		f.server.Close()
	}
	return forgotten
}

func (f *flow) close() {
	f.asker.Close()
	f.server.Close()
}

// chunk is what was read at once, and when it may arrive.
type chunk struct {
	due   time.Time
	bytes []byte
}

const (
	chunkSize = 16 << 10
	// underWay is how many chunks a line with a delay holds.
	underWay = 256
)

// carry passes what one end sends, until either is gone.
func (r *relay) carry(f *flow, from, to net.Conn) {
	held := 0 // A line without a delay holds nothing, so that little is lost with a flow.
	if r.delay > 0 {
		held = underWay
	}
	chunks := make(chan chunk, held)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, chunkSize)
			n, err := from.Read(buffer)
			if n > 0 {
				chunks <- chunk{time.Now().Add(r.delay), buffer[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for c := range chunks { // to its end, so that whoever reads can leave
		if broken || f.forgotten.Load() {
			continue
		}
		broken = !r.pass(f, to, c)
		if broken {
			f.close()
		}
	}
	// The asker of a forgotten flow hears nothing, and may leave.
	if !f.forgotten.Load() || from == f.asker {
		f.close()
	}
}

func (r *relay) pass(f *flow, to net.Conn, c chunk) bool {
	if wait := time.Until(c.due); wait > 0 {
		time.Sleep(wait)
	}
	if to == f.asker {
		if r.limit != nil && r.limit.WaitN(r.ctx, len(c.bytes)) != nil {
			return false
		}
		if r.half > 0 && r.down.Add(int64(len(c.bytes))) >= r.half {
			r.once.Do(r.halfway)
		}
		if f.forgotten.Load() {
			return true
		}
	}
	_, err := to.Write(c.bytes)
	return err == nil
}
