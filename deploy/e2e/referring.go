package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// said is what a registry says where it is asked for referrers, by the API or by
// the fallback tag.
type said struct {
	name string
	what verdict
	// fault answers in its place; nil where it says what it has.
	fault func(page string) fake.Fault
}

// verdict is what is known of referrers, from an answer or to a client.
type verdict int

const (
	untold   verdict = iota // to a client: it fails
	toldNone                // there are none, or not by this way
	toldSome
)

// answered is the same answer, wherever the page is.
func answered(f fake.Fault) func(string) fake.Fault { return func(string) fake.Fault { return f } }

// hang is how long a registry hangs that does, before a gateway gives up on it.
const (
	hang  = 20 * time.Second
	hangs = "hangs for 20 s"

	listsNone = "lists none"
)

var apiSays = []said{
	{name: "lists", what: toldSome},
	{name: "lists, `Warning: 299`", what: toldSome, fault: answered(fake.WithHeader("Warning", `299 - "this registry moves next month"`))},
	{name: listsNone, what: toldNone, fault: answered(fake.Said(200, ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))},
	{name: "404 as text", what: toldNone, fault: answered(fake.Said(404, "text/plain; charset=utf-8", "404 page not found\n"))},
	{name: "404 with a code", what: toldNone, fault: answered(fake.Status(404, "MANIFEST_UNKNOWN"))},
	{name: "404 without a body", what: toldNone, fault: answered(fake.Empty(404))},
	{name: "400", what: toldNone, fault: answered(fake.Status(400, "MANIFEST_INVALID"))},
	{name: "401", fault: answered(fake.Status(401, "UNAUTHORIZED"))},
	{name: "403", fault: answered(fake.Status(403, "DENIED"))},
	{name: "405", what: toldNone, fault: answered(fake.Status(405, "UNSUPPORTED"))},
	{name: "429", fault: answered(fake.RateLimited(5))},
	{name: "502", fault: answered(fake.Said(502, "text/plain; charset=utf-8", "bad gateway\n"))},
	{name: "504", fault: answered(fake.Said(504, "text/plain; charset=utf-8", "gateway time-out\n"))},
	{name: hangs, fault: answered(fake.Combine(fake.LateMillis(int(hang.Milliseconds())), fake.Said(502, "text/plain; charset=utf-8", "bad gateway\n")))},
	{name: "a page", fault: answered(fake.Page(200))},
	{name: "a redirect to a page", what: toldNone, fault: func(page string) fake.Fault { return fake.Redirect(page) }},
}

var tagSays = []said{
	{name: "lists", what: toldSome},
	{name: "404", what: toldNone},
	{name: "429", fault: answered(fake.RateLimited(5))},
	{name: "502", fault: answered(fake.Said(502, "text/plain; charset=utf-8", "bad gateway\n"))},
	{name: "a page", fault: answered(fake.Page(200))},
}

// truth is what can be known of an upstream's referrers. What the API lists and
// what the tag lists counts each, and that there are none only where both say
// so: there are registries that gained the API and do not list in it what their
// tags list (W56).
func truth(api, tag said) verdict {
	switch {
	case api.what == toldSome || tag.what == toldSome:
		return toldSome
	case api.what == toldNone && tag.what == toldNone:
		return toldNone
	}
	return untold
}

// referring is a registry with an image for one platform, BuildKit's
// attestation of it, and a signature of the whole and of the attestation.
type referring struct {
	*fake.Registry
	attestation ocispec.Descriptor
	// signatures are by what they are of.
	signatures map[digest.Digest]ocispec.Descriptor
	subjects   []ocispec.Descriptor
}

