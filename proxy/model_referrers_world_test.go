package proxy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// modelRepo is the repository of everything in the model.
const modelRepo = "app"

// modelWorld is everything that the registries of the model have and ever had.
type modelWorld struct {
	t      *testing.T
	random *rand.Rand
	net    upstreamtest.Network
	made   int // names what is made

	cosign, buildKit bool // are configured as sources

	mu        sync.Mutex // the registries answer while the world changes
	endpoints []*modelEndpoint
	subjects  []*modelSubject
	artifacts map[digest.Digest]*modelArtifact
	opened    map[digest.Digest]int // how often a registry has sent a manifest
	failedAt  time.Time             // when something was last at fault
	slowAt    time.Time             // when something last took its time
	goneAt    time.Time             // when a manifest was last deleted
}

// modelSubject is an image that artifacts are attached to.
type modelSubject struct {
	*modelArtifact
	tag string
	// index is a kept index in which BuildKit attaches attestation to the image.
	index, attestation *modelArtifact
	long               bool                   // it has more referrers than are read at once
	views              []modelView            // what was to be known of it, the newest last
	claimed            map[digest.Digest]bool // what any registry ever listed for it
}

func (s *modelSubject) fallbackTag() string { return referrers.TagOf(s.digest) }
func (s *modelSubject) cosignTag() string   { return s.fallbackTag() + ".sig" }

// modelArtifact is a manifest, with the descriptor that a list has to show.
type modelArtifact struct {
	name    string
	digest  digest.Digest
	subject digest.Digest // that it names; empty for none
	body    []byte
	typed   string // by registries that tell types
	derived ocispec.Descriptor
	// itself is derived too, but knows nothing of the way in which something
	// without a subject is attached.
	itself ocispec.Descriptor
	listed map[string]ocispec.Descriptor // as registries have listed it, by their ways to claim
}

func newModelWorld(t *testing.T, random *rand.Rand) *modelWorld {
	return &modelWorld{t: t, random: random, artifacts: map[digest.Digest]*modelArtifact{}, opened: map[digest.Digest]int{}}
}

// make makes a manifest that nobody has yet.
func (w *modelWorld) make(name string, m any, artifactType, mediaType string, annotations map[string]string, subject digest.Digest) *modelArtifact {
	body, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	by := digest.SHA256
	if subject != "" && w.random.IntN(12) == 0 {
		by = digest.SHA512
	}
	a := &modelArtifact{name: name, digest: by.FromBytes(body), subject: subject, body: body, typed: mediaType, listed: map[string]ocispec.Descriptor{}}
	a.derived = ocispec.Descriptor{MediaType: mediaType, Digest: a.digest, Size: int64(len(body)), ArtifactType: artifactType, Annotations: annotations}
	a.itself = a.derived
	w.artifacts[a.digest] = a
	return a
}

func (w *modelWorld) addSubject() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made++
	s := &modelSubject{tag: fmt.Sprint("v", w.made), claimed: map[digest.Digest]bool{}}
	config := w.blob(ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","made":%d}`, w.made))
	layer := w.blob(ocispec.MediaTypeImageLayer, fmt.Appendf(nil, "layer %d", w.made))
	image := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}}
	image.SchemaVersion = 2
	s.modelArtifact = w.make(s.tag, image, ocispec.MediaTypeImageConfig, image.MediaType, nil, "")
	for _, e := range w.endpoints {
		e.put(s.modelArtifact, s.tag)
	}
	if w.random.IntN(2) == 0 {
		w.attest(s)
	}
	w.subjects = append(w.subjects, s)
}

