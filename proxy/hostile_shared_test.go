package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// sharedRegistry is a registry that does what it should. To one of its
// repositories somebody pushes what the registry accepts, in order to read what
// another one has.
type sharedRegistry struct {
	*upstreamtest.Registry
	odd *odd

	own     []ocispec.Descriptor // blobs of the hostile repository
	secrets []secret             // the newest is the last
	refs    []string             // what was pushed lately, to ask for it
}

// The repositories of the shared registry.
const hostileRepository, privateRepository = "mine", "theirs"

// secret is what only the private repository has.
type secret struct {
	layer, manifest ocispec.Descriptor
	bytes, image    []byte
}

func newSharedRegistry(t *testing.T, network *upstreamtest.Network, auth upstreamtest.Auth, o *odd) *sharedRegistry {
	t.Helper()
	r := &sharedRegistry{Registry: upstreamtest.New(t, upstreamtest.WithNetwork(network), upstreamtest.WithReferrers(), upstreamtest.WithAuth(auth)), odd: o}
	for i := range 3 {
		r.own = append(r.own, r.AddBlob(hostileRepository, upstreamtest.Bytes(byte(100+i), 100*i)))
	}
	return r
}

// addSecret has the private repository push another image.
func (r *sharedRegistry) addSecret(step int) secret {
	layer := upstreamtest.Bytes(byte(200+step), 40<<10+step)
	manifest, m := r.AddImage(privateRepository, strconv.Itoa(step), layer)
	s := secret{layer: m.Layers[0], manifest: manifest, bytes: layer, image: r.BodyOf(privateRepository, manifest.Digest.String())}
	r.secrets = append(r.secrets, s)
	return s
}

// push has the hostile repository push a manifest that names a secret in one way
// or another, if the registry takes it.
func (r *sharedRegistry) push(step int) {
	for range 20 {
		mediaType, body := r.odd.naming(r.own, r.secrets[len(r.secrets)-1])
		if !r.accepts(mediaType, body) {
			continue
		}
		d := r.AddManifest(hostileRepository, mediaType, body, "t"+strconv.Itoa(step))
		r.refs = append(r.refs, "t"+strconv.Itoa(step), d.Digest.String())
		return
	}
}

// accepts says whether a registry takes a manifest: it decodes it as Go does, and
// looks whether the repository has what it names: the config and the layers of an
// image, unless they are elsewhere, and the manifests of an index.
func (r *sharedRegistry) accepts(mediaType string, body []byte) bool {
	var m struct {
		MediaType string
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
		FSLayers  []struct{ BlobSum digest.Digest }
	}
	if json.Unmarshal(body, &m) != nil || m.MediaType != "" && m.MediaType != mediaType {
		return false
	}
	has := func(d digest.Digest) bool { return r.Holds(hostileRepository, d) }
	switch {
	case strings.Contains(mediaType, "index"), strings.Contains(mediaType, "list"):
		for _, child := range m.Manifests {
			if isManifestType(child.MediaType) && !has(child.Digest) {
				return false
			}
		}
	case strings.Contains(mediaType, "v1+prettyjws"):
		for _, layer := range m.FSLayers {
			if !has(layer.BlobSum) {
				return false
			}
		}
	case isManifestType(mediaType):
		for _, layer := range m.Layers {
			if len(layer.URLs) == 0 && !has(layer.Digest) {
				return false
			}
		}
		return has(m.Config.Digest)
	}
	return true
}

func isManifestType(mediaType string) bool {
	return strings.Contains(mediaType, "image.manifest") || strings.Contains(mediaType, "image.index") || strings.Contains(mediaType, "distribution.manifest")
}

