package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// Metrics are OpenTelemetry metrics, exported in the Prometheus format. The
// values of labels are configured upstreams, kinds, outcomes, methods and
// statuses. Nothing that a client names is a label, and statuses that an upstream
// makes up are counted by class, so the number of time series is bounded. All methods are safe for concurrent use.
type Metrics struct {
	registry  *prometheus.Registry
	provider  *sdk.MeterProvider
	requests  *requestCounts
	received  metric.Int64Counter
	flights   metric.Int64UpDownCounter
	upstreams metric.Int64Counter
	panics    metric.Int64Counter
	cache     cacheMetrics
	clients   clientMetrics
	// options caches the attribute set for each combination of labels: building
	// one costs more than counting.
	options sync.Map // labels → metric.MeasurementOption
}

// cacheMetrics are those of what is stored.
type cacheMetrics struct {
	bypassed metric.Int64Counter
	evicted  metric.Int64Counter
	damaged  metric.Int64Counter
	kept     metric.Int64Gauge
}

// clientMetrics are those of clients that are not answered to the end.
type clientMetrics struct {
	refused metric.Int64Counter
	cut     metric.Int64Counter
}

// labels are the label values of one time series.
type labels struct {
	upstream, kind, outcome, method, reason string
	status                                  status
}

// status is the status of an answer, or a class of them.
type status string

// statusOf returns the status if it is a registered one. Of others, which an
// upstream may make up, it returns the class. 0 means that no answer came.
func statusOf(code int) status {
	switch {
	case code == 0 || http.StatusText(code) != "":
		return status(strconv.Itoa(code))
	case code >= 100 && code < 600:
		return status(strconv.Itoa(code/100) + "xx")
	}
	return "other"
}

