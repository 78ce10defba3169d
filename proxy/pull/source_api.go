package pull

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// noAPITTL is how long a repository whose upstream seems to have no
	// Referrers API is not asked for it again. It is short, so that an upgraded
	// registry is noticed within a minute. It is per repository, because one
	// repository says nothing about another.
	noAPITTL = 30 * time.Second
	// maxNoAPI bounds how many repositories are remembered as having no API.
	maxNoAPI = 16 << 10
)

// maxVerified is the length up to which the manifests of the API's list are
// read to derive their descriptors. Longer lists are taken as they are: reading
// thousands of manifests would cost the upstream more than a wrong annotation
// costs anyone.
const maxVerified = 512

// referrersFromAPI asks the upstream's Referrers API.
func (p *Puller) referrersFromAPI(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	if _, without := p.lookups.noAPI.Get(repo); without {
		return nil, nil
	}
	list, err := u.Registry.Referrers(ctx, repo.Name, subject)
	if errors.Is(err, upstream.ErrNoAPI) {
		p.lookups.noAPI.Put(repo, struct{}{}, noAPITTL)
	}
	if errors.Is(err, upstream.ErrUnsupported) || errors.Is(err, upstream.ErrNotFound) {
		return nil, nil // the referrers tag decides
	}
	if err != nil || len(list.Manifests) > maxVerified {
		return list.Manifests, err
	}
	return p.readReferrers(ctx, u, repo, list.Manifests, func(claim Descriptor, m Manifest, err error) (Descriptor, error) {
		var described referrers.Described
		if err == nil {
			described, err = referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject)
		}
		switch {
		case errors.Is(err, referrers.ErrNotReferrer) && described.Subject == nil:
			// Some registries list manifests without a subject on purpose
			// (Harbor does with cosign's tags). Take their word for it.
			return claim, nil
		case IsInconclusive(err) && referrers.Whole(claim):
			// The registry says that it is a referrer, and the manifest is not
			// available now. Use the registry's description of it.
			return claim, nil
		}
		return described.Descriptor, err
	})
}

func newNoAPI() *memory.Answers[Repository, struct{}] {
	repositories, err := memory.NewAnswers[Repository, struct{}](maxNoAPI)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return repositories
}
