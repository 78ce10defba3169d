package flight

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

const (
	// yieldAfter is how long a request waits for its readers, in one go, before
	// it gives its place at the source to others that wait for one.
	yieldAfter = 250 * time.Millisecond
	// yieldInAll is how long it waits in all, where each wait is short.
	yieldInAll = 2 * time.Second
)

// errYielded ends a request that has given its place to others.
var errYielded = errors.New("its readers are slow, and others wait for its place")

// place is what a request holds at a source while it has an answer. It is not
// held at the pace of readers when others wait for it, unless the source would
// have to begin anew for the rest. The zero value holds nothing.
type place struct {
	release   func()
	isAwaited func() bool
	waited    time.Duration // for readers
	yielded   bool
	isStuck   bool // one wait was long
}

func placeOf(c upstream.Content) place {
	p := place{release: sync.OnceFunc(func() { c.Body.Close() }), isAwaited: c.IsAwaited}
	if p.isAwaited == nil || c.Whole {
		p.isAwaited = func() bool { return false }
	}
	return p
}

// holds says whether the place may be given to others.
func (p *place) holds() bool { return p.isAwaited != nil && !p.yielded }

// yield gives the place to others if they wait for it and the readers have no
// use for it: one wait for them has taken so long, and all before it waited.
func (p *place) yield(wait time.Duration) {
	if p.holds() && (wait >= yieldAfter || p.waited+wait >= yieldInAll) && p.isAwaited() {
		p.yielded, p.isStuck = true, wait >= yieldAfter
		p.release()
	}
}

// write writes b, at the writer's pace. It returns errYielded if it has given the
// place to others.
func (p *place) write(w io.Writer, b []byte) (n int, err error) {
	if !p.holds() {
		return w.Write(b)
	}
	began := time.Now()
	stop := p.watch(began)
	n, err = w.Write(b)
	stop()
	p.yield(time.Since(began))
	p.waited += time.Since(began)
	if p.yielded && err == nil {
		err = errYielded
	}
	return n, err
}

// watch gives the place to others during a wait that began then, until stop is
// called.
func (p *place) watch(began time.Time) (stop func()) {
	var mu sync.Mutex
	var over bool
	mu.Lock()
	defer mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(yieldAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if p.yield(time.Since(began)); !p.yielded {
			timer.Reset(yieldAfter)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}