// attest makes an index in which BuildKit attaches an attestation to an image.
func (w *modelWorld) attest(s *modelSubject) {
	of := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: w.blob(ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"of":%q}`, s.tag)),
		Layers: []ocispec.Descriptor{w.blob("application/vnd.in-toto+json", fmt.Appendf(nil, "statement of %s", s.tag))},
	}
	of.SchemaVersion = 2
	subject := digest.Digest("")
	if w.random.IntN(2) == 0 { // BuildKit ≥ 0.32
		of.ArtifactType = referrers.AttestationType
		of.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: s.digest, Size: int64(len(s.body))}
		subject = s.digest
	}
	s.attestation = w.make("attestation of "+s.tag, of, referrers.AttestationType, of.MediaType, nil, subject)
	if subject == "" {
		s.attestation.itself.ArtifactType = of.Config.MediaType
	}
	entry := s.attestation.derived
	entry.ArtifactType = ""
	entry.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": s.digest.String()}
	platform := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: s.digest, Size: int64(len(s.body)), Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{platform, entry}}
	index.SchemaVersion = 2
	s.index = w.make("index of "+s.tag, index, "", index.MediaType, nil, "")
	for _, e := range w.endpoints {
		e.put(s.attestation)
		e.put(s.index, "all-"+s.tag)
	}
}

func (w *modelWorld) blob(mediaType string, body []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	for _, e := range w.endpoints {
		e.registry.AddBlob(modelRepo, body)
	}
	return d
}

// newArtifact makes something to attach to a subject, which may be nil.
func (w *modelWorld) newArtifact(subject *modelSubject) *modelArtifact {
	w.made++
	name := fmt.Sprint("a", w.made)
	kind := fmt.Sprintf("application/vnd.example.%d+json", w.made%3)
	annotations := map[string]string{"made": name}
	var of *ocispec.Descriptor
	digestOf := digest.Digest("")
	if subject != nil {
		of = &ocispec.Descriptor{MediaType: subject.derived.MediaType, Digest: subject.digest, Size: int64(len(subject.body))}
		digestOf = subject.digest
	}
	image := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: w.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")), ArtifactType: kind,
		Layers: []ocispec.Descriptor{w.blob("application/octet-stream", []byte(name))}, Subject: of, Annotations: annotations,
	}
	image.SchemaVersion = 2
	switch w.random.IntN(5) {
	case 0: // the type is that of the config
		image.ArtifactType, image.Config.MediaType = "", kind
	case 1: // OCI 1.0 has no media type inside
		image.MediaType = ""
	case 2:
		index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, ArtifactType: kind, Manifests: []ocispec.Descriptor{}, Subject: of, Annotations: annotations}
		index.SchemaVersion = 2
		return w.make(name, index, kind, index.MediaType, annotations, digestOf)
	case 3:
		if w.random.IntN(2) == 0 {
			old := map[string]any{"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": kind, "annotations": annotations, "blobs": image.Layers, "made": name}
			if of != nil {
				old["subject"] = of
			}
			return w.make(name, old, kind, "application/vnd.oci.artifact.manifest.v1+json", annotations, digestOf)
		}
	}
	return w.make(name, image, kind, ocispec.MediaTypeImageManifest, annotations, digestOf)
}

// signature is what cosign puts under a tag.
func (w *modelWorld) signature(s *modelSubject) *modelArtifact {
	w.made++
	name := fmt.Sprintf("sig%d of %s", w.made, s.tag)
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: w.blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"","os":""}`)),
		Layers: []ocispec.Descriptor{w.blob("application/vnd.dev.cosign.simplesigning.v1+json", []byte(name))},
	}
	m.SchemaVersion = 2
	a := w.make(name, m, "application/vnd.dev.cosign.artifact.sig.v1+json", m.MediaType, nil, "")
	a.itself.ArtifactType = m.Config.MediaType
	return a
}

// isLong says whether a subject has more referrers than are read at once.
func (w *modelWorld) isLong() bool {
	return slices.ContainsFunc(w.subjects, func(s *modelSubject) bool { return s.long })
}

// attachedTo are the artifacts that name a subject, whether or not anybody has
// them.
func (w *modelWorld) attachedTo(s *modelSubject) (all []*modelArtifact) {
	for _, a := range w.artifacts {
		if a.subject == s.digest {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *modelArtifact) int { return strings.Compare(string(a.digest), string(b.digest)) })
	return all
}

// held says whether a registry has a manifest.
func (w *modelWorld) held(d digest.Digest) bool {
	for _, e := range w.endpoints {
		if e.holds[d] {
			return true
		}
	}
	return false
}
