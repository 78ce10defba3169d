package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	// hostileName is the upstream that answers what it likes, soundName another.
	hostileName, soundName = "hostile.test", "sound.test"
	// hostileMemory is what may be in use at any time, in bytes.
	hostileMemory = 512 << 20
	// hostileWait is how long a client of the other upstream may wait.
	hostileWait = 5 * time.Second
)

// TestArbitraryUpstreamsAndClients has arbitrary clients ask for what an
// arbitrary upstream has, against the whole program. Nothing of that ends a task
// with a panic, takes more memory than it may, or is served by a digest that it
// does not have, and another upstream's clients notice nothing.
// ENTREPOT_HOSTILE_SEED, _SEEDS and _STEPS have it go otherwise, or longer.
func TestArbitraryUpstreamsAndClients(t *testing.T) {
	var caught []string
	var mu sync.Mutex
	panics.Handle(func(task string, value any, stack []byte) {
		mu.Lock()
		defer mu.Unlock()
		caught = append(caught, fmt.Sprintf("%s: %v\n%s", task, value, stack))
	})
	defer panics.Handle(nil)
	first, n := numberFromEnvironment(t, "ENTREPOT_HOSTILE_SEED", 1), numberFromEnvironment(t, "ENTREPOT_HOSTILE_SEEDS", 2)
	for seed := first; seed < first+n; seed++ {
		dir := t.TempDir()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newArbitraryWorld(t, dir, seed).run() })
		})
	}
	for _, what := range caught {
		t.Error(what)
	}
}

// arbitraryWorld is a whole entrepot before two upstreams.
type arbitraryWorld struct {
	t              *testing.T
	odd            *odd
	mu             sync.Mutex // held while something is drawn from odd
	net            upstreamtest.Network
	hostile, sound *upstreamtest.Registry
	client         *http.Client
}

func newArbitraryWorld(t *testing.T, dir string, seed uint64) *arbitraryWorld {
	t.Helper()
	w := &arbitraryWorld{t: t, odd: &odd{Rand: rand.New(rand.NewPCG(seed, 2))}}
	w.hostile = upstreamtest.New(t, upstreamtest.WithNetwork(&w.net), upstreamtest.WithReferrers())
	w.sound = upstreamtest.New(t, upstreamtest.WithNetwork(&w.net), upstreamtest.WithReferrers())
	manifest, m := w.hostile.AddImage("app", "1", upstreamtest.Bytes(1, 1000), upstreamtest.Bytes(2, 100<<10))
	w.odd.digests = append(digestsOf(manifest, m), w.hostile.AddReferrer("app", manifest, "application/x", []byte("signature")).Digest.String())
	w.hostile.Always("", func(r *upstreamtest.Registry, rw http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		w.mu.Lock()
		answer := w.odd.answer()
		w.mu.Unlock()
		if answer == nil {
			r.Answer(rw, req, q)
			return
		}
		answer(r, rw, req, q)
	})

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
	var remotes []*upstream.Remote
	for name, fake := range map[string]*upstreamtest.Registry{hostileName: w.hostile, soundName: w.sound} {
		remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: name, Endpoint: fake.URL(), Dial: w.net.Dial})
		if err != nil {
			t.Fatal(err)
		}
		endpoint := upstream.Breaker(upstream.Retry(remote))
		slots := upstream.NewSlots(32)
		remotes = append(remotes, remote)
		upstreams = append(upstreams, pull.Upstream{
			Name: name, Registry: upstream.SecondConnection(slots.Limit(endpoint)), Endpoints: []upstream.Endpoint{slots.LimitEndpoint(endpoint)},
		})
	}
	behind := pulling.New(pulling.Options{
		Blobs: store.Blobs(), Records: store.Records(), Memory: content, Upstreams: upstreams, Logger: log,
		Rules: pull.Rules{TagTTL: time.Minute, ReferrersTTL: time.Minute, NegativeTTL: 10 * time.Second, MaxWait: 2 * time.Second},
	})
	behind.Start()
	server := proxy.HTTPServer(proxy.New(proxy.Options{
		Puller: behind.Puller, Logger: log, Upstreams: []proxy.Upstream{{Name: hostileName}, {Name: soundName, Default: true}},
	}), log)
	l, err := w.net.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	w.client = &http.Client{Transport: &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return w.net.Dial(ctx, network, l.Addr().String())
		},
	}}
	t.Cleanup(func() {
		server.Close()
		behind.Close()
		content.Close()
		for _, remote := range remotes {
			remote.Close()
		}
		if err := store.Close(); err != nil {
			t.Errorf("close the cache: %v", err)
		}
	})
	return w
}

func (w *arbitraryWorld) run() {
	var most uint64
	for step := range int(numberFromEnvironment(w.t, "ENTREPOT_HOSTILE_STEPS", 50)) {
		var asked sync.WaitGroup
		for range 3 {
			w.mu.Lock()
			method, path, header := w.odd.question()
			w.mu.Unlock()
			asked.Go(func() { w.ask(method, path, header) })
		}
		if step%10 == 0 {
			w.askNeighbour(step)
		}
		asked.Wait()
		time.Sleep(time.Second)
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		most = max(most, memory.HeapAlloc)
	}
	if most > hostileMemory {
		w.t.Errorf("%d MiB were in use", most>>20)
	}
}

// ask asks for something. Whatever it gets by a digest has that digest.
func (w *arbitraryWorld) ask(method, path string, header http.Header) {
	at := &url.URL{Scheme: "http", Host: "mirror.test"}
	at.Path, at.RawQuery, _ = strings.Cut(path, "?")
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
	defer cancel()
	resp, err := w.client.Do((&http.Request{Method: method, URL: at, Header: header}).WithContext(ctx))
	if err != nil {
		w.t.Errorf("%s %.200s: %v", method, path, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if ctx.Err() != nil {
		w.t.Errorf("%s %.200s: it takes over 10 minutes", method, path)
	}
	ref := at.Path[strings.LastIndex(at.Path, "/")+1:]
	if d, parseErr := digest.Parse(ref); parseErr == nil && err == nil && resp.StatusCode == http.StatusOK && method == http.MethodGet && !strings.Contains(path, "/referrers/") {
		if d.Algorithm().FromBytes(body) != d {
			w.t.Errorf("%s %.200s, %v: 200 with other content: %.200q", method, path, header, body)
		}
	}
}

// askNeighbour pulls something new from the other upstream.
func (w *arbitraryWorld) askNeighbour(step int) {
	layer := upstreamtest.Bytes(byte(step), 50<<10+step)
	manifest, _ := w.sound.AddImage(fmt.Sprint("image", step), "1", layer)
	for path, want := range map[string][]byte{
		"/v2/" + fmt.Sprint("image", step) + "/manifests/1":                               w.sound.BodyOf(fmt.Sprint("image", step), manifest.Digest.String()),
		"/v2/" + fmt.Sprint("image", step) + "/blobs/" + digest.FromBytes(layer).String(): layer,
	} {
		began := time.Now()
		resp, err := w.client.Get("http://mirror.test" + path)
		if err != nil {
			w.t.Errorf("step %d: %s: %v", step, path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if took := time.Since(began); err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) || took > hostileWait {
			w.t.Errorf("step %d: %s: status %d, %d bytes, %v, after %s", step, path, resp.StatusCode, len(body), err, took)
		}
	}
}
