package admin

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// requestCounts are the metrics of clients' requests. They are counted here and
// read by OpenTelemetry as those of another source (sdk/metric.Producer): to
// count one with its instruments takes a microsecond and allocates, and a request is
// counted three times.
type requestCounts struct {
	since time.Time

	mu     sync.RWMutex
	known  map[answered]*series
	totals map[labels]*total
	sent   map[string]*total     // by upstream
	took   map[string]*durations // by kind
}

// answered is what is said of a request. Nothing that a client names is in it,
// and codes have three digits.
type answered struct {
	upstream, kind, outcome string
	code                    int
}

// series are those that a request counts for.
type series struct {
	requests, sent *total
	took           *durations
}

// total is a time series of a counter.
type total struct {
	of attribute.Set
	n  atomic.Int64
}

// durationBounds are the upper bounds of the buckets, in seconds.
var durationBounds = []float64{.001, .005, .02, .1, .5, 2, 10, 60, 300}

// durations is a time series of a histogram.
type durations struct {
	of      attribute.Set
	buckets [10]atomic.Uint64 // one more than there are bounds
	sum     atomic.Int64      // in nanoseconds
}

func newRequestCounts() *requestCounts {
	return &requestCounts{
		since: time.Now(), known: make(map[answered]*series),
		totals: make(map[labels]*total), sent: make(map[string]*total), took: make(map[string]*durations),
	}
}

func (c *requestCounts) count(of answered, bytes int64, took time.Duration) {
	c.mu.RLock()
	s := c.known[of]
	c.mu.RUnlock()
	if s == nil {
		s = c.add(of)
	}
	s.requests.n.Add(1)
	if bytes > 0 {
		s.sent.n.Add(bytes)
	}
	s.took.buckets[sort.SearchFloat64s(durationBounds, took.Seconds())].Add(1)
	s.took.sum.Add(int64(took))
}

// add makes the series of what was not counted before.
func (c *requestCounts) add(of answered) *series {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.known[of]; s != nil {
		return s
	}
	l := labels{upstream: of.upstream, kind: of.kind, outcome: of.outcome, status: statusOf(of.code)}
	s := &series{requests: c.totals[l], sent: c.sent[of.upstream], took: c.took[of.kind]}
	if s.requests == nil { // not another code of the same class
		s.requests = &total{of: l.set()}
		c.totals[l] = s.requests
	}
	if s.sent == nil {
		s.sent = &total{of: labels{upstream: of.upstream}.set()}
		c.sent[of.upstream] = s.sent
	}
	if s.took == nil {
		s.took = &durations{of: labels{kind: of.kind}.set()}
		c.took[of.kind] = s.took
	}
	c.known[of] = s
	return s
}

// Produce implements the Producer of OpenTelemetry.
func (c *requestCounts) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	now := time.Now()
	counter := func(name, unit, about string, points []metricdata.DataPoint[int64]) metricdata.Metrics {
		return metricdata.Metrics{Name: name, Unit: unit, Description: about, Data: metricdata.Sum[int64]{
			DataPoints: points, Temporality: metricdata.CumulativeTemporality, IsMonotonic: true,
		}}
	}
	point := func(t *total) metricdata.DataPoint[int64] {
		return metricdata.DataPoint[int64]{Attributes: t.of, StartTime: c.since, Time: now, Value: t.n.Load()}
	}
	var requests, sent []metricdata.DataPoint[int64]
	for _, t := range c.totals {
		requests = append(requests, point(t))
	}
	for _, t := range c.sent {
		if t.n.Load() > 0 {
			sent = append(sent, point(t))
		}
	}
	var took []metricdata.HistogramDataPoint[float64]
	for _, d := range c.took {
		p := metricdata.HistogramDataPoint[float64]{
			Attributes: d.of, StartTime: c.since, Time: now, Bounds: durationBounds, Sum: time.Duration(d.sum.Load()).Seconds(),
		}
		for i := range d.buckets {
			n := d.buckets[i].Load()
			p.BucketCounts = append(p.BucketCounts, n)
			p.Count += n
		}
		took = append(took, p)
	}
	return []metricdata.ScopeMetrics{{Metrics: []metricdata.Metrics{
		counter("entrepot.requests", "", "Requests of clients by upstream, kind, outcome and status.", requests),
		counter("entrepot.client", "By", "Bytes of bodies sent to clients.", sent),
		{
			Name: "entrepot.request.duration", Unit: "s", Description: "Time from a request's headers to the end of its answer.",
			Data: metricdata.Histogram[float64]{DataPoints: took, Temporality: metricdata.CumulativeTemporality},
		},
	}}}, nil
}