// NewMetrics returns Metrics that start at zero.
func NewMetrics() (*Metrics, error) {
	m := &Metrics{registry: prometheus.NewRegistry(), requests: newRequestCounts()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(m.registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo(), otelprom.WithProducer(m.requests))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	// The labels are a closed list, so that no limit is needed. With the
	// default of 2,000 sets, upstreams that are asked late have no series.
	m.provider = sdk.NewMeterProvider(sdk.WithReader(exporter), sdk.WithCardinalityLimit(0))
	meter := m.provider.Meter("entrepot")
	counters := []struct {
		into        *metric.Int64Counter
		name, about string
		unit        string
	}{
		{&m.received, "entrepot.upstream", "Bytes of bodies received from upstreams.", "By"},
		{&m.upstreams, "entrepot.upstream.requests", "Requests to upstreams by kind, method and status; 0 where no answer came.", ""},
		{&m.cache.evicted, "entrepot.cache.evicted", "Bytes that were evicted to make room.", "By"},
		{&m.cache.damaged, "entrepot.cache.damaged", "Content that was kept, found damaged and set aside.", ""},
		{&m.clients.refused, "entrepot.clients.refused", "Connections and blobs that were refused because no place was free.", ""},
		{&m.clients.cut, "entrepot.clients.cut", "Clients that were disconnected in the middle of an answer, by reason.", ""},
		{&m.panics, "entrepot.panics", "Panics that were caught; each has cost one task, and is a fault of this program.", ""},
		{&m.cache.bypassed, "entrepot.cache.bypass", "Content that was served but could not be kept.", ""},
	}
	for _, c := range counters {
		if *c.into, err = meter.Int64Counter(c.name, metric.WithDescription(c.about), metric.WithUnit(c.unit)); err != nil {
			return nil, fmt.Errorf("metric %s: %w", c.name, err)
		}
	}
	if m.flights, err = meter.Int64UpDownCounter("entrepot.flights", metric.WithDescription("Downloads of blobs under way.")); err != nil {
		return nil, fmt.Errorf("metric entrepot.flights: %w", err)
	}
	if m.cache.kept, err = meter.Int64Gauge("entrepot.cache", metric.WithDescription("Bytes that are kept."), metric.WithUnit("By")); err != nil {
		return nil, fmt.Errorf("metric entrepot.cache: %w", err)
	}
	m.Flights(0) // exported from the start
	return m, nil
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Declare exports counters of rare events as 0 from the start, for each
// upstream. Otherwise the first event would create the time series and alerts
// on an increase would miss it.
func (m *Metrics) Declare(upstreams ...string) {
	m.Evicted(0)
	m.cache.damaged.Add(context.Background(), 0)
	m.panics.Add(context.Background(), 0)
	m.clients.refused.Add(context.Background(), 0)
	for _, upstream := range upstreams {
		m.cache.bypassed.Add(context.Background(), 0, m.attributes(labels{upstream: upstream}))
		m.Received(upstream, 0)
	}
}

// RecordsBehind exports what behind returns: the age of the oldest record that
// a power failure would lose.
func (m *Metrics) RecordsBehind(behind func() time.Duration) error {
	_, err := m.provider.Meter("entrepot").Float64ObservableGauge("entrepot.records.behind", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest record that is not durable, at most; 0 where none waits."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(behind().Seconds())
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.records.behind: %w", err)
	}
	return nil
}

// DraftBytes exports what bytes returns: the bytes of unfinished downloads that
// are kept.
func (m *Metrics) DraftBytes(bytes func() int64) error {
	_, err := m.provider.Meter("entrepot").Int64ObservableGauge("entrepot.cache.drafts", metric.WithUnit("By"),
		metric.WithDescription("Bytes of unfinished downloads that are kept; a part of entrepot_cache_bytes."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(bytes())
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.cache.drafts: %w", err)
	}
	return nil
}

// BesideBytes exports what is stored beside content and unfinished downloads: the
// bytes of the records, and those of files that were set aside.
func (m *Metrics) BesideBytes(records, aside func() int64) error {
	for name, of := range map[string]struct {
		bytes func() int64
		help  string
	}{
		"entrepot.cache.records": {records, "Bytes of the records, beside entrepot_cache_bytes."},
		"entrepot.cache.aside":   {aside, "Bytes of damaged files that were set aside, beside entrepot_cache_bytes."},
	} {
		_, err := m.provider.Meter("entrepot").Int64ObservableGauge(name, metric.WithUnit("By"), metric.WithDescription(of.help),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(of.bytes())
				return nil
			}))
		if err != nil {
			return fmt.Errorf("metric %s: %w", name, err)
		}
	}
	return nil
}

// Full exports what times returns: how often each bound was met, by its name.
func (m *Metrics) Full(times func() map[string]int64) error {
	_, err := m.provider.Meter("entrepot").Int64ObservableCounter("entrepot.cache.full",
		metric.WithDescription("Times that there was no room, by the bound that was met."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for bound, n := range times() {
				o.Observe(n, metric.WithAttributes(attribute.String("bound", bound)))
			}
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.cache.full: %w", err)
	}
	return nil
}

// MemoryBytes exports what bytes returns: the memory that small content takes.
func (m *Metrics) MemoryBytes(bytes func() int64) error {
	_, err := m.provider.Meter("entrepot").Int64ObservableGauge("entrepot.cache.memory", metric.WithUnit("By"),
		metric.WithDescription("Memory that small content takes, which is also on disk."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(bytes())
			return nil
		}))
	if err != nil {
		return fmt.Errorf("metric entrepot.cache.memory: %w", err)
	}
	return nil
}

// Flights counts downloads that start (+1) and end (-1).
func (m *Metrics) Flights(delta int) { m.flights.Add(context.Background(), int64(delta)) }

// Received counts bytes from an upstream.
func (m *Metrics) Received(upstream string, bytes int64) {
	m.received.Add(context.Background(), bytes, m.attributes(labels{upstream: upstream}))
}

// Evicted counts bytes that were evicted.
func (m *Metrics) Evicted(bytes int64) { m.cache.evicted.Add(context.Background(), bytes) }

// Panicked counts panics that were caught.
func (m *Metrics) Panicked() { m.panics.Add(context.Background(), 1) }

// Damaged counts stored content that was found damaged and quarantined.
func (m *Metrics) Damaged() { m.cache.damaged.Add(context.Background(), 1) }

// Kept records how many bytes are stored now.
func (m *Metrics) Kept(bytes int64) { m.cache.kept.Record(context.Background(), bytes) }

// Bypassed counts content that was served but could not be stored.
func (m *Metrics) Bypassed(upstream string) {
	m.cache.bypassed.Add(context.Background(), 1, m.attributes(labels{upstream: upstream}))
}

// Upstream counts a request to an upstream. The status is 0 if there was no
// response.
func (m *Metrics) Upstream(upstream, kind, method string, code int) {
	m.upstreams.Add(context.Background(), 1, m.attributes(labels{upstream: upstream, kind: kind, method: method, status: statusOf(code)}))
}

// Request counts a client's request that has been answered. The kind is empty
// for a request that is none of the specification's.
func (m *Metrics) Request(upstream, kind, outcome string, code int, bytes int64, took time.Duration) {
	if kind == "" {
		kind = "other"
	}
	m.requests.count(answered{upstream, kind, outcome, code}, bytes, took)
}

// attributes returns the labels as an option. The status is 0 when an upstream
// did not answer.
func (m *Metrics) attributes(l labels) metric.MeasurementOption {
	if known, ok := m.options.Load(l); ok {
		return known.(metric.MeasurementOption)
	}
	option := metric.WithAttributeSet(l.set())
	m.options.Store(l, option)
	return option
}

// set returns the labels that have a value.
func (l labels) set() attribute.Set {
	var all []attribute.KeyValue
	for _, label := range []attribute.KeyValue{
		attribute.String("upstream", l.upstream), attribute.String("kind", l.kind),
		attribute.String("outcome", l.outcome), attribute.String("method", l.method),
		attribute.String("reason", l.reason),
	} {
		if label.Value.AsString() != "" {
			all = append(all, label)
		}
	}
	if l.outcome != "" || l.method != "" {
		all = append(all, attribute.String("status", string(l.status)))
	}
	return attribute.NewSet(all...)
}
