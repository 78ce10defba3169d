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

// errUnread says that a source lists what could not be read: what is known is
// known to be too short.
var errUnread = errors.New("a referrer that is listed cannot be read")

const (
	indexType      = ocispec.MediaTypeImageIndex
	indexAlgorithm = digest.Canonical
	// openedAtOnce is how many manifests one lookup opens side by side.
	openedAtOnce = 32
)

// listedByTag reads the referrers tag of subject (distribution-spec,
// "Referrers Tag Schema") and opens what it lists, whatever its descriptors
// claim.
func (p *Puller) listedByTag(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	var found []Descriptor
	var errs []error
	for _, tag := range referrers.TagForms(subject) {
		list, err := p.listedUnder(ctx, u, repo, subject, tag)
		found, errs = append(found, list...), append(errs, err)
	}
	return found, worst(errs)
}

func (p *Puller) listedUnder(ctx context.Context, u Upstream, repo Repository, subject Digest, tag string) ([]Descriptor, error) {
	index, err := p.currentTag(ctx, u, repo, subject, tag)
	if errors.Is(err, upstream.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	listed, err := referrers.Decode(index.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: tag %s: %w", upstream.ErrBadAnswer, tag, err)
	}
	return p.openReferrers(ctx, u, repo, listed, func(_ Descriptor, m Manifest, err error) (Descriptor, error) {
		if err != nil {
			return Descriptor{}, err
		}
		described, err := referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject)
		return described.Descriptor, err
	})
}

// currentTag returns what a tag that carries referrers of subject points at by
// the upstream's word, unless that was given a moment ago. Most are not there,
// and registries count the GETs of manifests, so they are probed with HEAD; but
// what was listed is not forgotten on a HEAD's word (W44).
func (p *Puller) currentTag(ctx context.Context, u Upstream, repo Repository, subject Digest, tag string) (Manifest, error) {
	if err := p.absent.err(manifestKey(repo, tag)); err != nil {
		return Manifest{}, err
	}
	return once(ctx, p, &p.checks, metadata.Key(repo, tag), func(ctx context.Context) (Manifest, error) {
		rec, _ := p.meta.Referrers(repo, subject)
		return p.checkTag(ctx, u, repo, tag, len(rec.Manifests) == 0)
	})
}

// openReferrers opens listed manifests side by side and returns what accept
// makes of those that do refer, with the worst of the errors that leave it
// unknown whether others do. A manifest that the upstream says is gone refers
// to nothing.
func (p *Puller) openReferrers(ctx context.Context, u Upstream, repo Repository, listed []Descriptor, accept func(claim Descriptor, m Manifest, err error) (Descriptor, error)) ([]Descriptor, error) {
	var (
		mu       sync.Mutex
		accepted []Descriptor
		errs     []error
		open     sync.WaitGroup
	)
	places := make(chan struct{}, openedAtOnce)
	for _, claim := range listed {
		places <- struct{}{}
		open.Go(func() {
			defer func() { <-places }()
			m, err := p.manifestByDigest(ctx, u, repo, claim.Digest)
			d, err := accept(claim, m, err)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				accepted = append(accepted, d)
			case errors.Is(err, upstream.ErrNotFound), errors.Is(err, referrers.ErrNotReferrer), errors.Is(err, referrers.ErrMalformed):
			case errors.Is(err, referrers.ErrUnproven):
				errs = append(errs, fmt.Errorf("%w: %w: %w", errUnread, upstream.ErrBadAnswer, err))
			default:
				errs = append(errs, fmt.Errorf("%w: referrer %s: %w", errUnread, claim.Digest, err))
			}
		})
	}
	open.Wait()
	return accepted, worst(errs)
}
