package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An entrepot can be the upstream of another. Whoever is asked in the
// registry's place is told which registry is meant, and where it goes away the
// next endpoint takes over, in the middle of a blob too.
func TestAMirrorPullsThroughAnother(t *testing.T) {
	s := newSuite(t)
	registry := s.startDistribution(t, s.folder(t))
	docker := s.push(t, registry.host, "docker.io", "library/chained")
	example := s.push(t, registry.host, "registry.example", "team/chained")
	late := s.push(t, registry.host, "registry.example", "team/late")
	big := s.pushBig(t, registry.host)

	// A door is a way to the registry with a transcript. Neither mirror has a
	// default upstream, so that nothing comes through but by its name.
	door := func(next http.Handler) *upstream { return s.serveUpstream(t, next, func(*testing.T) {}) }
	gate := &halfway{next: reverseProxy(registry.host), blob: big.digest}
	dockerByParent, dockerByChild := door(reverseProxy(registry.host)), door(reverseProxy(registry.host))
	exampleByParent, exampleByChild := door(gate), door(reverseProxy(registry.host))

	parent, child := s.newMirror(t, nil), s.newMirror(t, nil)
	parent.lead(t, time.Hour, map[string][]string{"docker.io": {dockerByParent.host}, "registry.example": {exampleByParent.host}})
	parent.start(t)
	child.lead(t, time.Millisecond, map[string][]string{
		"docker.io":        {parent.address, dockerByChild.host},
		"registry.example": {parent.address, exampleByChild.host},
	})
	child.start(t)
	clients := []client{s.startCrane(t, child), s.startContainerd(t, child, "containerd", nil, []string{"--local"})}
	pull := func(images ...image) {
		t.Helper()
		for _, c := range clients {
			for _, img := range images {
				c.pull(t, img)
				c.check(t, img)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}

	pull(docker, example)
	child.waitAllLearnt(t)
	parent.waitAllLearnt(t)
	ofDocker, _ := dockerByParent.take().apart()
	ofExample, _ := exampleByParent.take().apart()
	checkFirst(t, slices.Concat(ofDocker, ofExample), []image{docker, example})
	for _, q := range ofDocker {
		if !strings.HasPrefix(q.path, "/v2/"+docker.repository+"/") {
			t.Errorf("docker.io is asked for what is not its own: %s", q)
		}
	}
	for _, q := range ofExample {
		if !strings.HasPrefix(q.path, "/v2/"+example.repository+"/") {
			t.Errorf("registry.example is asked for what is not its own: %s", q)
		}
	}
	for _, up := range []*upstream{dockerByChild, exampleByChild} {
		// Of a tag that the parent says is not there the next endpoint is asked.
		if asked, _ := up.take().apart(); len(asked) > 0 {
			t.Errorf("the child went round its parent:\n%s", asked)
		}
	}

	pulled := make(chan error, 1)
	file := filepath.Join(s.folder(t), "big")
	go func() { pulled <- fetch("http://"+child.address+"/v2/registry.example/"+big.path(), file) }()
	waitHalf(t, file, pulled)
	parent.crash(t)
	began := time.Now()
	if err := <-pulled; err != nil {
		t.Fatalf("the parent's crash breaks a pull: %v", err)
	}
	t.Logf("the blob is whole %s after the parent's crash", time.Since(began).Round(time.Millisecond))
	checkFile(t, file, big.digest)
	checkResumed(t, exampleByChild.take(), big)

	pull(late)
	asked := exampleByChild.take()
	checkOnce(t, asked)
	if len(asked) == 0 {
		t.Error("the second endpoint was not asked")
	}

	registry.process.end(t, syscall.SIGTERM)
	for _, up := range []*upstream{dockerByParent, dockerByChild, exampleByParent, exampleByChild} {
		up.stop(t)
	}
	for _, c := range clients {
		c.forget(t)
	}
	pull(docker, example, late)
	if err := fetch("http://"+child.address+"/v2/registry.example/"+big.path(), file); err != nil {
		t.Error(err)
	}
	checkFile(t, file, big.digest)
}

// lead writes a configuration that leads each registry to endpoints, by their
// hosts.
func (m *mirror) lead(t *testing.T, tagTTL time.Duration, endpoints map[string][]string) {
	t.Helper()
	config := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {tag_ttl: %s}\nupstreams:\n",
		m.address, m.admin, filepath.Join(m.dir, "cache"), tagTTL)
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		config += fmt.Sprintf("  - name: %s\n    endpoints: [http://%s]\n", name, strings.Join(endpoints[name], ", http://"))
	}
	if err := os.WriteFile(m.config(), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

// bigBlob is one that is long under way.
type bigBlob struct {
	repository, digest string
	size               int64
}

func (b bigBlob) path() string { return b.repository + "/blobs/" + b.digest }

// pushBig pushes an image of one layer that nothing compresses.
func (s *suite) pushBig(t *testing.T, host string) bigBlob {
	t.Helper()
	b := bigBlob{repository: "team/big", size: 64 << 20}
	content := make([]byte, b.size)
	_, _ = rand.Read(content) // It never fails.
	layer := static.NewLayer(content, types.OCIUncompressedLayer)
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b.digest = digest.String()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		t.Fatal(err)
	}
	target, err := name.NewTag(host+"/"+b.repository+":1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(target, img); err != nil {
		t.Fatal(err)
	}
	return b
}

// half of a big blob is what its first endpoint sends.
const half = 32 << 20

// nearly is so much of it that what buffers hold can be missing.
const nearly = half - 4<<20

// halfway stands before a registry, and sends no more than half of a blob until
// whoever asked for it is gone.
type halfway struct {
	next http.Handler
	blob string
}

func (h *halfway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, h.blob) {
		w = &halfWriter{ResponseWriter: w, left: half, gone: r.Context().Done()}
	}
	h.next.ServeHTTP(w, r)
}

type halfWriter struct {
	http.ResponseWriter
	left int
	gone <-chan struct{}
}

func (w *halfWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *halfWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		<-w.gone
		return 0, errors.New("whoever asked is gone")
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}

// waitHalf waits until nearly half of a blob has arrived in a file.
func waitHalf(t *testing.T, file string, pulled <-chan error) {
	t.Helper()
	deadline := time.After(9 * time.Second) // Silence of 10 s ends a download.
	for {
		if stat, err := os.Stat(file); err == nil && stat.Size() >= nearly {
			return
		}
		select {
		case err := <-pulled:
			t.Fatalf("the pull ends before half has arrived: %v", err)
		case <-deadline:
			t.Fatal("half of the blob does not arrive")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// fetch writes what is at an address into a file.
func fetch(address, file string) error {
	resp, err := http.Get(address)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, resp.Status)
	}
	into, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, resp.Body)
	return errors.Join(err, into.Close())
}

// checkResumed checks that the second endpoint was asked for no more of a blob
// than what was missing.
func checkResumed(t *testing.T, asked requests, b bigBlob) {
	t.Helper()
	blobs := asked.where(func(r request) bool { return r.method == http.MethodGet && strings.HasSuffix(r.path, b.digest) })
	if len(blobs) != 1 {
		t.Fatalf("the second endpoint was asked\n%s\nwant one request for the rest of %s", asked, b.digest)
	}
	from, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(blobs[0].rng, "bytes="), fmt.Sprintf("-%d", b.size-1)), 10, 64)
	if err != nil || from < nearly || from > half || blobs[0].status != http.StatusPartialContent || blobs[0].bytes != b.size-from {
		t.Errorf("the download went on with %s, want the rest of %d bytes", blobs[0], b.size)
	}
	t.Logf("the download went on with %s", blobs[0])
}
