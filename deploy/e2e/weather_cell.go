package e2e

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cell is a client that pulls an image of its own, through a front, in a weather.
// Its registry is an upstream of its own, of an entrepot that all cells share.
type cell struct {
	weather weather
	client  weatherClient
	front   front
	number  int
	name    string // of the upstream
	way     string // on which the client asks
	mirror  *mirror
	net     *weatherNet

	relay    *relay
	registry *weatherRegistry
	image    image
	size     int64 // of what the client pulls of the image
}

// cellResult is what was seen of it.
type cellResult struct {
	Weather, Client, Front string
	Seconds                float64
	Ratio                  float64 // of the image, of what the registry sent
	Failed                 bool
	Whole                  float64 // seconds until it was whole after all
}

// The registry has an address, and in some weather another one.
func (c *cell) address() string { return fmt.Sprintf("10.79.%d.1:443", c.number) }
func (c *cell) moved() string   { return fmt.Sprintf("10.79.%d.2:443", c.number) }

// cells are all of them, in the order in which they begin. The longest are first.
func cells(m *mirror, n *weatherNet) []*cell {
	var all []*cell
	order := slices.Clone(weathers)
	slices.SortStableFunc(order, func(a, b weather) int { return cmp.Compare(b.within, a.within) })
	for _, w := range order {
		for _, client := range weatherClients {
			for _, f := range fronts {
				c := &cell{weather: w, client: client, front: f, number: len(all), way: f.address, mirror: m, net: n}
				c.name = strings.Join([]string{w.slug, client.slug, f.slug}, "-") + ".lan"
				if w.slow {
					c.way = fmt.Sprintf("10.79.%d.3:8080", c.number)
				}
				all = append(all, c)
			}
		}
	}
	return all
}

// prepare makes the cell's image and its registry, with the line to it.
func (c *cell) prepare(t *testing.T, s *suite, content string, certificate tls.Certificate) {
	t.Helper()
	c.image = pushRandom(t, content, c.name, "team/"+strings.TrimSuffix(c.name, ".lan"), c.weather.size)
	c.size = sizeOf(t, content, c.image, c.client.archs...)
	handler := lingering(quietProxy(content))
	if c.weather.parent != nil {
		handler = c.weather.parent(handler, c.weather.size)
	}
	c.registry = s.serveWeather(t, handler, certificate, c.weather.http1)
	c.relay = &relay{to: c.registry.host}
	if c.weather.set != nil {
		c.weather.set(c, c.relay)
	}
	c.relay.listen(t, c.address())
	if c.weather.slow {
		(&relay{to: c.front.small, limit: newSlowLine()}).listen(t, c.way)
	}
}

// warm has entrepot make connections to the registry, which are idle then.
func (c *cell) warm(t *testing.T) {
	t.Helper()
	const beside = 8
	var asked sync.WaitGroup
	errs := make([]error, beside)
	for i := range beside {
		asked.Go(func() {
			var resp *http.Response
			resp, errs[i] = http.Get(fmt.Sprintf("http://%s/v2/%s/team/nothing%s%d", c.mirror.address, c.name, warmUp, i))
			if errs[i] == nil {
				resp.Body.Close()
			}
		})
	}
	asked.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wanted := int64(1)
	if c.weather.http1 {
		wanted = beside / 2
	}
	// How long it keeps them is its own affair.
	if got := c.relay.made.Load(); got < wanted {
		t.Fatalf("entrepot made %d connections to the registry, and should have made %d at least", got, wanted)
	}
	c.registry.settled(t)
}

// lose has a firewall lose the packets of flows.
func (c *cell) lose(flows []*flow) {
	for _, f := range flows {
		if err := c.net.lose(f); err != nil {
			c.net.t.Error(err)
		}
	}
}

// run pulls, and checks how it ends, how long it takes and what it costs.
func (c *cell) run(t *testing.T, p weatherPuller) cellResult {
	t.Helper()
	if c.weather.begin != nil {
		c.weather.begin(t, c)
	}
	r := cellResult{Weather: c.weather.name, Client: c.client.name, Front: c.front.name}
	began := time.Now()
	err := p.pull(t.Context(), c)
	took := time.Since(began)
	r.Seconds, r.Failed = took.Seconds(), err != nil
	within := c.weather.within
	if c.weather.fails {
		within = time.Duration(c.client.tries) * within
	}
	if took > within {
		t.Errorf("the pull took %.1f s, and %s at most may", took.Seconds(), within)
	}
	switch {
	case c.weather.fails && err == nil:
		t.Error("the pull is whole, though nothing can be had")
	case c.weather.fails:
		c.clears(t, p, &r)
	case err != nil:
		t.Errorf("after %.1f s: %v", took.Seconds(), err)
	}
	if err == nil || c.weather.fails {
		p.check(t, c)
	}
	c.count(t, &r)
	return r
}

// afterwards is how long a pull may fail when the weather is good again.
const afterwards = 45 * time.Second

// clears ends the weather, and pulls until all is there.
func (c *cell) clears(t *testing.T, p weatherPuller, r *cellResult) {
	t.Helper()
	if err := c.net.show(c.address()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		err := p.pull(t.Context(), c)
		r.Whole = time.Since(began).Seconds()
		if err == nil {
			return
		}
		if time.Since(began) > afterwards {
			t.Errorf("%s after the weather has cleared: %v", afterwards, err)
			return
		}
		time.Sleep(time.Second)
	}
}

// mostOfImage is how much of an image may be sent, of all that is pulled of it.
const mostOfImage = 1.02

func (c *cell) count(t *testing.T, r *cellResult) {
	t.Helper()
	asked := c.registry.settled(t)
	checkNobodyElse(t, asked)
	r.Ratio = float64(asked.bytes()) / float64(c.size)
	if r.Ratio > mostOfImage {
		slices.SortStableFunc(asked, func(a, b request) int { return strings.Compare(a.path, b.path) })
		t.Errorf("%.3f of the image were sent, and %.2f at most may be:\n%s", r.Ratio, mostOfImage, asked)
	}
}
