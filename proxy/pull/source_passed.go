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
	for _, d := range p.meta.Seen(repo, subject) {
		if !known[d.Digest] {
			rest = append(rest, d)
		}
	}
	var there []Descriptor
	for _, d := range rest {
		if p.isGone(ctx, u, repo, d.Digest) {
			p.meta.DropSeen(repo, subject, d.Digest)
			continue
		}
		there = append(there, d)
	}
	return referrers.Merge(there)
}

// isGone says whether the upstream says that a manifest is not there. What is
// kept is not forgotten on the word of a HEAD, which has no body to tell a
// registry by (W44).
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
