package e2e

import (
	"net/http"
	"testing"
	"time"
)

// weather is what a line or a parent does, and how a pull has to end.
type weather struct {
	name, slug string
	size       int64 // of the layer
	http1      bool  // nothing else is spoken
	slow       bool  // it is the client's line
	// within is how long a pull may take. If it fails, that is for each time that
	// the client asks.
	within time.Duration
	fails  bool
	parent func(next http.Handler, size int64) http.Handler // nil: it answers at once
	set    func(*cell, *relay)                              // before anything passes
	begin  func(*testing.T, *cell)                          // before the pull
}

const (
	littleSize = 2 << 20
	// halvedSize is that of layers that are cut in the middle. What buffers hold
	// then is sent twice, and is less than 2 % of it.
	halvedSize = 8 << 20
	// slowSize takes 96 s at slowRate. nginx holds most of it, and reads nothing
	// from entrepot for 80 s.
	slowSize = 6 << 20
	slowRate = 64 << 10
)

var weathers = []weather{
	{name: "300 ms there and back", slug: "far", size: littleSize, within: 20 * time.Second, set: func(_ *cell, r *relay) { r.delay = 150 * time.Millisecond }},
	{name: "64 KiB/s", slug: "thin", size: littleSize, within: 60 * time.Second, set: func(_ *cell, r *relay) { r.limit = newSlowLine() }},
	{name: "64 KiB/s to the client, and nginx holds 5 MiB", slug: "thin-client", size: slowSize, slow: true, within: 2 * time.Minute},
	{name: "idle connections forgotten, HTTP/2", slug: "idle-h2", size: littleSize, within: 30 * time.Second, begin: forgetIdle},
	{name: "idle connections forgotten, HTTP/1.1", slug: "idle-h1", size: littleSize, http1: true, within: 30 * time.Second, begin: forgetIdle},
	{name: "idle connections lost by a firewall, HTTP/2", slug: "lost-h2", size: littleSize, within: 30 * time.Second, begin: loseIdle},
	{name: "forgotten in the middle of a layer, HTTP/2", slug: "half-h2", size: halvedSize, within: 60 * time.Second, set: func(_ *cell, r *relay) {
		r.half, r.halfway = halvedSize/2, func() { r.forget() }
	}},
	{name: "forgotten in the middle of a layer, HTTP/1.1", slug: "half-h1", size: halvedSize, http1: true, within: 60 * time.Second, set: func(_ *cell, r *relay) {
		r.half, r.halfway = halvedSize/2, func() { r.forget() }
	}},
	{name: "lost by a firewall in the middle of a layer, HTTP/2", slug: "half-lost", size: halvedSize, within: 60 * time.Second, set: func(c *cell, r *relay) {
		r.half, r.halfway = halvedSize/2, func() { c.lose(r.forget()) }
	}},
	{name: "the registry's address moved, and the old one is gone", slug: "moved", size: littleSize, within: 30 * time.Second, begin: move},
	{name: "of the registry's two addresses the one in use is gone", slug: "one-of-two", size: littleSize, within: 30 * time.Second, begin: loseOne},
	{name: "a black hole", slug: "hole", size: littleSize, fails: true, within: 25 * time.Second, begin: hide},
	{name: "15 s to each first header", slug: "thinks", size: littleSize, within: 2 * time.Minute, parent: func(next http.Handler, _ int64) http.Handler {
		return thinking(next, 15*time.Second)
	}},
	{name: "20 s of silence in a layer", slug: "pause", size: halvedSize, within: 45 * time.Second, parent: func(next http.Handler, size int64) http.Handler {
		return pausing(next, size/2, 20*time.Second)
	}},
}

func forgetIdle(t *testing.T, c *cell) {
	t.Helper()
	c.warm(t)
	c.relay.forget()
}

func loseIdle(t *testing.T, c *cell) {
	t.Helper()
	c.warm(t)
	c.lose(c.relay.forget())
}

func move(t *testing.T, c *cell) {
	t.Helper()
	c.relay.listen(t, c.moved())
	c.warm(t)
	if err := c.net.move(c.name, c.moved()); err != nil {
		t.Fatal(err)
	}
	hide(t, c)
}

// loseOne loses the one of two addresses that is in use.
func loseOne(t *testing.T, c *cell) {
	t.Helper()
	c.relay.listen(t, c.moved())
	if err := c.net.add(c.name, c.moved()); err != nil {
		t.Fatal(err)
	}
	c.warm(t)
	open := c.relay.open()
	if len(open) == 0 {
		t.Fatal("entrepot has no connection to the registry any more")
	}
	if err := c.net.hide(open[0].asker.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
}

func hide(t *testing.T, c *cell) {
	t.Helper()
	if err := c.net.hide(c.address()); err != nil {
		t.Fatal(err)
	}
}