// naming is a manifest that names blobs of the repository where registries look,
// and a secret, for the most part elsewhere. o is held by the caller.
func (o *odd) naming(own []ocispec.Descriptor, s secret) (mediaType string, body []byte) {
	mediaType = oneOf(o, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
		"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.something+json")
	descriptor := func(d ocispec.Descriptor, more string) string {
		digests := []string{fmt.Sprintf("%q:%q", oneOf(o, "digest", "digest", "digest", "Digest", "blobSum"), d.Digest)}
		if o.IntN(6) == 0 { // and another one, before it or after it
			digests = append(digests, fmt.Sprintf("%q:%q", oneOf(o, "digest", "Digest", "DIGEST"), oneOf(o, own...).Digest))
			if o.IntN(2) == 0 {
				digests[0], digests[1] = digests[1], digests[0]
			}
		}
		return fmt.Sprintf(`{"mediaType":%q,%s,"size":%d%s}`, oneOf(o, ocispec.MediaTypeImageLayer, o.mediaType()), strings.Join(digests, ","), d.Size, more)
	}
	any := func() string {
		named := oneOf(o, oneOf(o, own...), oneOf(o, own...), s.layer, s.manifest)
		return descriptor(named, oneOf(o, "", "", "", `,"urls":["https://elsewhere.test/x"]`, `,"urls":[]`, `,"URLs":["https://elsewhere.test/x"]`, `,"Digest":"`+oneOf(o, own...).Digest.String()+`"`))
	}
	members := []string{fmt.Sprintf(`"schemaVersion":%d`, oneOf(o, 2, 2, 2, 1))}
	if o.IntN(2) == 0 {
		members = append(members, fmt.Sprintf(`"mediaType":%q`, mediaType))
	}
	for _, name := range []string{"config", "layers", "manifests", "blobs", "fsLayers", "subject"} {
		for range oneOf(o, 0, 1, 1, 1, 2) {
			value := any()
			if name != "config" && name != "subject" {
				value = "[" + strings.Join([]string{any(), any()}[:1+o.IntN(2)], ",") + "]"
			}
			written := oneOf(o, name, name, name, strings.ToUpper(name[:1])+name[1:], strings.ToUpper(name), strings.Replace(name, "s", "ſ", 1))
			members = append(members, fmt.Sprintf("%q:%s", written, value))
		}
	}
	o.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return mediaType, []byte("{" + strings.Join(members, ",") + "}")
}

// askShared has the hostile repository pull what it has pushed, and ask for the
// secret, which whoever may read it pulls meanwhile.
func (w *arbitraryWorld) askShared(step int, asked *sync.WaitGroup) {
	mine, theirs := "/v2/"+sharedName+"/"+hostileRepository, "/v2/"+sharedName+"/"+privateRepository
	w.mu.Lock()
	if step%5 == 0 {
		w.shared.addSecret(step)
	}
	w.shared.push(step)
	s := oneOf(w.odd, w.shared.secrets...)
	header := http.Header{}
	if w.odd.IntN(3) == 0 {
		header.Set("Range", oneOf(w.odd, "bytes=0-", "bytes=100-200", "bytes=-100", "bytes=0-99,200-299"))
	}
	owner := oneOf(w.odd, "", "/manifests/"+s.manifest.Digest.String(), "/blobs/"+s.layer.Digest.String(), "/blobs/"+s.layer.Digest.String())
	ref := ""
	if len(w.shared.refs) > 0 {
		ref = w.shared.refs[len(w.shared.refs)-1-w.odd.IntN(min(len(w.shared.refs), 4))]
	}
	thief := oneOf(w.odd, "/blobs/"+s.layer.Digest.String(), "/blobs/"+s.layer.Digest.String(), "/blobs/"+s.manifest.Digest.String(), "/manifests/"+s.manifest.Digest.String(), "/referrers/"+s.manifest.Digest.String())
	method := oneOf(w.odd, http.MethodGet, http.MethodGet, http.MethodGet, http.MethodHead)
	own, early := oneOf(w.odd, w.shared.own...), w.odd.IntN(3) == 0
	w.mu.Unlock()
	if owner != "" {
		asked.Go(func() { w.ask(http.MethodGet, theirs+owner, header) })
	}
	asked.Go(func() {
		if ref != "" && !early {
			w.ask(http.MethodGet, mine+"/manifests/"+ref, nil)
		}
		w.wantNothing(s, w.ask(method, mine+thief, header), method+" "+thief)
		if a := w.ask(http.MethodGet, mine+"/blobs/"+own.Digest.String(), nil); a.status != http.StatusOK {
			w.t.Errorf("step %d: what the repository has itself: %d, %.200q", step, a.status, a.body)
		}
	})
}

// wantNothing holds that an answer has nothing of a secret.
func (w *arbitraryWorld) wantNothing(s secret, a answered, asked string) {
	if strings.Contains(asked, "/referrers/") {
		return // that it has some is not said by what the repository itself has
	}
	if a.err == nil && a.status < http.StatusBadRequest {
		w.t.Errorf("%s: %d for what another repository has", asked, a.status)
	}
	for _, has := range [][]byte{s.bytes, s.image} {
		if len(a.body) > 50 && bytes.Contains(has, a.body) {
			w.t.Errorf("%s: %d bytes of what another repository has", asked, len(a.body))
		}
	}
}
