package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// step is one thing that a client asked for, and what it got.
type step struct {
	what  string
	value string // a digest, or a sorted list with an entry a line
	list  bool
	err   error
}

// walk is one run of a client: all that it asks, in order.
func walk(ctx context.Context, lib library, at place, w *world, b behaviour) []step {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	k := &walker{ctx: ctx, w: w, differs: b.differs}
	asks := b.asks
	if len(asks) == 0 {
		asks = []ask{askPull}
	}
	pullers := map[string]puller{}
	for _, a := range asks {
		there := at
		if a.repo != "" {
			there.repository = a.repo
		}
		p, open := pullers[there.repository]
		if !open {
			var err error
			if p, err = lib.open(there); err != nil {
				return []step{{what: "open", err: err}}
			}
			defer p.Close()
			pullers[there.repository] = p
		}
		k.p, k.of, k.seen = p, a.repo, map[digest.Digest]bool{}
		tag := a.tag
		switch tag {
		case "":
			tag = w.tag
		case "signature":
			tag = "sha256-" + w.root.Digest.Encoded() + ".sig"
		case "attestation":
			tag = "sha256-" + w.root.Digest.Encoded() + ".att"
		}
		switch a.what {
		case "pull":
			k.pull(tag)
		case "head":
			k.head(tag)
		case "tags":
			list, err := p.Tags(ctx, a.n)
			k.list("tags", list, err)
		case "blobs":
			k.children(w.BodyOf(w.repo, w.child().Digest.String()), "the image")
		case "referrers":
			k.referrers(a, w.subject)
		case "referrers of the image":
			k.referrers(a, w.child())
		}
	}
	return k.steps
}

type walker struct {
	ctx     context.Context
	p       puller
	w       *world
	of      string // the repository, where it is not the usual one
	steps   []step
	differs bool // lists of referrers may say other things of what they list
	seen    map[digest.Digest]bool
}

func (k *walker) note(what, value string, err error) {
	if !errors.Is(err, errNoCall) {
		k.steps = append(k.steps, step{what: strings.TrimSpace(k.of + " " + what), value: value, err: err})
	}
}

func (k *walker) list(what string, list []string, err error) {
	if errors.Is(err, errNoCall) {
		return
	}
	slices.Sort(list)
	k.steps = append(k.steps, step{what: strings.TrimSpace(k.of + " " + what), list: true, value: strings.Join(slices.Compact(list), "\n"), err: err})
}

func (k *walker) referrers(a ask, subject ocispec.Descriptor) {
	found, err := k.p.Referrers(k.ctx, subject, a.artifactType)
	var list []string
	for _, d := range found {
		if !k.differs {
			list = append(list, d.Digest.String()+" "+d.ArtifactType)
		} else if k.w.SizeOf(k.w.repo, d.Digest.String()) > 0 {
			list = append(list, d.Digest.String())
		}
	}
	k.list(strings.TrimSpace(a.what+" "+a.artifactType), list, err)
}

func (k *walker) head(tag string) {
	d, err := k.p.Head(k.ctx, tag)
	value := d.String()
	if d == k.w.root.Digest {
		value = "what the registry has"
	}
	k.note("HEAD of "+tag, value, err)
}

// pull has a tag and all that hangs on it.
func (k *walker) pull(tag string) {
	got, err := k.p.Tagged(k.ctx, tag)
	value := digest.FromBytes(got.body).String()
	if bytes.Equal(got.body, k.w.BodyOf(k.w.repo, tag)) {
		value = "what the registry has" // Worlds have ports of their own, and their content may name them.
	}
	k.note("tag "+tag, value, err)
	k.head(tag)
	if err == nil {
		k.children(got.body, tag)
	}
}

func (k *walker) manifest(d ocispec.Descriptor, under string) {
	if k.seen[d.Digest] {
		return
	}
	k.seen[d.Digest] = true
	got, err := k.p.Manifest(k.ctx, d)
	if err == nil {
		err = matches(d, got.body)
	}
	name := strings.TrimSpace("manifest " + under)
	k.note(name, "", err)
	if err == nil {
		k.children(got.body, name)
	}
}

// children are what a manifest of any kind names, whatever type it came with.
func (k *walker) children(body []byte, under string) {
	var m struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Blobs     []ocispec.Descriptor `json:"blobs"`
		FSLayers  []struct {
			BlobSum digest.Digest `json:"blobSum"`
		} `json:"fsLayers"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		k.note("what "+under+" is", "", err)
		return
	}
	for i, d := range m.Manifests {
		k.manifest(d, fmt.Sprintf("%d of %s", i+1, under))
	}
	blobs := append(m.Layers, m.Blobs...)
	if m.Config != nil {
		blobs = append([]ocispec.Descriptor{*m.Config}, blobs...)
	}
	for _, l := range m.FSLayers {
		blobs = append(blobs, ocispec.Descriptor{Digest: l.BlobSum, Size: -1})
	}
	for i, d := range blobs {
		k.blob(d, fmt.Sprintf("blob %d of %s", i+1, under), i == 1)
	}
}

func (k *walker) blob(d ocispec.Descriptor, name string, head bool) {
	if k.seen[d.Digest] {
		return
	}
	k.seen[d.Digest] = true
	if head {
		k.note("HEAD of "+name, "", k.p.HeadBlob(k.ctx, d)) // Before the GET: it must not be needed for it.
	}
	body, err := k.p.Blob(k.ctx, d)
	if err == nil {
		err = matches(d, body)
	}
	k.note(name, "", err)
}

// errOther means bytes that are not those of the digest.
var errOther = errors.New("other bytes")

func matches(d ocispec.Descriptor, body []byte) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	if got := d.Digest.Algorithm().FromBytes(body); got != d.Digest {
		return fmt.Errorf("%w: %d of them, %s for %s", errOther, len(body), got, d.Digest)
	}
	return nil
}
