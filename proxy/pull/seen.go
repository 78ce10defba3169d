package pull

import (
	"context"
	"errors"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// confirmSeen returns the manifests that were seen with that subject and that
// no source listed, without those that the upstream says are gone. It never
// fails: manifests that cannot be checked are included.
func (p *Puller) confirmSeen(ctx context.Context, u Upstream, repo Repository, subject Digest, listed []Descriptor) []Descriptor {
	known := make(map[Digest]bool, len(listed))
	for _, d := range listed {
		known[d.Digest] = true
	}
	var rest []Descriptor
	for _, d := range p.ledger.Seen(repo, subject) {
		if !known[d.Digest] {
			rest = append(rest, d)
		}
	}
	var confirmed []Descriptor
	for _, d := range rest {
		if p.isGone(ctx, u, repo, d.Digest) {
			p.ledger.DropSeen(repo, subject, d.Digest)
			continue
		}
		confirmed = append(confirmed, d)
	}
	return referrers.Merge(confirmed)
}

// isGone says whether the upstream no longer has a manifest. A HEAD request
// alone is not enough: its answer has no body that shows whether it comes from
// a registry (W44).
func (p *Puller) isGone(ctx context.Context, u Upstream, repo Repository, d Digest) bool {
	if _, err := u.Registry.Resolve(ctx, repo.Name, d.String()); !errors.Is(err, upstream.ErrNotFound) {
		return false
	}
	content, err := u.Registry.Manifest(ctx, repo.Name, d.String())
	if err == nil {
		content.Body.Close()
	}
	return errors.Is(err, upstream.ErrNotFound)
}
