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
	// remembersNoAPI is how long a repository whose upstream seems to have no
	// Referrers API is not asked for it again: an upgraded registry shows what
	// it has within a minute. What it says of one repository says nothing of
	// another.
	remembersNoAPI = 30 * time.Second
	// maxNoAPI bounds how many repositories are remembered so.
	maxNoAPI = 16 << 10
)

// maxOpened is how many of the API's referrers are opened to derive their
// descriptors anew. Of a longer list the registry's own word is taken: opening
// thousands would cost the upstream more than a wrong annotation costs anyone.
const maxOpened = 512

// listedByAPI asks the upstream's Referrers API.
func (p *Puller) listedByAPI(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	if _, without := p.lookups.noAPI.Get(repo); without {
		return nil, nil
	}
	listed, err := u.Registry.Referrers(ctx, repo.Name, subject)
	if errors.Is(err, upstream.ErrNoAPI) {
		p.lookups.noAPI.Put(repo, struct{}{}, remembersNoAPI)
	}
	if errors.Is(err, upstream.ErrUnsupported) || errors.Is(err, upstream.ErrNotFound) {
		return nil, nil // the referrers tag has the word
	}
	if err != nil || len(listed) > maxOpened {
		return listed, err
	}
	return p.openReferrers(ctx, u, repo, listed, func(claim Descriptor, m Manifest, err error) (Descriptor, error) {
		var described referrers.Described
		if err == nil {
			described, err = referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject)
		}
		switch {
		case errors.Is(err, referrers.ErrNotReferrer) && described.Subject == nil:
			// Registries list accessories without a subject of their own
			// accord (Harbor does with cosign's tags): that is their word.
			return claim, nil
		case cannotTell(err) && referrers.Whole(claim):
			// The registry says that it refers: its own description stands in
			// for the manifest that can't be had now.
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
