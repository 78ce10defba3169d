package retention

import (
	"context"
	"slices"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// Missing is something that another pull of an image may request and that is
// not cached.
type Missing struct {
	Kind MissingKind
	// Of is the manifest, the blob, or the subject whose referrers are not
	// known.
	Of Descriptor
}

// MissingKind is the kind of something that is missing.
type MissingKind string

// The kinds of Missing.
const (
	MissingManifest  MissingKind = "manifest"
	MissingBlob      MissingKind = "blob"
	MissingReferrers MissingKind = "referrers of"
)

func (m Missing) String() string { return string(m.Kind) + " " + m.Of.Digest.String() }

const (
	// maxAttestation and maxAttached are the sizes in bytes up to which blobs
	// count as missing: those of attestations, including SBOMs, and those of
	// other referrers.
	maxAttestation = 16 << 20
	maxAttached    = 1 << 20
	// maxReferrers is how many referrers of one manifest count as missing.
	maxReferrers = 64
)

// FindMissing returns what is missing of manifests that are cached for a
// repository. The most important parts come first: without them, a pull fails.
func (r *Retention) FindMissing(ctx context.Context, repo Repository, cached map[Digest]metadata.Manifest) []Missing {
	c := collector{r: r, ctx: ctx, repo: repo, cached: cached, seen: make(map[Digest]bool)}
	for _, d := range sortedDigests(cached) {
		c.index(d)
	}
	for _, d := range sortedDigests(cached) {
		if !c.seen[d] && r.ledger.IsAttestation(repo, d) {
			c.attestation(Descriptor{Digest: d})
		}
	}
	for _, d := range sortedDigests(cached) {
		c.questions(cached[d], d)
	}
	return slices.Concat(c.manifests, c.referrers)
}

// collector collects what is missing in one repository.
type collector struct {
	r         *Retention
	ctx       context.Context //nolint:containedctx // it lives as long as one call of Missing
	repo      Repository
	cached    map[Digest]metadata.Manifest
	seen      map[Digest]bool // subjects
	manifests []Missing       // and blobs
	referrers []Missing
}

// index collects what an index leads to if one of its platforms was pulled. Of
// one that lists more than any image has platforms, it takes the first.
func (c *collector) index(d Digest) {
	entries := c.cached[d].Children
	attested := make(map[Digest][]Descriptor)
	isAttestation := make(map[Digest]bool)
	for _, a := range referrers.AttestationsAmong(entries) {
		attested[a.Subject] = append(attested[a.Subject], a.Entry)
		isAttestation[a.Entry.Digest] = true
	}
	pulled := false
	for _, child := range entries {
		rec, ok := c.cached[child.Digest]
		if !ok || isAttestation[child.Digest] || !IsPlatform(rec) {
			continue // the entries of a referrers tag are not platforms either
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

func (c *collector) attestation(d Descriptor) {
	if c.seen[d.Digest] {
		return
	}
	c.content(d, maxAttestation)
	c.subject(d.Digest)
}

// subject collects the referrers of a manifest, or the fact that they are not
// known.
func (c *collector) subject(d Digest) {
	if c.seen[d] {
		return
	}
	c.seen[d] = true
	rec, ok := c.r.ledger.Referrers(c.repo, d)
	if !ok {
		c.referrers = append(c.referrers, Missing{MissingReferrers, Descriptor{Digest: d}})
		return
	}
	for _, r := range rec.Manifests[:min(maxReferrers, len(rec.Manifests))] {
		c.content(r, maxAttached)
	}
}

// content collects a manifest, or those of its blobs that are small.
func (c *collector) content(d Descriptor, most int64) {
	rec, ok := c.cached[d.Digest]
	if !ok {
		rec, ok = c.r.ledger.Manifest(c.repo, d.Digest)
	}
	if !ok || !c.r.store.Has(c.ctx, d.Digest) {
		c.manifests = append(c.manifests, Missing{MissingManifest, d})
		return
	}
	for _, b := range rec.Blobs {
		if b.Size >= 0 && b.Size <= most && len(b.URLs) == 0 && !c.r.store.Has(c.ctx, b.Digest) {
			c.manifests = append(c.manifests, Missing{MissingBlob, b})
		}
	}
}

// questions collects the blobs of a manifest that are cached, and that are not
// served for the repository before its upstream has said that it has them.
func (c *collector) questions(m metadata.Manifest, d Digest) {
	if m.Wide {
		c.wideQuestions(m, d)
		return
	}
	if c.r.ledger.HoldsAll(c.repo, m) {
		return
	}
	for _, b := range m.Blobs {
		if len(b.URLs) == 0 && !c.r.ledger.Holds(c.repo, b.Digest) && c.r.store.Has(c.ctx, b.Digest) {
			c.manifests = append(c.manifests, Missing{MissingBlob, b})
		}
	}
}

// maxQuestions is how many blobs of one wide manifest count as missing at once.
// When the upstream has answered, the next are.
const maxQuestions = 1000

// wideQuestions is questions for a manifest whose record does not have all that
// it names.
func (c *collector) wideQuestions(m metadata.Manifest, d Digest) {
	most, holds := len(c.manifests)+maxQuestions, c.r.holdsOf(c.repo, m)
	c.r.store.EachName(c.ctx, m.MediaType, d, func(b Descriptor, isManifest bool) bool {
		if !isManifest && len(b.URLs) == 0 && c.r.store.Has(c.ctx, b.Digest) && !holds(b.Digest) {
			c.manifests = append(c.manifests, Missing{MissingBlob, b})
		}
		return len(c.manifests) < most && c.ctx.Err() == nil
	})
}

func sortedDigests(of map[Digest]metadata.Manifest) []Digest {
	all := make([]Digest, 0, len(of))
	for d := range of {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// imageConfigs are the media types of the configs of images.
var imageConfigs = []string{
	"application/vnd.oci.image.config.v1+json",
	"application/vnd.docker.container.image.v1+json",
}

// IsPlatform says whether a manifest is one platform of an image.
func IsPlatform(m metadata.Manifest) bool {
	return len(m.Blobs) > 0 && slices.Contains(imageConfigs, m.Blobs[0].MediaType)
}
