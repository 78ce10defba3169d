package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// referringWorld is an image and what hangs on it, the registries that have it,
// and an entrepot in front of them, with all their waits, within the process.
type referringWorld struct {
	t       *testing.T
	dir     string
	net     upstreamtest.Network
	fakes   []*upstreamtest.Registry // the endpoints, in their order
	subject ocispec.Descriptor
	hangs   []ocispec.Descriptor // on the subject, as they describe themselves
	mirror  *referringNode
	parent  *referringNode // between the mirror and the registries, or nil
	change  func(*pulling.Options)
}

// referringNode is one entrepot.
type referringNode struct {
	pulling *pulling.Mirror
	address string
	dir     string
	stop    func()
}

const referringRepo = "app"

func newReferringWorld(t *testing.T, dir string, row referringRow) *referringWorld {
	t.Helper()
	w := &referringWorld{t: t, dir: dir, change: row.options}
	for _, options := range row.endpoints() {
		fake := upstreamtest.New(t, append(options, upstreamtest.WithNetwork(&w.net))...)
		w.subject, _ = fake.AddImage(referringRepo, "1", []byte("layer"))
		w.fakes = append(w.fakes, fake)
	}
	var endpoints []string
	for _, fake := range w.fakes {
		endpoints = append(endpoints, fake.URL())
	}
	if row.chain {
		w.parent = w.start(filepath.Join(dir, "parent"), endpoints...)
		endpoints = []string{"http://" + w.parent.address}
	}
	w.mirror = w.start(filepath.Join(dir, "mirror"), endpoints...)
	return w
}

// start starts an entrepot on a folder, with the waits that it has by default.
func (w *referringWorld) start(dir string, endpoints ...string) *referringNode {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := disk.Open(dir, disk.Options{Journal: metadata.Durable(), VerifyEvery: time.Hour})
	if err != nil {
		w.t.Fatal(err)
	}
	content, err := memory.NewContent(1 << 20)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []upstream.Endpoint
	var remotes []*upstream.Remote
	for _, endpoint := range endpoints {
		has, saw := metadata.RememberReferrersAPI(store.Records(), "hub.test", endpoint)
		remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: "hub.test", Endpoint: endpoint, Dial: w.net.Dial, HasReferrers: has, SawReferrers: saw})
		if err != nil {
			w.t.Fatal(err)
		}
		remotes, all = append(remotes, remote), append(all, upstream.Breaker(upstream.Retry(remote)))
	}
	options := pulling.Options{
		Blobs: store.Blobs(), Records: store.Records(), Memory: content,
		Upstreams: []pull.Upstream{{Name: "hub.test", Registry: upstream.SecondConnection(upstream.Limit(upstream.Fallback(all...), 32)), Endpoints: all}},
		Rules:     pull.Rules{TagTTL: time.Minute, ReferrersTTL: 5 * time.Minute, NegativeTTL: 30 * second, MaxWait: 2 * second},
		Logger:    log,
	}
	if w.change != nil {
		w.change(&options)
	}
	behind := pulling.New(options)
	if store.Rebuilt() {
		if _, err := behind.Ledger.RebuildMembers(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	behind.Start()
	server := proxy.HTTPServer(proxy.New(proxy.Options{
		Puller: behind.Puller, Logger: log, Upstreams: []proxy.Upstream{{Name: "hub.test", Default: true}},
	}), log)
	l, err := w.net.Listen("127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	n := &referringNode{pulling: behind, address: l.Addr().String(), dir: dir}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		server.Close()
		behind.Close()
		content.Close()
		for _, remote := range remotes {
			remote.Close()
		}
		if err := store.Close(); err != nil {
			w.t.Errorf("close the cache: %v", err)
		}
	}
	w.t.Cleanup(n.stop)
	return n
}

// loseRecords stops the mirror, loses its records as damage does, and starts it
// again.
func (w *referringWorld) loseRecords() {
	w.t.Helper()
	w.mirror.stop()
	if err := os.Remove(filepath.Join(w.mirror.dir, "records.db")); err != nil {
		w.t.Fatal(err)
	}
	w.mirror = w.start(w.mirror.dir, w.fakes[0].URL())
}

// attach hangs a referrer on the image, at all endpoints or at those given.
func (w *referringWorld) attach(name string, at ...*upstreamtest.Registry) ocispec.Descriptor {
	w.t.Helper()
	return w.attachAs(referrerNamed(name, w.subject), at...)
}

func (w *referringWorld) attachAs(m ocispec.Manifest, at ...*upstreamtest.Registry) ocispec.Descriptor {
	d := w.add(m, at...)
	w.hangs = append(w.hangs, d)
	return d
}

// add has registries hold a manifest, and returns it as it describes itself.
func (w *referringWorld) add(m ocispec.Manifest, at ...*upstreamtest.Registry) ocispec.Descriptor {
	w.t.Helper()
	if len(at) == 0 {
		at = w.fakes
	}
	body, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	var d ocispec.Descriptor
	for _, fake := range at {
		fake.AddBlob(referringRepo, []byte("{}"))
		d = fake.AddManifest(referringRepo, m.MediaType, body)
	}
	d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
	return d
}

func referrerNamed(name string, subject ocispec.Descriptor) ocispec.Manifest {
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example." + name,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON}, Subject: &subject,
		Annotations: map[string]string{"org.example.name": name},
	}
}

