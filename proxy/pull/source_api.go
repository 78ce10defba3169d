package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// noAPITTL is how long an endpoint that seems to have no Referrers API is
	// not asked for it again about a repository. It is short, so that an
	// upgraded registry is noticed within a minute. It is per repository,
	// because one repository says nothing about another.
	noAPITTL = 30 * time.Second
	// maxNoAPI bounds how many repositories are remembered as having no API.
	maxNoAPI = 16 << 10
)

// apiSource is the Referrers API of one endpoint.
type apiSource struct {
	p        *Puller
	endpoint upstream.Endpoint
	index    int // of the endpoint
}

// withoutAPI is a repository for which an endpoint has no API.
type withoutAPI struct {
	repo     Repository
	endpoint int
}

func (s apiSource) answer(ctx context.Context, q *question) referrers.Answer {
	without := withoutAPI{q.repo, s.index}
	if said, known := s.p.lookups.noAPI.Get(without); known && !said.Before(q.oldest) {
		return referrers.Answer{Of: referrers.FromAPI, State: referrers.NoSource, At: said}
	}
	list, err := s.endpoint.Referrers(s.p.withMaxAge(ctx, q.renew), q.repo.Name, q.subject)
	switch {
	case errors.Is(err, upstream.ErrUnsupported):
		now := time.Now()
		if errors.Is(err, upstream.ErrNoAPI) {
			s.p.lookups.noAPI.Put(without, now, noAPITTL)
		}
		return referrers.Answer{Of: referrers.FromAPI, State: referrers.NoSource, At: now}
	case errors.Is(err, upstream.ErrNotFound):
		return referrers.Answer{Of: referrers.FromAPI, State: referrers.None, At: time.Now()} // of a repository that is not there
	case err != nil && len(list.Manifests) == 0:
		s.p.lookups.noAPI.Delete(without) // the registry may have been replaced when it comes back
		return cannotTell(referrers.FromAPI, err)
	}
	read := s.p.open(ctx, q, list.Manifests, func(m Manifest) (Descriptor, error) {
		return referrers.DescribeListed(true, m.Descriptor.MediaType, m.document(), m.Descriptor.Digest, q.subject)
	})
	read.claimed = true
	if list.Unusable > 0 {
		read.missing(fmt.Errorf("%w: %d entries of the list", upstream.ErrInvalidResponse, list.Unusable))
	}
	a := read.answer(referrers.FromAPI, list.At)
	if err != nil {
		a.State, a.Err, a.Refused = referrers.CannotTell, err, false
	}
	a.Warned = list.Stale
	return a
}

func newNoAPI() *memory.Answers[withoutAPI, time.Time] {
	repositories, err := memory.NewAnswers[withoutAPI, time.Time](maxNoAPI)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return repositories
}
