package upstream_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// remote reaches a registry for tests, with short waits.
func remote(t *testing.T, endpoint string, change func(*upstream.RemoteOptions)) *upstream.Remote {
	t.Helper()
	opts := upstream.RemoteOptions{
		Name: "hub.test", Endpoint: endpoint,
		Waits: upstream.Timeouts{Connect: time.Second, Header: time.Second, Idle: 300 * time.Millisecond},
	}
	if change != nil {
		change(&opts)
	}
	r, err := upstream.NewRemote(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestContract(t *testing.T) {
	// Nothing here is silent: who is slow is the machine.
	patient := func(opts *upstream.RemoteOptions) {
		opts.Waits = upstream.Timeouts{Connect: 10 * time.Second, Header: 10 * time.Second, Idle: 10 * time.Second}
	}
	for name, wrap := range map[string]func(upstream.Endpoint) upstream.Registry{
		"the remote": func(r upstream.Endpoint) upstream.Registry { return r },
		"retry":      func(r upstream.Endpoint) upstream.Registry { return upstream.Retry(r) },
		"limit":      func(r upstream.Endpoint) upstream.Registry { return upstream.Limit(r, 4) },
		"endpoint":   func(r upstream.Endpoint) upstream.Registry { return upstream.NewSlots(4).LimitEndpoint(r) },
		"breaker":    func(r upstream.Endpoint) upstream.Registry { return upstream.Breaker(r) },
		"fallback to the second": func(r upstream.Endpoint) upstream.Registry {
			return upstream.Fallback(remote(t, upstreamtest.New(t).URL(), patient), r)
		},
		"all of them": func(r upstream.Endpoint) upstream.Registry {
			return upstream.SecondConnection(upstream.Limit(upstream.Fallback(upstream.Breaker(upstream.Retry(r))), 4))
		},
	} {
		t.Run(name, func(t *testing.T) {
			upstreamtest.Suite(t, func(t *testing.T, fake *upstreamtest.Registry) upstream.Registry {
				return wrap(remote(t, fake.URL(), patient))
			})
			if _, isEndpoint := wrap(remote(t, upstreamtest.New(t).URL(), patient)).(upstream.Endpoint); !isEndpoint {
				return
			}
			upstreamtest.EndpointSuite(t, func(t *testing.T, fake *upstreamtest.Registry) upstream.Endpoint {
				return wrap(remote(t, fake.URL(), patient)).(upstream.Endpoint)
			})
		})
	}
}
