package proxy_test

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// enclosed is a whole entrepot within the process, so that all its waits go by
// synctest's clock: the real cache on disk, the real remotes with their policies,
// the real face.
type enclosed struct {
	client *http.Client // its host in URLs is of no matter
	behind *pulling.Mirror
	places *proxy.Places
}

// enclosedUpstream is one of its upstreams. Of several, the first is the one that
// requests mean that name none.
type enclosedUpstream struct {
	name        string
	endpoints   []*upstreamtest.Registry
	maxRequests int // 0: 32
	credentials upstream.Keychain
}

func newEnclosed(t *testing.T, network *upstreamtest.Network, dir string, rules pull.Rules, configured ...enclosedUpstream) *enclosed {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := disk.Open(dir, disk.Options{Journal: metadata.Durable(), VerifyEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	content, err := memory.NewContent(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var upstreams []pull.Upstream
	var names []proxy.Upstream
	var remotes []*upstream.Remote
	for i, u := range configured {
		slots := upstream.NewSlots(cmp.Or(u.maxRequests, 32))
		var all, each []upstream.Endpoint
		for _, fake := range u.endpoints {
			remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: u.name, Endpoint: fake.URL(), Dial: network.Dial, Credentials: u.credentials})
			if err != nil {
				t.Fatal(err)
			}
			endpoint := upstream.Breaker(upstream.Retry(remote))
			remotes, all, each = append(remotes, remote), append(all, endpoint), append(each, slots.LimitEndpoint(endpoint))
		}
		upstreams = append(upstreams, pull.Upstream{
			Name: u.name, Registry: upstream.SecondConnection(slots.Limit(upstream.Fallback(all...))), Endpoints: each,
			Credentialed: u.credentials != nil,
		})
		names = append(names, proxy.Upstream{Name: u.name, Default: i == 0})
	}
	m := &enclosed{places: proxy.NewPlaces(proxy.PlacesOptions{Logger: log})}
	m.behind = pulling.New(pulling.Options{
		Blobs: store.Blobs(), Records: store.Records(), Memory: content, Upstreams: upstreams, Rules: rules, Logger: log,
	})
	m.behind.Start()
	server := proxy.HTTPServer(proxy.New(proxy.Options{Puller: m.behind.Puller, Logger: log, Upstreams: names, Places: m.places}), log)
	l, err := network.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	m.client = &http.Client{Transport: &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
			return network.Dial(ctx, protocol, l.Addr().String())
		},
	}}
	t.Cleanup(func() {
		server.Close()
		m.behind.Close()
		content.Close()
		for _, remote := range remotes {
			remote.Close()
		}
		if err := store.Close(); err != nil {
			t.Errorf("close the cache: %v", err)
		}
	})
	return m
}
