package e2e

import (
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
func walk(ctx context.Context, lib library, at place, w *world, asks []ask) []step {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	p, err := lib.open(at)
	if err != nil {
		return []step{{what: "open", err: err}}
	}
	defer p.Close()
	k := &walker{ctx: ctx, p: p, w: w, seen: map[digest.Digest]bool{}}
	if len(asks) == 0 {
		asks = []ask{askPull}
	}
	for _, a := range asks {
		tag := a.tag
		if tag == "" {
			tag = w.tag
		}
		switch a.what {
		case "pull":
			k.pull(tag)
		case "head":
			k.head(tag)
		case "digest":
			k.manifest(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: a.digest}, "")
		case "tags":
			list, err := p.Tags(ctx)
			k.list("tags", list, err)
		case "referrers":
			found, err := p.Referrers(ctx, w.subject, a.artifactType)
			var list []string
			for _, d := range found {
				list = append(list, d.Digest.String()+" "+d.ArtifactType)
			}
			k.list(strings.TrimSpace("referrers "+a.artifactType), list, err)
		}
	}
	return k.steps
}

type walker struct {
	ctx   context.Context
	p     puller
	w     *world
	steps []step
	seen  map[digest.Digest]bool
}

func (k *walker) note(what, value string, err error) {
	if !errors.Is(err, errNoCall) {
		k.steps = append(k.steps, step{what: what, value: value, err: err})
	}
}

func (k *walker) list(what string, list []string, err error) {
	if errors.Is(err, errNoCall) {
		return
	}
	slices.Sort(list)
	k.steps = append(k.steps, step{what: what, list: true, value: strings.Join(slices.Compact(list), "\n"), err: err})
}

func (k *walker) head(tag string) {
	d, err := k.p.Head(k.ctx, tag)
	k.note("HEAD of "+tag, d.String(), err)
}

// pull has a tag and all that hangs on it.
func (k *walker) pull(tag string) {
	got, err := k.p.Tagged(k.ctx, tag)
	k.note("tag "+tag, digest.FromBytes(got.body).String(), err)
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
	k.note(name, d.Digest.String(), err)
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
		k.note("HEAD of "+name, "", k.p.HeadBlob(k.ctx, d))
	}
	body, err := k.p.Blob(k.ctx, d)
	if err == nil {
		err = matches(d, body)
	}
	k.note(name, d.Digest.String(), err)
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
