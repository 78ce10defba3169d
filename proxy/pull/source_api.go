package pull

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// remembersNoAPI is how long an upstream without the Referrers API is not
// asked for it again.
const remembersNoAPI = 10 * time.Minute

// maxOpened is how many of the API's referrers are opened to derive their
// descriptors anew. Of a longer list the registry's own word is taken: opening
// thousands would cost the upstream more than a wrong annotation costs anyone.
const maxOpened = 512

// listedByAPI asks the upstream's Referrers API.
func (p *Puller) listedByAPI(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	if p.noAPI.remembered(u.Name) {
		return nil, nil
	}
	listed, err := u.Registry.Referrers(ctx, repo.Name, subject)
	if errors.Is(err, upstream.ErrNoAPI) {
		p.noAPI.remember(u.Name)
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

// routes remembers which upstreams have no Referrers API. That is learnt, not
// configured, and forgotten when the upstream may have become another.
type routes struct {
	mu      sync.Mutex
	missing map[string]time.Time
}

func (r *routes) remembered(upstream string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.missing[upstream])
}

func (r *routes) remember(upstream string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing[upstream] = time.Now().Add(remembersNoAPI)
}

func (r *routes) forget(upstream string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.missing, upstream)
}