const (
	referringRepo = "team/app"
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// newReferring makes one whose content nobody else has. It answers questions
// about referrers as api and tag say.
func newReferring(t *testing.T, key *referringKey, number int, page string, api, tag said) *referring {
	t.Helper()
	r := &referring{Registry: fake.New(t, fake.WithReferrers()), signatures: map[digest.Digest]ocispec.Descriptor{}}
	image := r.addImage(number)
	r.attestation = r.addAttestation(image, number)
	entry := r.attestation
	entry.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
	root := r.AddIndex(referringRepo, "1", image, entry)
	r.subjects = []ocispec.Descriptor{root, r.attestation}
	for _, subject := range r.subjects {
		signature := r.addSignature(t, key, subject)
		r.signatures[subject.Digest] = signature
		fallback := strings.Replace(subject.Digest.String(), ":", "-", 1)
		if tag.what == toldSome {
			r.AddFallbackTag(referringRepo, subject.Digest, signature)
		}
		if tag.fault != nil {
			r.Always(fallback, tag.fault(page))
		}
	}
	if api.fault != nil {
		r.Always("referrers", api.fault(page))
	}
	return r
}

// addImage is an image that can be unpacked.
func (r *referring) addImage(number int) ocispec.Descriptor {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := fmt.Sprintf("This is the image %d.\n", number)
	_ = w.WriteHeader(&tar.Header{Name: "note", Mode: 0o644, Size: int64(len(text)), ModTime: built})
	_, _ = w.Write([]byte(text))
	_ = w.Close() // Nothing fails in memory.
	layer := r.AddBlob(referringRepo, b.Bytes())
	layer.MediaType = ocispec.MediaTypeImageLayer
	platform := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	config := r.AddBlob(referringRepo, inJSON(ocispec.Image{
		Platform: platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	}))
	config.MediaType = ocispec.MediaTypeImageConfig
	d := r.addManifest(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
	d.Platform = &platform
	return d
}

// addAttestation attests of an image as BuildKit does from 0.32 on.
func (r *referring) addAttestation(image ocispec.Descriptor, number int) ocispec.Descriptor {
	provenance := r.AddBlob(referringRepo, fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1","predicate":{"number":%d}}`, number))
	provenance.MediaType = "application/vnd.in-toto+json"
	provenance.Annotations = map[string]string{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
	image.Platform = nil
	return r.addManifest(ocispec.Manifest{ArtifactType: attestationType, Config: r.empty(), Layers: []ocispec.Descriptor{provenance}, Subject: &image})
}

// addSignature signs something as cosign 3 does with a key and without a
// transparency log.
func (r *referring) addSignature(t *testing.T, key *referringKey, subject ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	bundle := r.AddBlob(referringRepo, key.bundle(t, subject.Digest))
	bundle.MediaType = bundleType
	annotations := map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": cosignStatement,
	}
	d := r.addManifest(ocispec.Manifest{
		ArtifactType: bundleType, Config: r.empty(), Layers: []ocispec.Descriptor{bundle},
		Subject:     &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: annotations,
	})
	d.ArtifactType, d.Annotations = bundleType, annotations
	return d
}

func (r *referring) empty() ocispec.Descriptor {
	d := r.AddBlob(referringRepo, []byte("{}"))
	d.MediaType = ocispec.MediaTypeEmptyJSON
	return d
}

func (r *referring) addManifest(m ocispec.Manifest) ocispec.Descriptor {
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	return r.AddManifest(referringRepo, m.MediaType, inJSON(m))
}

// questions counts what it was asked about referrers since the last call, by the
// API and by the fallback tag.
func (r *referring) questions() int {
	n := 0
	for _, line := range r.Transcript() {
		if about := strings.Fields(line); len(about) > 3 && (about[1] == "referrers" || r.isFallback(about[3])) {
			n++
		}
	}
	return n
}

func (r *referring) isFallback(ref string) bool {
	for _, subject := range r.subjects {
		if ref == strings.Replace(subject.Digest.String(), ":", "-", 1) {
			return true
		}
	}
	return false
}

// referringKey is one that nothing but its public half vouches for.
type referringKey struct{ key *ecdsa.PrivateKey }

const cosignStatement = "https://sigstore.dev/cosign/sign/v1"

func newReferringKey(t *testing.T) *referringKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &referringKey{key}
}

// public is the key that others verify with, in PEM.
func (s *referringKey) public(t *testing.T) []byte {
	t.Helper()
	written, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: written})
}

// bundle is a Sigstore bundle with a signed statement about a digest. What is
// signed is the envelope's type and content, each behind its length (DSSE, v1).
func (s *referringKey) bundle(t *testing.T, subject digest.Digest) []byte {
	t.Helper()
	const payloadType = "application/vnd.in-toto+json"
	payload := inJSON(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"digest": map[string]string{"sha256": subject.Encoded()}}},
		"predicateType": cosignStatement,
		"predicate":     struct{}{},
	})
	hash := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	signature, err := ecdsa.SignASN1(rand.Reader, s.key, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	return inJSON(map[string]any{
		"mediaType":            bundleType,
		"verificationMaterial": map[string]any{"publicKey": struct{}{}},
		"dsseEnvelope": map[string]any{
			"payload": payload, "payloadType": payloadType,
			"signatures": []any{map[string]any{"sig": signature}},
		},
	})
}

// inJSON writes what is known to have a form in JSON.
func inJSON(v any) []byte {
	written, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return written
}
