package pull

import (
	"context"
	"slices"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// lesson is something that pulling an image again may ask for, and that is not
// known here.
type lesson struct {
	kind lessonKind
	of   Descriptor
}

type lessonKind string

const (
	aManifest   lessonKind = "manifest"
	aBlob       lessonKind = "blob"
	ofReferrers lessonKind = "referrers of"
)

func (l lesson) String() string { return string(l.kind) + " " + l.of.Digest.String() }

// unlearnt is what there is to learn about manifests that are kept for a
// repository, in the order of its use: without the first ones a pull fails.
func (p *Puller) unlearnt(ctx context.Context, repo Repository, kept map[Digest]metadata.Manifest) []lesson {
	c := course{p: p, ctx: ctx, repo: repo, kept: kept, seen: make(map[Digest]bool)}
	for _, d := range sortedDigests(kept) {
		c.index(d)
	}
	for _, d := range sortedDigests(kept) {
		if !c.seen[d] && p.meta.IsAttestation(repo, d) {
			c.attestation(Descriptor{Digest: d})
		}
	}
	return slices.Concat(c.manifests, c.referrers)
}

// course gathers lessons about one repository.
type course struct {
	p         *Puller
	ctx       context.Context //nolint:containedctx // it lives as long as one call of unlearnt
	repo      Repository
	kept      map[Digest]metadata.Manifest
	seen      map[Digest]bool // subjects
	manifests []lesson        // and blobs
	referrers []lesson
}

// index gathers what an index of which a platform was pulled leads to.
func (c *course) index(d Digest) {
	entries := c.kept[d].Children
	attested := make(map[Digest][]Descriptor)
	isAttestation := make(map[Digest]bool)
	for _, a := range referrers.AttestationsAmong(entries) {
		attested[a.Subject] = append(attested[a.Subject], a.Entry)
		isAttestation[a.Entry.Digest] = true
	}
	pulled := false
	for _, child := range entries {
		rec, ok := c.kept[child.Digest]
		if !ok || isAttestation[child.Digest] || !isPlatform(rec) {
			continue // what is listed under a referrers tag is no image either
		}
		pulled = true
		for _, a := range attested[child.Digest] {
			c.attestation(a)
		}
		c.subject(child.Digest)
	}
	if pulled {
		c.subject(d)
	}
}

func (c *course) attestation(d Descriptor) {
	if c.seen[d.Digest] {
		return
	}
	c.content(d, maxAttestation)
	c.subject(d.Digest)
}

// subject gathers what refers to a manifest, and that it is not known what does.
func (c *course) subject(d Digest) {
	if c.seen[d] {
		return
	}
	c.seen[d] = true
	rec, ok := c.p.meta.Referrers(c.repo, d)
	if !ok {
		c.referrers = append(c.referrers, lesson{ofReferrers, Descriptor{Digest: d}})
		return
	}
	for _, r := range rec.Manifests[:min(maxLearnt, len(rec.Manifests))] {
		c.content(r, maxAttached)
	}
}

// content gathers a manifest, or those of its blobs that are small.
func (c *course) content(d Descriptor, most int64) {
	rec, ok := c.kept[d.Digest]
	if !ok {
		rec, ok = c.p.meta.Manifest(c.repo, d.Digest)
	}
	if !ok || !c.p.has(c.ctx, d.Digest) {
		c.manifests = append(c.manifests, lesson{aManifest, d})
		return
	}
	for _, b := range rec.Blobs {
		if b.Size >= 0 && b.Size <= most && len(b.URLs) == 0 && !c.p.has(c.ctx, b.Digest) {
			c.manifests = append(c.manifests, lesson{aBlob, b})
		}
	}
}

func sortedDigests(of map[Digest]metadata.Manifest) []Digest {
	all := make([]Digest, 0, len(of))
	for d := range of {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// imageConfigs are the types of what belongs to one platform of an image.
var imageConfigs = []string{
	"application/vnd.oci.image.config.v1+json",
	"application/vnd.docker.container.image.v1+json",
}

func isPlatform(m metadata.Manifest) bool {
	return len(m.Blobs) > 0 && slices.Contains(imageConfigs, m.Blobs[0].MediaType)
}

// hasMore says of a manifest that was just kept that there may be more to learn
// now: an index, a platform, an attestation.
func (p *Puller) hasMore(repo Repository, d Digest, rec metadata.Manifest) bool {
	return len(rec.Children) > 0 || isPlatform(rec) || p.meta.IsAttestation(repo, d)
}
