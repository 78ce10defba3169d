package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

func TestMain(m *testing.M) {
	// Most rows of the fault table wait for an upstream that fails, and need no
	// processor for it.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	cachetest.InMemory()
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

// mirror is a whole entrepot on loopback, over a registry for tests: the real
// cache on disk, the real remote with its policies, the real face.
type mirror struct {
	t      *testing.T
	url    string
	fake   *upstreamtest.Registry
	store  *disk.Cache
	client *http.Client
	stop   func()
}

// setup is what tests change about a mirror.
type setup struct {
	dir       string
	endpoint  string
	remote    func(*upstream.RemoteOptions)
	options   func(*pulling.Options)
	wrap      func(http.Handler) http.Handler
	once      bool          // nothing is asked again
	downAfter time.Duration // of the disk; 0: as it is
	files     files.System  // nil: the operating system's
	silent    bool          // the upstream falls silent, and is not waited for long
}

func newMirror(t *testing.T, fake *upstreamtest.Registry, s setup) *mirror {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	if s.endpoint == "" {
		s.endpoint = fake.URL()
	}
	log := slog.New(slog.DiscardHandler)
	remoteOptions := upstream.RemoteOptions{
		Name: "hub.test", Endpoint: s.endpoint,
		Waits: upstream.Timeouts{Connect: 10 * time.Second, Header: 10 * time.Second, Idle: 10 * time.Second},
	}
	if s.silent {
		remoteOptions.Waits = upstream.Timeouts{Connect: time.Second, Header: time.Second, Idle: time.Second}
	}
	if s.remote != nil {
		s.remote(&remoteOptions)
	}
	remote, err := upstream.NewRemote(remoteOptions)
	if err != nil {
		t.Fatal(err)
	}
	var endpoint upstream.Endpoint = remote
	if !s.once {
		endpoint = upstream.Retry(endpoint)
	}
	store, err := disk.Open(s.dir, disk.Options{Journal: metadata.Durable(), VerifyEvery: time.Hour, Files: s.files, DownAfter: s.downAfter})
	if err != nil {
		t.Fatal(err)
	}
	content, err := memory.NewContent(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	options := pulling.Options{
		Blobs: store.Blobs(), Records: store.Records(), Memory: content,
		Upstreams: []pull.Upstream{{Name: "hub.test", Endpoints: []upstream.Endpoint{upstream.NewSlots(32).LimitEndpoint(upstream.Breaker(endpoint))}}},
		Rules: pull.Rules{
			TagTTL: time.Minute, ReferrersTTL: time.Minute, MaxWait: time.Minute,
			Patience: time.Minute, // so that no row depends on who is faster
		},
		Logger: log,
	}
	if s.options != nil {
		s.options(&options)
	}
	behind := pulling.New(options)
	if store.Rebuilt() {
		if _, err := behind.Ledger.RebuildMembers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	behind.Start()
	var handler http.Handler = proxy.New(proxy.Options{
		Puller: behind.Puller, Logger: log,
		Upstreams: []proxy.Upstream{
			{Name: "hub.test", Aliases: []string{"alias.test"}, Hosts: []string{"virtual.test"}, Default: true},
			{Name: "docker.io", Aliases: []string{"index.docker.io"}},
		},
	})
	if s.wrap != nil {
		handler = s.wrap(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config = proxy.HTTPServer(handler, log)
	server.Listener = proxy.LimitConnections(server.Config, server.Listener, proxy.NewPlaces(proxy.PlacesOptions{Logger: log}))
	server.Start()
	transport := &http.Transport{DisableCompression: true}
	m := &mirror{t: t, url: server.URL, fake: fake, store: store, client: &http.Client{Transport: transport}}
	done := false
	m.stop = func() {
		if done {
			return
		}
		done = true
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
		behind.Close()
		content.Close()
		remote.Close()
		if err := store.Close(); err != nil {
			t.Errorf("close the cache: %v", err)
		}
	}
	t.Cleanup(m.stop)
	return m
}

// answer is what a client saw.
type errorResponse struct {
	status int
	header http.Header
	body   []byte
	code   string // of the first error
	broken error  // the connection broke in the body
}

func (m *mirror) do(method, path string, header http.Header) errorResponse {
	m.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, m.url+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for key, values := range header {
		req.Header[key] = values
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return errorResponse{broken: err}
	}
	defer resp.Body.Close()
	a := errorResponse{status: resp.StatusCode, header: resp.Header}
	a.body, a.broken = readBody(resp)
	var list struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal(a.body, &list) == nil && len(list.Errors) > 0 {
		a.code = list.Errors[0].Code
	}
	return a
}

// readBody reads a body into as much memory as its header says that it takes.
func readBody(resp *http.Response) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(max(resp.ContentLength, 0)) + bytes.MinRead)
	_, err := body.ReadFrom(resp.Body)
	return body.Bytes(), err
}

func (m *mirror) get(path string) errorResponse { m.t.Helper(); return m.do(http.MethodGet, path, nil) }
func (m *mirror) head(path string) errorResponse {
	m.t.Helper()
	return m.do(http.MethodHead, path, nil)
}

func (m *mirror) keeps(d pull.Digest) bool {
	_, err := m.store.Blobs().Stat(context.Background(), d)
	return err == nil
}

func (m *mirror) wantAsked(want ...string) {
	m.t.Helper()
	got := m.fake.Transcript()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("the upstream was asked\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