// list has the fallback tag list what hangs on the image, and perhaps more.
func (w *referringWorld) list(more ...ocispec.Descriptor) {
	for _, fake := range w.fakes {
		fake.AddFallbackTag(referringRepo, w.subject.Digest, slices.Concat(w.hangs, more)...)
	}
}

// always has every endpoint answer requests that match with a fault.
func (w *referringWorld) always(match string, f upstreamtest.Fault) {
	for _, fake := range w.fakes {
		fake.Always(match, f)
	}
}

// Requests that faults meet.
const (
	theAPI   = "referrers app"
	laterAPI = "after="
)

func (w *referringWorld) theTag() string { return "manifests app " + w.tag() }
func (w *referringWorld) tag() string    { return referrers.TagOf(w.subject.Digest) }

func short(d ocispec.Descriptor) string { return upstreamtest.Short(d.Digest.String()) }

// Questions about the image's referrers.
const (
	byAPI = "the API"
	byTag = "the tag"
)

func (w *referringWorld) path(by string) string {
	if by == byTag {
		return "/v2/app/manifests/" + w.tag()
	}
	return "/v2/app/referrers/" + w.subject.Digest.String()
}

// ask asks what hangs on the image, and says what the client sees.
func (w *referringWorld) ask(by string, header ...string) string {
	w.t.Helper()
	status, got, body := w.get(w.path(by), header...)
	for pages := [][]byte{body}; ; pages = append(pages, body) {
		next, ok := strings.CutSuffix(strings.TrimPrefix(got.Get("Link"), "<"), `>; rel="next"`)
		if !ok {
			return w.judge(status, got, pages)
		}
		status, got, body = w.get(next, header...)
	}
}

func (w *referringWorld) get(path string, header ...string) (int, http.Header, []byte) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return w.net.Dial(ctx, network, w.mirror.address)
		},
	}}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://mirror.test"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if took := time.Since(began); took >= 20*second {
		w.t.Errorf("%s took %s", path, took)
	}
	return resp.StatusCode, resp.Header, body
}

// judge says what an answer tells of what hangs on the image. It has the last
// page's status and header.
func (w *referringWorld) judge(status int, header http.Header, pages [][]byte) string {
	w.t.Helper()
	body := pages[len(pages)-1]
	warning, _, _ := strings.Cut(header.Get("Warning"), " ")
	if status != http.StatusOK {
		var list struct {
			Errors []struct{ Code string }
		}
		if err := json.Unmarshal(body, &list); err != nil || len(list.Errors) == 0 {
			w.t.Fatalf("%d with %q", status, body)
		}
		sees := fmt.Sprintf("%d %s", status, list.Errors[0].Code)
		if warning != "" {
			sees += ", Warning: " + warning
		}
		return sees
	}
	if header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
		return "the image that it is"
	}
	var index ocispec.Index
	var listed []ocispec.Descriptor
	for _, page := range pages {
		if err := json.Unmarshal(page, &index); err != nil {
			w.t.Fatal(err)
		}
		listed = append(listed, index.Manifests...)
		index.Manifests = nil
	}
	how := "known"
	if warning != "" {
		how = "stale"
	}
	hangs := make(map[digest.Digest]ocispec.Descriptor, len(w.hangs))
	for _, d := range w.hangs {
		hangs[d.Digest] = d
	}
	found, wrong, foreign := 0, 0, 0
	for _, d := range listed {
		itself, hangsOnIt := hangs[d.Digest]
		switch {
		case !hangsOnIt:
			foreign++
			continue
		case !reflect.DeepEqual(itself, d):
			wrong++
		}
		found++
	}
	sees := fmt.Sprintf("%s, %d of %d", how, found, len(w.hangs))
	if wrong > 0 && how == "known" {
		sees += fmt.Sprintf(", %d of them wrong", wrong)
	}
	if foreign > 0 {
		sees += fmt.Sprintf(", and %d that do not refer to it", foreign)
	}
	if slices.ContainsFunc(pages, func(page []byte) bool { return len(page) >= 4<<20 }) {
		sees += ", in more than 4 MiB"
	}
	if len(index.Annotations) > 0 {
		sees += ", which says that there are more"
	}
	return sees
}

// asked is how many requests the registries have got since the last call.
func (w *referringWorld) asked() int {
	n := 0
	for _, fake := range w.fakes {
		n += len(fake.Transcript())
	}
	return n
}

// mend ends all faults.
func (w *referringWorld) mend() {
	for _, fake := range w.fakes {
		fake.Mend()
		fake.Start()
	}
}
