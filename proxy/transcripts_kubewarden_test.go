package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// policy is what kwctl pushes: a Wasm module, with a manifest in canonical JSON.
type policy struct {
	manifest, module, config []byte
}

func addPolicy(fake *upstreamtest.Registry) policy {
	p := policy{module: upstreamtest.Bytes(1, 300<<10), config: []byte("{}")}
	config, layer := fake.AddBlob("policies/pods", p.config), fake.AddBlob("policies/pods", p.module)
	p.manifest = fmt.Appendf(nil, `{"config":{"digest":%q,"mediaType":"application/vnd.wasm.config.v1+json","size":%d},`+
		`"layers":[{"digest":%q,"mediaType":"application/vnd.wasm.content.layer.v1+wasm","size":%d}],"mediaType":%q,"schemaVersion":2}`,
		config.Digest, config.Size, layer.Digest, layer.Size, ocispec.MediaTypeImageManifest)
	fake.AddManifest("policies/pods", ocispec.MediaTypeImageManifest, p.manifest, "v1")
	return p
}

// acceptOfOCIClient is what the crate oci-client accepts, whatever it asks for:
// blobs are asked for with it as well.
const acceptOfOCIClient = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex

// ask is one request of the crate oci-client. Without a token it looks for a
// challenge before each, and takes WWW-Authenticate for one whatever the status.
func (m *mirror) ask(method, path string) errorResponse {
	m.t.Helper()
	ping := m.get("/v2/")
	if ping.status != http.StatusOK {
		m.t.Errorf("the ping is answered with %d, want 200", ping.status)
	}
	a := m.do(method, path, http.Header{"Accept": {acceptOfOCIClient}})
	for name, header := range map[string]http.Header{"the ping": ping.header, method + " " + path: a.header} {
		if challenge, ok := header["Www-Authenticate"]; ok {
			m.t.Errorf("%s is answered with the challenge %q", name, challenge)
		}
	}
	return a
}

// pullPolicy is "kwctl pull": the digest of the tag, the manifest, its config and
// its only layer, each of which has to arrive byte for byte.
func (m *mirror) pullPolicy(p policy) {
	m.t.Helper()
	const repository = "/v2/hub.test/policies/pods"
	for _, c := range []struct {
		method, path, mediaType string
		content                 []byte
	}{
		{http.MethodHead, "/manifests/v1", ocispec.MediaTypeImageManifest, p.manifest},
		{http.MethodGet, "/manifests/v1", ocispec.MediaTypeImageManifest, p.manifest},
		{http.MethodGet, "/blobs/" + digest.FromBytes(p.config).String(), "application/octet-stream", p.config},
		{http.MethodGet, "/blobs/" + digest.FromBytes(p.module).String(), "application/octet-stream", p.module},
	} {
		a := m.ask(c.method, repository+c.path)
		want := string(c.content)
		if c.method == http.MethodHead {
			want = ""
		}
		if a.status != http.StatusOK || a.broken != nil || string(a.body) != want {
			m.t.Errorf("%s %s: %d, %d bytes that should be %d, %v", c.method, c.path, a.status, len(a.body), len(want), a.broken)
		}
		for key, want := range map[string]string{
			"Content-Type":          c.mediaType,
			"Content-Length":        fmt.Sprint(len(c.content)),
			"Docker-Content-Digest": digest.FromBytes(c.content).String(),
		} {
			if got := a.header.Get(key); got != want {
				m.t.Errorf("%s %s: %s is %q, want %q", c.method, c.path, key, got, want)
			}
		}
	}
}

func TestW5KubewardenPullsAPolicyAndSeesNoChallenge(t *testing.T) {
	for name, c := range map[string]struct {
		auth upstreamtest.Auth
		// first is what the tag costs; blobs then go with the token it brought.
		first []string
	}{
		"of a registry that is open to all": {first: []string{"GET manifests policies/pods v1"}},
		"of a registry that wants a token": {
			auth:  upstreamtest.Auth{Scheme: "token"},
			first: []string{"GET manifests policies/pods v1", "GET token repository:policies/pods:pull", "GET manifests policies/pods v1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(c.auth))
			p := addPolicy(fake)
			m := newMirror(t, fake, setup{})
			m.pullPolicy(p)
			m.wantAsked(append(c.first,
				"GET blobs policies/pods "+upstreamtest.Short(digest.FromBytes(p.config).String()),
				"GET blobs policies/pods "+upstreamtest.Short(digest.FromBytes(p.module).String()))...)
			m.pullPolicy(p)
			m.wantAsked()
			fake.Stop()
			m.pullPolicy(p)
		})
	}
}

func TestW5KubewardenSeesNoChallengeInARefusal(t *testing.T) {
	for name, c := range map[string]struct {
		auth     upstreamtest.Auth
		tag, see string
	}{
		"of a policy that is not there":           {tag: "v2", see: "404 MANIFEST_UNKNOWN"},
		"of a registry that wants a password":     {auth: upstreamtest.Auth{Scheme: "basic", Username: "somebody", Password: "else"}, tag: "v1", see: "403 DENIED"},
		"of a registry that gives nobody a token": {auth: upstreamtest.Auth{Scheme: "token", Username: "somebody", Password: "else"}, tag: "v1", see: "403 DENIED"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(c.auth))
			addPolicy(fake)
			m := newMirror(t, fake, setup{})
			for _, method := range []string{http.MethodHead, http.MethodGet} {
				a := m.ask(method, "/v2/hub.test/policies/pods/manifests/"+c.tag)
				want := c.see
				if method == http.MethodHead {
					want = c.see[:3] + " "
				}
				if got := fmt.Sprintf("%d %s", a.status, a.code); got != want {
					t.Errorf("%s is answered with %q, want %q", method, got, want)
				}
			}
		})
	}
}
