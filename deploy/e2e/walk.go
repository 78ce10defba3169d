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
	ask   int  // which of the behaviour's
	cut   bool // nothing that is kept
	err   error
}

// walk is one run of a client: all that it asks, in order.
func walk(ctx context.Context, lib library, at place, w *world, b behaviour) []step {
	k := &walker{w: w, differs: b.differs, patience: patience}
	if at.upstream != "" {
		k.mirrored = true
		k.patience *= 3 // What the mirror does beyond what it is asked takes time, on a busy machine more.
	}
	pullers := map[string]puller{}
	for i, a := range b.asked() {
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
		known := len(k.steps)
		k.ask(ctx, a)
		for n := range k.steps[known:] {
			k.steps[known+n].ask, k.steps[known+n].cut = i, a.cut
		}
	}
	return k.steps
}

// patience is how long one question may take a client: those that are told to
// come back in an hour come back until then.
const patience = 6 * time.Second

func (k *walker) ask(ctx context.Context, a ask) {
	wait := k.patience
	if a.brief {
		wait = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	k.ctx = ctx
	switch a.what {
	case "pull":
		k.pull(k.tag(a))
	case "head":
		k.head(k.tag(a))
	case "blobs":
		k.children(k.w.BodyOf(k.w.repo, k.w.child().Digest.String()), "the image")
	case "tags":
		list, err := k.p.Tags(ctx, a.n)
		what := "tags"
		if a.n > 0 {
			what += fmt.Sprint(" by ", a.n)
		}
		k.list(what, list, err)
	case "referrers":
		k.referrers(a, k.w.subject)
	case "referrers of the image":
		k.referrers(a, k.w.child())
	}
}

// tag is the one that is asked for: names that are made of digests are not
// known beforehand.
func (k *walker) tag(a ask) string {
	switch a.tag {
	case "":
		return k.w.tag
	case "signature":
		return "sha256-" + k.w.root.Digest.Encoded() + ".sig"
	case "attestation":
		return "sha256-" + k.w.root.Digest.Encoded() + ".att"
	}
	return a.tag
}

type walker struct {
	ctx      context.Context
	p        puller
	w        *world
	of       string // the repository, where it is not the usual one
	steps    []step
	mirrored bool
	differs  bool // lists of referrers may say other things of what they list
	patience time.Duration
	seen     map[digest.Digest]bool
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
	switch {
	case err == nil && !k.w.holds(k.repo(), d):
		err = fmt.Errorf("%w: %s", errOther, d)
	case d == k.w.root.Digest:
		value = right
	}
	k.note("HEAD of "+tag, value, err)
}

func (k *walker) repo() string {
	if k.of != "" {
		return k.of
	}
	return k.w.repo
}

// pull has a tag and all that hangs on it.
func (k *walker) pull(tag string) {
	got, err := k.p.Tagged(k.ctx, tag)
	value := digest.FromBytes(got.body).String()
	switch {
	case err == nil && k.mirrored && misnamed(got):
		err = fmt.Errorf("the type is %q, and the manifest says another", got.mediaType)
	case err == nil && bytes.Equal(got.body, k.w.BodyOf(k.repo(), tag)):
		value = right // Worlds have ports of their own, and their content may name them.
	case err == nil && !k.w.holds(k.repo(), digest.FromBytes(got.body)):
		err = fmt.Errorf("%w: %d of them, %.60q", errOther, len(got.body), got.body)
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

// misnamed says whether a manifest names another type than it came with. A
// registry may do that; a mirror, which has read it, may not (W46).
func misnamed(got manifestContent) bool {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	return json.Unmarshal(got.body, &m) == nil && m.MediaType != "" && m.MediaType != got.mediaType
}

// right is a value that is what the registry has now.
const right = "what the registry has"

// errOther means bytes that are not those of the digest, or of nothing that the
// registry has.
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
