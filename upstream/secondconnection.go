package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/entrepot/entrepot/limits/panics"
)

// silentBody is how long a body is silent before a second connection begins
// beside it. A flow that a firewall has forgotten looks like a gateway that
// scans what passes: only waiting for both shows which it is.
const silentBody = 15 * time.Second

// SecondConnection asks for the rest of a blob over a second connection when
// its body falls silent, once. The first of the two to bring a byte stays, and
// the other one is closed. A source without ranges is only waited for.
func SecondConnection(next Registry) Registry { return secondConnection{next} }

type secondConnection struct{ Registry }

// Blob implements Registry.
func (s secondConnection) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	all, cancelAll := context.WithCancel(ctx)
	first, cancel := context.WithCancel(all)
	c, err := s.Registry.Blob(first, repo, d, from, n)
	if err != nil {
		cancel()
		cancelAll()
		return Content{}, err
	}
	end := int64(-1)
	switch {
	case n >= 0 && !c.Whole:
		end = from + n
	case c.Size >= 0:
		end = c.Size
	}
	c.Body = &doubledBody{
		ctx: all, cancelAll: cancelAll, rc: c.Body, cancel: cancel,
		at: c.From, used: c.Whole,
		reopen: func(ctx context.Context, at int64) (Content, error) {
			rest := int64(-1)
			if end >= 0 {
				rest = end - at
			}
			if rest == 0 {
				return Content{}, errors.ErrUnsupported // all is there, but for the end of the body
			}
			more, err := s.Registry.Blob(ctx, repo, d, at, rest)
			if err == nil && (more.From != at || more.Whole || more.ETag != c.ETag || c.Size >= 0 && more.Size != c.Size) {
				more.Body.Close()
				err = fmt.Errorf("%w: other content, or no ranges", ErrInvalidResponse)
			}
			return more, err
		},
	}
	return c, nil
}

// doubledBody is a body that goes on over a second connection. Only one
// goroutine reads and closes it.
type doubledBody struct {
	ctx       context.Context //nolint:containedctx // of both connections; it ends with the body
	cancelAll context.CancelFunc
	reopen    func(ctx context.Context, at int64) (Content, error)

	rc     io.ReadCloser // what is read
	cancel context.CancelFunc
	begun  []byte // what the second one had brought when it took over
	timer  *time.Timer

	mu      sync.Mutex
	at      int64     // offset of the next byte
	since   time.Time // when the read began that waits; zero if none does
	used    bool      // no second connection may begin any more
	second  *secondBody
	decided bool // which of the two stays
}

// secondBody is the second connection.
type secondBody struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has brought a byte, or failed
	body   io.ReadCloser // what follows; nil if it has failed, or came too late
	first  []byte        // what it has brought
	taken  bool          // it is what is read now
}

func (b *doubledBody) Read(p []byte) (int, error) {
	for {
		if len(b.begun) > 0 {
			n := copy(p, b.begun)
			b.begun = b.begun[n:]
			b.advance(n)
			return n, nil
		}
		b.watch()
		n, err := b.rc.Read(p)
		second := b.settle(n > 0 || err == nil || errors.Is(err, io.EOF))
		if second == nil {
			b.advance(n)
			return n, err
		}
		// The second one has brought a byte, or the first one is broken. Then
		// its place may be what the second one waits for.
		b.rc.Close()
		<-second.done
		if second.body == nil {
			return 0, err
		}
		b.rc, b.begun, second.taken = second.body, second.first, true
	}
}

func (b *doubledBody) advance(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at += int64(n)
}

// watch begins to wait for a byte.
func (b *doubledBody) watch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used {
		return
	}
	b.since = time.Now()
	if b.timer == nil {
		b.timer = time.AfterFunc(silentBody, b.begin)
	} else {
		b.timer.Reset(silentBody)
	}
}

// settle ends the wait for a byte. It returns the second connection if that is
// to be read now, once it is done.
func (b *doubledBody) settle(brought bool) *secondBody {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Time{}
	if b.timer != nil {
		b.timer.Stop()
	}
	if b.second == nil || b.decided {
		return nil
	}
	b.decided = true
	if brought && b.second.body == nil {
		b.second.cancel()
		return nil
	}
	return b.second
}

// begin asks for the rest over a second connection, if a read still waits.
func (b *doubledBody) begin() {
	b.mu.Lock()
	if b.since.IsZero() || time.Since(b.since) < silentBody {
		b.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(b.ctx)
	s := &secondBody{cancel: cancel, done: make(chan struct{})}
	b.used, b.second = true, s
	at := b.at
	b.mu.Unlock()
	defer close(s.done)
	defer panics.Report("second connection for a blob")
	c, err := b.reopen(ctx, at)
	if err != nil {
		cancel()
		return
	}
	buf := make([]byte, 32<<10)
	n := 0
	for n == 0 && err == nil {
		n, err = c.Body.Read(buf)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n == 0 || ctx.Err() != nil {
		c.Body.Close()
		cancel()
		return
	}
	s.body, s.first = c.Body, buf[:n]
	b.cancel() // the first one's read ends
}

func (b *doubledBody) Close() error {
	b.settle(true)
	b.cancelAll()
	err := b.rc.Close()
	if s := b.second; s != nil {
		<-s.done
		if s.body != nil && !s.taken {
			s.body.Close() // it came at the last moment
		}
	}
	return err
}
