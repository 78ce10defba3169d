package pull

import (
	"context"
	"errors"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// stillThere returns those of the manifests that passed through with subject
// which nobody else listed, without those that the upstream says are gone. It
// never fails: what can't be asked about is kept.
func (p *Puller) stillThere(ctx context.Context, u Upstream, repo Repository, subject Digest, listed []Descriptor) []Descriptor {
	known := make(map[Digest]bool, len(listed))
	for _, d := range listed {
		known[d.Digest] = true
	}
	var rest []Descriptor
	for _, d := range p.ledger.passed(repo, subject) {
		if !known[d.Digest] {
			rest = append(rest, d)
		}
	}
	var there []Descriptor
	for _, d := range rest {
		_, err := u.Registry.Resolve(ctx, repo.Name, d.Digest.String())
		if errors.Is(err, upstream.ErrNotFound) {
			p.ledger.dropPassed(repo, subject, d.Digest)
			continue
		}
		there = append(there, d)
	}
	return referrers.Merge(there)
}
