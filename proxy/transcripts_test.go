package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// platforms is an index of two platforms with two layers each, and the paths
// that a runtime asks for to pull the first of them, in order.
func platforms(fake *upstreamtest.Registry) (index ocispec.Descriptor, paths, lines []string) {
	var children []ocispec.Descriptor
	var first ocispec.Manifest
	for i := range 2 {
		child, m := fake.AddImage("app", "", upstreamtest.Bytes(byte(2*i), 200<<10), upstreamtest.Bytes(byte(2*i+1), 300<<10))
		child.Platform = &ocispec.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]}
		children = append(children, child)
		if i == 0 {
			first = m
		}
	}
	index = fake.AddIndex("app", "1", children...)
	paths = []string{"/v2/app/manifests/" + index.Digest.String(), "/v2/app/manifests/" + children[0].Digest.String()}
	lines = []string{"GET manifests app 1", "GET manifests app " + upstreamtest.Short(children[0].Digest.String())}
	for _, blob := range append([]ocispec.Descriptor{first.Config}, first.Layers...) {
		paths = append(paths, "/v2/app/blobs/"+blob.Digest.String())
		lines = append(lines, "GET blobs app "+upstreamtest.Short(blob.Digest.String()))
	}
	return index, paths, lines
}

// pullAll pulls as containerd does: HEAD of the tag, then all by digest.
func (m *mirror) pullAll(paths []string) {
	m.t.Helper()
	if a := m.head("/v2/app/manifests/1"); a.status != http.StatusOK {
		m.t.Errorf("HEAD of the tag: %d", a.status)
	}
	for _, path := range paths {
		a := m.get(path)
		digest := pull.Digest(filepath.Base(path))
		if a.status != http.StatusOK || a.broken != nil || digest.Algorithm().FromBytes(a.body) != digest {
			m.t.Errorf("%s: %d, %d bytes, %v", path, a.status, len(a.body), a.broken)
		}
	}
}

func TestFiftyColdPullsOfOneImageAreOneGETPerManifestAndBlob(t *testing.T) {
	fake := upstreamtest.New(t)
	_, paths, lines := platforms(fake)
	m := newMirror(t, fake, setup{})
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() { m.pullAll(paths) })
	}
	clients.Wait()
	m.wantAsked(lines...)
	// A hit asks nothing.
	m.pullAll(paths)
	m.wantAsked()
}

func TestAPullOfAStaleTagIsOneHEAD(t *testing.T) {
	fake := upstreamtest.New(t)
	_, paths, _ := platforms(fake)
	m := newMirror(t, fake, setup{options: func(o *pulling.Options) { o.Rules.TagTTL = time.Nanosecond }})
	m.pullAll(paths)
	fake.Transcript()
	m.pullAll(paths)
	m.wantAsked("HEAD manifests app 1")
}

func TestWhatWasPulledIsThereWithTheUpstreamUnplugged(t *testing.T) {
	for name, between := range map[string]func(t *testing.T, dir string){
		"and the mirror restarted": func(*testing.T, string) {},
		"and the records damaged": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "records.db"), []byte("not a database, whatever it was"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"and the records gone": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "records.db")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t)
			_, paths, _ := platforms(fake)
			dir := t.TempDir()
			soon := func(o *pulling.Options) { o.Rules.TagTTL = time.Nanosecond }
			m := newMirror(t, fake, setup{dir: dir, options: soon})
			m.pullAll(paths)
			fake.Stop()
			m.pullAll(paths)
			if a := m.head("/v2/app/manifests/1"); a.header.Get("Warning") != `110 - "Response is Stale"` {
				t.Errorf("the warning is %q", a.header.Get("Warning"))
			}
			m.stop()
			between(t, dir)
			newMirror(t, fake, setup{dir: dir, options: soon}).pullAll(paths)
		})
	}
}

func TestAnUpstreamThatKnowsNoHEADIsAskedByGET(t *testing.T) {
	fake := upstreamtest.New(t)
	_, paths, _ := platforms(fake)
	m := newMirror(t, fake, setup{options: func(o *pulling.Options) { o.Rules.TagTTL = time.Nanosecond }})
	m.pullAll(paths)
	fake.Transcript()
	fake.Always("HEAD", upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"))
	if a := m.get("/v2/app/manifests/1"); a.status != http.StatusOK || a.header.Get("Warning") != "" {
		t.Errorf("%d, warning %q", a.status, a.header.Get("Warning"))
	}
	m.wantAsked("HEAD manifests app 1", "GET manifests app 1")
}

// F17, W42: Docker Hub counts GETs of manifests and no HEADs, and some clients
// ask for nothing else.
func TestAHEADIsAnsweredWhileGETsOfManifestsAreLimited(t *testing.T) {
	fake := upstreamtest.New(t)
	index, _, _ := platforms(fake)
	fake.Always("GET manifests", upstreamtest.RateLimited(60))
	m := newMirror(t, fake, setup{})
	a := m.head("/v2/app/manifests/1")
	if a.status != http.StatusOK || a.header.Get("Docker-Content-Digest") != index.Digest.String() || a.header.Get("Content-Type") != index.MediaType ||
		a.header.Get("Content-Length") != strconv.FormatInt(index.Size, 10) {
		t.Errorf("%d %v", a.status, a.header)
	}
	m.wantAsked("GET manifests app 1", "HEAD manifests app 1")
	if a := m.get("/v2/app/manifests/1"); a.status != http.StatusTooManyRequests {
		t.Errorf("GET: %d", a.status)
	}
	if a := m.head("/v2/app/manifests/2"); a.status != http.StatusTooManyRequests {
		t.Errorf("HEAD of a tag that is not there: %d", a.status)
	}
}
