package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// passedThrough are the manifests that passed through with a subject and that no
// other source lists. The upstream is asked whether it still has them.
type passedThrough struct {
	p      *Puller
	listed []referrers.Answer // of the other sources
}

func (s passedThrough) answer(ctx context.Context, q *question) referrers.Answer {
	known := make(map[Digest]bool)
	for _, a := range s.listed {
		for _, d := range a.List {
			known[d.Digest] = true
		}
	}
	read, now := opened{}, time.Now()
	for _, d := range s.p.ledger.Seen(q.repo, q.subject) {
		if known[d.Digest] || d.Digest == q.subject {
			continue
		}
		gone, err := isGone(ctx, q.upstream, q.repo, d.Digest)
		if gone {
			s.p.ledger.DropSeen(q.repo, q.subject, d.Digest)
			continue
		}
		if err != nil {
			read.fail(fmt.Errorf("%s was seen: %w", d.Digest, err))
		}
		read.list = append(read.list, d) // until it is known to be gone
	}
	a := read.answer(referrers.FromSeen, now)
	a.Refused = false // who may read the lists may read that these are not in them
	return a
}

// isGone says whether the upstream no longer has a manifest. A HEAD request
// alone is not enough: its answer has no body that shows whether it comes from
// a registry, and some registries refuse it (W44). So everything but a success
// is asked again with GET.
func isGone(ctx context.Context, u Upstream, repo Repository, d Digest) (bool, error) {
	_, err := u.Registry.Resolve(ctx, repo.Name, d.String())
	if err == nil || IsInconclusive(err) && !errors.Is(err, upstream.ErrInvalidResponse) {
		return false, err
	}
	content, err := u.Registry.Manifest(ctx, repo.Name, d.String())
	switch {
	case err == nil:
		content.Body.Close()
		return false, nil
	case errors.Is(err, upstream.ErrNotFound):
		return true, nil
	}
	return false, err
}
