package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// errUnreadable means that a source lists a manifest that could not be read:
// the known list is certainly incomplete.
var errUnreadable = errors.New("a listed referrer cannot be read")

const (
	indexType      = ocispec.MediaTypeImageIndex
	indexAlgorithm = digest.Canonical
	// parallelReads is how many manifests one lookup reads in parallel.
	parallelReads = 32
)

// referrersFromTag reads the referrers tag of subject (distribution-spec,
// "Referrers Tag Schema") and the manifests that it lists. Their descriptors in
// the list are not trusted.
func (p *Puller) referrersFromTag(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	var found []Descriptor
	var errs []error
	for _, tag := range referrers.TagForms(subject) {
		list, err := p.referrersUnderTag(ctx, u, repo, subject, tag)
		found, errs = append(found, list...), append(errs, err)
	}
	return found, decisiveError(errs)
}

func (p *Puller) referrersUnderTag(ctx context.Context, u Upstream, repo Repository, subject Digest, tag string) ([]Descriptor, error) {
	index, err := p.checkReferrersTag(ctx, u, repo, subject, tag)
	if errors.Is(err, upstream.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	listed, err := referrers.Decode(index.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: tag %s: %w", upstream.ErrInvalidResponse, tag, err)
	}
	return p.readReferrers(ctx, u, repo, listed, func(_ Descriptor, m Manifest, err error) (Descriptor, error) {
		if err != nil {
			return Descriptor{}, err
		}
		described, err := referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject)
		return described.Descriptor, err
	})
}

// checkReferrersTag returns what a tag that carries referrers of subject points
// at, as the upstream says, unless the upstream said a moment ago that it does
// not exist. Most of these tags do not exist, and registries count GET requests
// for manifests, so the tag is probed with HEAD. If referrers are on record, a
// HEAD request alone does not discard them (W44).
func (p *Puller) checkReferrersTag(ctx context.Context, u Upstream, repo Repository, subject Digest, tag string) (Manifest, error) {
	if err := p.negative.get(manifestKey(repo, tag)); err != nil {
		return Manifest{}, err
	}
	return shareRequest(ctx, p, p.requests.checks, metadata.Key(repo, tag), func(ctx context.Context) (Manifest, error) {
		rec, _ := p.ledger.Referrers(repo, subject)
		return p.checkTag(ctx, u, repo, tag, len(rec.Manifests) == 0, renewal{})
	})
}

// readReferrers reads listed manifests in parallel, and returns what accept
// makes of those that are referrers. The error is the decisive one of those
// that leave it unknown whether a manifest is a referrer. A manifest that the
// upstream does not have is not a referrer.
func (p *Puller) readReferrers(ctx context.Context, u Upstream, repo Repository, listed []Descriptor, accept func(claim Descriptor, m Manifest, err error) (Descriptor, error)) ([]Descriptor, error) {
	var (
		mu       sync.Mutex
		accepted []Descriptor
		errs     []error
		reads    sync.WaitGroup
	)
	slots := make(chan struct{}, parallelReads)
	for _, claim := range listed {
		slots <- struct{}{}
		reads.Go(func() {
			defer func() { <-slots }()
			m, err := p.manifestByDigest(ctx, u, repo, claim.Digest)
			d, err := accept(claim, m, err)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				accepted = append(accepted, d)
			case errors.Is(err, upstream.ErrNotFound), errors.Is(err, referrers.ErrNotReferrer), errors.Is(err, referrers.ErrMalformed):
			case errors.Is(err, referrers.ErrUnverified):
				errs = append(errs, fmt.Errorf("%w: %w: %w", errUnreadable, upstream.ErrInvalidResponse, err))
			default:
				errs = append(errs, fmt.Errorf("%w: referrer %s: %w", errUnreadable, claim.Digest, err))
			}
		})
	}
	reads.Wait()
	return accepted, decisiveError(errs)
}
