package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// ErrCrowded means that the process has as much in hand of answers that are read
// into memory as it may have, and that there was no room for another one in time.
// It says nothing about the upstream.
var ErrCrowded = fmt.Errorf("%w: this mirror has as much in hand as its memory allows", ErrUnavailable)

const (
	// freeBytes is how much of each answer counts as nothing: those that are
	// smaller are bounded by the places at upstreams.
	freeBytes = 64 << 10
	// smallBytes is up to which size an answer is small, and takes as much room
	// as any that is.
	smallBytes = 512 << 10
	// perByte is how many bytes of memory one of an answer takes while it is
	// decoded: itself, what is read from it, and what both leave behind.
	perByte = 4
	// leastRoom is the least room that there is.
	leastRoom = 64 << 20
	// roomWait is how long an answer waits for room: less than a client waits.
	roomWait = 10 * time.Second
	// roomTime is how long an answer that is not all there may keep room that
	// others wait for.
	roomTime = 30 * time.Second
)

// A Room bounds how many bytes of answers that are read into memory whole (lists,
// tokens, manifests) are in hand at once, of all upstreams together. One upstream
// gets no more than half of it, so that none can take it from the others by
// sending slowly. A nil Room has no bounds.
//
// Small answers and large ones have room of their own. Who has room for a small
// one waits for that of a large one, and never the other way round, so that there
// is no circle of those who wait for each other.
type Room struct{ small, large pool }

// NewRoom returns a room for a process that keeps memory bytes in memory.
func NewRoom(memory int64) *Room {
	memory = max(memory, leastRoom)
	return &Room{small: pool{free: memory / 4, share: memory / 8}, large: pool{free: memory * 3 / 4, share: memory * 3 / 8}}
}

// InHand is the room that is taken, in bytes.
func (r *Room) InHand() int64 {
	if r == nil {
		return 0
	}
	return r.small.taken() + r.large.taken()
}

// Read reads a body of an upstream, of size bytes or of unknown size if that is
// -1, but no more than most. The caller calls done when it has decoded what was
// read, also after an error. Read returns ErrCrowded if there is no room for the
// body in time, and ErrTimeout if it has room and is not there in time.
func (r *Room) Read(ctx context.Context, of string, body io.Reader, size, most int64) (content []byte, done func(), err error) {
	h := &held{room: r, of: of}
	content, err = readBody(body, size, most, func(n int64) error { return h.grow(ctx, n, size, most) }, h.isLate)
	return content, h.release, err
}

// held is the room that one answer has.
type held struct {
	room         *Room
	of           string
	small, large int64
	waits        time.Time // for room until then
	until        time.Time // when it has to make way for others
}

// grow makes room for an answer that grows to n bytes. Of a large one the whole
// counts at once.
func (h *held) grow(ctx context.Context, n, size, most int64) error {
	if h.room == nil || n <= freeBytes {
		return nil
	}
	if h.waits.IsZero() {
		h.waits = time.Now().Add(roomWait)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, h.waits, ErrCrowded)
	defer cancel()
	var err error
	switch {
	case n <= smallBytes && h.small == 0 && h.large == 0:
		h.small, err = h.room.small.take(ctx, h.of, smallBytes*perByte/2)
	case n > smallBytes && h.large == 0:
		if size < n-1 { // what was announced, and one to see the end
			size = most
		}
		h.large, err = h.room.large.take(ctx, h.of, min(size, most)*perByte)
	default:
		return nil
	}
	h.until = time.Now().Add(roomTime)
	return err
}

// isLate says whether an answer has had room for so long that it has to make way
// for others that wait.
func (h *held) isLate() bool {
	return !h.until.IsZero() && time.Now().After(h.until) &&
		(h.large > 0 && h.room.large.isAwaited() || h.small > 0 && h.room.small.isAwaited())
}

func (h *held) release() {
	if h.small > 0 {
		h.room.small.give(h.of, h.small)
	}
	if h.large > 0 {
		h.room.large.give(h.of, h.large)
	}
	h.small, h.large = 0, 0
}

// pool is room of one kind.
type pool struct {
	share int64 // what one upstream may have

	mu      sync.Mutex
	free    int64
	of      map[string]int64
	waiting []*waiter // in the order in which they came
}

type waiter struct {
	of    string
	n     int64
	ready chan struct{}
}

// take takes room for n bytes, or the share of one upstream if that is less, and
// returns how much it took.
func (p *pool) take(ctx context.Context, of string, n int64) (int64, error) {
	w := &waiter{of, min(n, p.share), make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, w)
	p.admit()
	p.mu.Unlock()
	select {
	case <-w.ready:
		return w.n, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.waiting, w); at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
		p.admit() // it may have been in the way of others
		return 0, context.Cause(ctx)
	}
	return w.n, nil
}

func (p *pool) give(of string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free += n
	if p.of[of] -= n; p.of[of] == 0 {
		delete(p.of, of)
	}
	p.admit()
}

// admit admits those who wait, in order. Those whose upstream has its share are
// passed over, and wait for it alone. p.mu is held.
func (p *pool) admit() {
	left := p.waiting[:0]
	full := false
	for _, w := range p.waiting {
		hasShare := p.of[w.of]+w.n <= p.share
		full = full || hasShare && w.n > p.free
		if full || !hasShare {
			left = append(left, w)
			continue
		}
		if p.of == nil {
			p.of = make(map[string]int64)
		}
		p.of[w.of] += w.n
		p.free -= w.n
		close(w.ready)
	}
	clear(p.waiting[len(left):])
	p.waiting = left
}

func (p *pool) isAwaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) > 0
}

func (p *pool) taken() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.of {
		n += held
	}
	return n
}

// firstPart is how many bytes of a body are read before its announced size is
// believed.
const firstPart = freeBytes

// readBody reads a body of size bytes, or of unknown size if that is -1, but no
// more than most. It does without the copies that a buffer leaves behind as it
// grows, which for large manifests are many times their size. It calls grow
// before it has more than before, and ends when isLate says so.
func readBody(body io.Reader, size, most int64, grow func(n int64) error, isLate func() bool) ([]byte, error) {
	content := make([]byte, 0, min(max(size, 511)+1, firstPart))
	body = io.LimitReader(body, most)
	for {
		if len(content) == cap(content) {
			next := int64(2 * cap(content))
			if size >= int64(len(content)) {
				next = size + 1 // and one, to see the end
			}
			next = min(max(next, int64(len(content))+512), most+1)
			if err := grow(next); err != nil {
				return content, err
			}
			content = append(make([]byte, 0, next), content...)
		}
		n, err := body.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err == nil && isLate() {
			err = fmt.Errorf("%w: the body took too long, and others wait", ErrTimeout)
		}
		if err != nil {
			return content, err
		}
	}
}
