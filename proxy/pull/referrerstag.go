package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// referrersTag answers for the tag under which clients without the API look for
// the referrers of subject (W50). It is the list that the API is answered with,
// as an index (W57), whatever the upstream has: a tag there may be a leftover
// from before it had the API. Only what is somebody's own under that tag is
// served as it is.
//
// A pull matters more than an answer about referrers (decision 14a). So where
// nothing is known, the upstream's own "not found" is passed on.
func (p *Puller) referrersTag(ctx context.Context, u Upstream, repo Repository, tag string, subject Digest, wish []Freshness) (Manifest, error) {
	began := time.Now()
	own, gone := p.upstreamTag(ctx, u, repo, tag, wish)
	if ctx.Err() != nil {
		return Manifest{}, context.Cause(ctx)
	}
	if gone == nil || isNotFound(gone) {
		if m, ok := p.longTag(ctx, repo, subject, own.Descriptor.Digest, since(began, wish)); ok {
			return m, nil
		}
	}
	var listed []Descriptor
	if gone == nil {
		var err error
		doc := own.document()
		switch listed, _, err = referrers.ReadIndex(doc); {
		case errors.Is(err, referrers.ErrNoIndex), isArtifact(own.Descriptor.MediaType, doc):
			own.At = p.checkedAt(repo, tag, own)
			return own, nil
		case err != nil:
			gone = fmt.Errorf("%w: tag %s of %s: %w", upstream.ErrInvalidResponse, tag, repo, err)
		}
	}
	if !isNotFound(gone) && gone != nil && !IsInconclusive(gone) {
		return Manifest{}, gone
	}
	list, err := p.Referrers(ctx, repo, subject, since(began, wish)...)
	if err == nil && list.Manifests == nil && !list.List.IsZero() {
		list.Manifests, err = list.List.Descriptors()
	}
	switch {
	case gone != nil:
		return p.buildReferrersTag(ctx, repo, subject, list, err, gone)
	case errors.Is(err, upstream.ErrDenied):
		return Manifest{}, err
	case err != nil:
		return p.claimedTag(ctx, repo, subject, listed, err)
	case p.isImageIndex(repo, list.Manifests, listed):
		own.At = p.checkedAt(repo, tag, own)
		return own, nil // somebody's own
	case listsTheSame(list.Manifests, own.Bytes):
		own.Stale, own.At = list.Stale, list.At
		p.noteLongTag(repo, list, own.Descriptor.Digest, own)
		return own, nil
	}
	m, err := p.madeTag(ctx, repo, list)
	p.noteLongTag(repo, list, own.Descriptor.Digest, m)
	return m, err
}

// since is a wish from a while ago: what was asked since will do.
func since(began time.Time, wish []Freshness) (all []Freshness) {
	for _, w := range wish {
		w.maxAge += time.Since(began)
		all = append(all, w)
	}
	return all
}

func isNotFound(err error) bool { return errors.Is(err, upstream.ErrNotFound) }

// claimedTag is what an upstream lists under a tag, where nothing else is known.
func (p *Puller) claimedTag(ctx context.Context, repo Repository, subject Digest, listed []Descriptor, unknown error) (Manifest, error) {
	var claims []Descriptor
	for _, d := range referrers.Merge(listed) {
		if referrers.Whole(d) && d.Digest.Algorithm().Available() && d.Digest != subject {
			claims = append(claims, d)
		}
	}
	if len(listed) > 0 && len(claims) == 0 {
		return Manifest{}, unknown
	}
	m, err := p.madeTag(ctx, repo, Referrers{Manifests: claims, Stale: true, Outcome: Stale})
	m.Warnings = append(m.Warnings, `299 - "the Referrers API could not be asked: the referrers of this manifest are not known"`)
	return m, err
}

// isImageIndex says whether entries are those of somebody's own index: they are
// images of platforms, and none of them refers to anything or is a referrer.
func (p *Puller) isImageIndex(repo Repository, list, entries []Descriptor) bool {
	known := make(map[Digest]bool, len(list))
	for _, d := range list {
		known[d.Digest] = true
	}
	for _, e := range entries {
		rec, kept := p.ledger.Manifest(repo, e.Digest)
		if !kept || e.Platform == nil || rec.Subject != "" || known[e.Digest] {
			return false
		}
	}
	return len(entries) > 0
}

// listsTheSame says whether the entries of an index are those of the list, and
// describe them as it does, for clients that read them strictly.
func listsTheSame(list []Descriptor, content []byte) bool {
	var index ocispec.Index
	if json.Unmarshal(content, &index) != nil || len(index.Manifests) != len(list) {
		return false
	}
	entries := referrers.Merge(index.Manifests)
	for i, d := range list {
		e := entries[min(i, len(entries)-1)]
		if e.Digest != d.Digest || e.MediaType != d.MediaType || e.Size != d.Size || e.ArtifactType != d.ArtifactType || !maps.Equal(e.Annotations, d.Annotations) {
			return false
		}
	}
	return true
}

// buildReferrersTag answers for a referrers tag that the upstream does not have,
// or cannot be asked about. gone is its answer about the tag itself; list and
// err are what is known of the referrers.
func (p *Puller) buildReferrersTag(ctx context.Context, repo Repository, subject Digest, list Referrers, err, gone error) (Manifest, error) {
	switch {
	case errors.Is(err, upstream.ErrNotFound):
		return Manifest{}, gone
	case err != nil && isNotFound(gone):
		// The upstream says that the tag does not exist. A pull matters more
		// than an answer about referrers, so this is a 404 with a warning; the
		// Referrers API itself returns an error.
		return Manifest{}, &WarnedError{gone, "the Referrers API could not be asked: the referrers of this manifest are not known"}
	case errors.As(err, new(*upstream.RateLimitedError)):
		// The API is limited, and not the tag. A client that is told of a limit
		// asks this mirror for nothing any more, not even for images.
		return Manifest{}, gone
	case err != nil:
		return Manifest{}, err
	case len(list.Manifests) > 0:
		m, err := p.madeTag(ctx, repo, list)
		p.noteLongTag(repo, list, "", m)
		return m, err
	case list.Stale:
		// The last known list is empty. The Referrers API says the same.
		if !isNotFound(gone) {
			gone = fmt.Errorf("%w: %s had no referrers when the upstream could last be asked", upstream.ErrNotFound, subject)
		}
		return Manifest{}, &StaleError{gone}
	}
	if !isNotFound(gone) {
		gone = fmt.Errorf("%w: %s has no referrers", upstream.ErrNotFound, subject)
	}
	return Manifest{}, &DatedError{gone, list.At}
}

// madeTag is an index made of a list.
func (p *Puller) madeTag(ctx context.Context, repo Repository, list Referrers) (Manifest, error) {
	content, err := referrers.EncodeTag(list.Manifests, referrers.MaxPage)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", upstream.ErrInvalidResponse, err)
	}
	d := indexAlgorithm.FromBytes(content)
	m, kept := p.cachedManifest(ctx, repo, d)
	if !kept {
		m, err = p.storeManifest(ctx, repo, indexType, referrers.Parse(content), d)
	}
	m.Outcome, m.Stale, m.At = list.Outcome, list.Stale, list.At
	return m, err
}
