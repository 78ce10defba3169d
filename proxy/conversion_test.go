package proxy_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// converted is a registry that minds Accept, an index in it and its first
// child, and a mirror of it.
type converted struct {
	*mirror
	fake         *upstreamtest.Registry
	index, child ocispec.Descriptor

	mu   sync.Mutex
	asks []string // of tags, with an Accept that is a client's
}

func newConverted(t *testing.T, dir string, change func(*pulling.Options)) *converted {
	t.Helper()
	c := &converted{fake: upstreamtest.New(t)}
	c.child, _ = c.fake.AddImage("app", "amd64", upstreamtest.Bytes(1, 100))
	c.index = c.fake.AddIndex("app", "1", c.child)
	c.fake.Always("manifests", upstreamtest.Converting(func(method, accept string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(accept) < 200 { // the mirror's own is longer
			c.asks = append(c.asks, method+" "+accept)
		}
	}))
	c.mirror = newMirror(t, c.fake, setup{dir: dir, options: change})
	return c
}

// want asks with an Accept, twice.
func (c *converted) want(t *testing.T, ref, accept string, status int, want ocispec.Descriptor, asks ...string) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodGet} {
		req, err := http.NewRequestWithContext(t.Context(), method, c.url+"/v2/app/manifests/"+ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status || status == http.StatusOK &&
			(resp.Header.Get("Docker-Content-Digest") != want.Digest.String() || resp.Header.Get("Content-Type") != want.MediaType || resp.ContentLength != want.Size) {
			t.Errorf("%s %s, accepting %q: %d, %s %s", method, ref, accept, resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Docker-Content-Digest"))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.asks) != fmt.Sprint(asks) {
		t.Errorf("%s, accepting %q: the upstream was asked %q, want %q", ref, accept, c.asks, asks)
	}
	c.asks = nil
}

// F30, F36: registries that convert by Accept.
func TestAClientGetsTheTypesThatItAccepts(t *testing.T) {
	c := newConverted(t, "", nil)
	all := ocispec.MediaTypeImageIndex + ", " + ocispec.MediaTypeImageManifest
	c.want(t, "1", "", http.StatusOK, c.index)
	c.want(t, "1", all, http.StatusOK, c.index)
	c.want(t, "1", ocispec.MediaTypeImageManifest+", */*;q=0.1", http.StatusOK, c.index)
	c.want(t, "1", ocispec.MediaTypeImageManifest, http.StatusOK, c.child, "HEAD "+ocispec.MediaTypeImageManifest)
	c.want(t, "1", "", http.StatusOK, c.index) // still
	// Another class of clients, for which there is nothing: as without a mirror.
	c.want(t, "1", dockerManifest, http.StatusNotFound, ocispec.Descriptor{}, "HEAD "+dockerManifest, "GET "+dockerManifest)
	c.want(t, "1", "", http.StatusOK, c.index)
	// A digest names content of one type.
	c.fake.Transcript()
	c.want(t, c.index.Digest.String(), dockerManifest, http.StatusOK, c.index)
	if asked := c.fake.Transcript(); len(asked) > 0 {
		t.Errorf("about a digest, the upstream was asked %q", asked)
	}
	// Who wants what the tag is costs nothing.
	c.want(t, "amd64", ocispec.MediaTypeImageManifest, http.StatusOK, c.child)
}

func TestWhereAcceptIsIgnoredItCostsOneHEAD(t *testing.T) {
	c := newConverted(t, "", nil)
	c.fake.Mend()
	c.want(t, "1", "", http.StatusOK, c.index)
	c.fake.Transcript()
	c.want(t, "1", dockerManifest, http.StatusOK, c.index)
	if asked := c.fake.Transcript(); len(asked) != 1 || asked[0] != "HEAD manifests app 1" {
		t.Errorf("the upstream was asked %q", asked)
	}
}

func TestTheCachedTypeIsServedWhereTheUpstreamIsAway(t *testing.T) {
	dir := t.TempDir()
	c := newConverted(t, dir, func(o *pulling.Options) { o.Rules.TagTTL = 0 })
	get := func(accept string) errorResponse {
		return c.do(http.MethodGet, "/v2/app/manifests/1", http.Header{"Accept": {accept}})
	}
	if a := get(""); a.status != http.StatusOK {
		t.Fatalf("%d", a.status)
	}
	if a := get(ocispec.MediaTypeImageManifest); a.header.Get("Docker-Content-Digest") != c.child.Digest.String() {
		t.Errorf("got %s", a.header.Get("Docker-Content-Digest"))
	}
	c.fake.Stop()
	for accept, want := range map[string]ocispec.Descriptor{dockerManifest: c.index, ocispec.MediaTypeImageManifest: c.child, "": c.index} {
		a := get(accept)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != want.MediaType || a.header.Get("Docker-Content-Digest") != want.Digest.String() || a.header.Get("Warning") == "" {
			t.Errorf("accepting %q: %d, %s %s, Warning: %s", accept, a.status, a.header.Get("Content-Type"), a.header.Get("Docker-Content-Digest"), a.header.Get("Warning"))
		}
	}
}
