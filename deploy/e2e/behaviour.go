package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// behaviour is one way in which a registry, or what stands around it, behaves.
// What comes through the mirror is compared with what comes straight.
type behaviour struct {
	name     string
	sentence string // what it does
	source   string // where it was reported or is laid down
	// like makes a registry that has its content behave so.
	like func(w *world)
	// later changes what it does before it is asked again, some time after.
	later func(w *world)
	// content is put into the registry in place of the usual image.
	content func(w *world)
	options []upstreamtest.Option
	// asks are what clients do; nothing means that they pull.
	asks []ask
	// login means that the registry wants to know somebody: the mirror's
	// configuration does, and those who go straight.
	login bool
	// below is a path of the registry that is part of the upstream's endpoint.
	below string
	// pause is how long clients wait before the second pull, where the
	// registry asks for patience. How often they try in the first is their own
	// affair: it may only not end in anything false.
	pause time.Duration
	// forgets is how long the mirror believes that something is absent, where
	// it is not the default.
	forgets time.Duration
	// absence says why the mirror may say that something is absent where the
	// registry did not.
	absence string
	// settings are more lines of each upstream's configuration.
	settings string
	// kept means that what is kept is served, though the registry does not
	// let anybody have it any more after later.
	kept bool
	// differs means that the mirror lists referrers better than the registry:
	// only the digests are compared, and of those what is there.
	differs bool
	// only are the libraries that it concerns; none means all of them.
	only []string
	// passed says why nothing of it is kept, where that is so.
	passed string
	// before says why it came through the program that this table was first
	// held against; empty: it did not.
	before string
}

// world is one registry that behaves so, for one client, that goes straight or
// through the mirror.
type world struct {
	*upstreamtest.Registry
	t       *testing.T
	address string
	others  []*upstreamtest.Registry
	seed    byte // of its bytes: clients share none, straight and through share all
	repo    string
	tag     string
	root    ocispec.Descriptor // what the tag names
	subject ocispec.Descriptor // whose referrers are asked for
}

// somebody is whom registries know that want to know somebody.
const (
	somebody      = "somebody"
	somebodysWord = "pass:word/&? ü"
)

func newWorld(t *testing.T, b behaviour, seed byte, address string) *world {
	t.Helper()
	w := &world{t: t, seed: seed, repo: "team/app", tag: "1", address: address}
	if b.below != "" {
		w.repo = b.below + "/" + w.repo
	}
	w.Registry = upstreamtest.New(t, append([]upstreamtest.Option{upstreamtest.WithAddress(address)}, b.options...)...)
	if b.content != nil {
		b.content(w)
	} else {
		w.usual()
	}
	if b.like != nil {
		b.like(w)
	}
	return w
}

// usual is an index of one image with two layers.
func (w *world) usual() {
	image, _ := w.AddImage(w.repo, fmt.Sprint("amd64.", w.seed), w.layer(1, 40<<10), w.layer(2, 300<<10))
	image.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	w.root = w.AddIndex(w.repo, w.tag, image)
	w.subject = w.root
}

func (w *world) layer(n byte, size int) []byte {
	return upstreamtest.Bytes(w.seed*16+n, size)
}

// holds says whether any registry of this world has content of that digest.
func (w *world) holds(repo string, d digest.Digest) bool {
	for _, r := range append(w.others, w.Registry) {
		if r.Holds(repo, d) {
			return true
		}
	}
	return false
}

// another is one more registry of this world.
func (w *world) another(opts ...upstreamtest.Option) *upstreamtest.Registry {
	w.t.Helper()
	r := upstreamtest.New(w.t, append([]upstreamtest.Option{upstreamtest.WithName("localhost")}, opts...)...)
	w.others = append(w.others, r)
	return r
}

// unplug takes all of it off the network.
func (w *world) unplug() {
	w.Stop()
	for _, other := range w.others {
		other.Stop()
	}
}

func (w *world) referrers(n int) []ocispec.Descriptor {
	var all []ocispec.Descriptor
	for i := range n {
		kind := []string{"application/vnd.example.signature", "application/spdx+json"}[i%2]
		d := w.AddReferrer(w.repo, w.subject, kind, w.layer(byte(8+i%8), 100+i))
		d.ArtifactType = kind
		all = append(all, d)
	}
	return all
}

// asked is what clients ask, in order.
func (b behaviour) asked() []ask {
	if len(b.asks) == 0 {
		return []ask{askPull}
	}
	return b.asks
}

// ask is one thing that clients do.
type ask struct {
	what         string // pull, head, blobs, tags, referrers, referrers of the image
	repo         string // empty: the world's
	tag          string // empty: the world's
	artifactType string // of referrers; empty: all
	n            int    // tags on a page, where the library can say it
	cut          bool   // nothing of it is kept: a page of a list, a HEAD without its manifest
	brief        bool   // nobody waits long for it: it is not what the behaviour is about
}

var (
	askPull      = ask{what: "pull"}
	askTags      = ask{what: "tags"}
	askReferrers = ask{what: "referrers"}
	askPages     = ask{what: "tags", cut: true}
)
