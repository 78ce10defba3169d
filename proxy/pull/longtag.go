package pull

import (
	"context"
	"time"
)

// longTag is a long list under a tag, where the upstream has something.
type longTag struct {
	repo      Repository
	list, own Digest // empty if the upstream has nothing
}

// longTagTTL is how long it is remembered what a long list is served as. It
// follows from the list and from what the upstream has, but for what is known of
// the manifests.
const longTagTTL = 5 * time.Minute

// longTag answers for a tag with a long list that has been answered with before:
// to compare it with what the upstream has takes as long as to read both.
func (p *Puller) longTag(ctx context.Context, repo Repository, subject, own Digest, wish []Freshness) (Manifest, bool) {
	rec, ok := p.ledger.Listed(repo, subject)
	if !ok || rec.Digest == "" {
		return Manifest{}, false
	}
	as, known := p.lookups.tags.Get(longTag{repo, rec.Digest, own})
	if !known {
		return Manifest{}, false
	}
	list, err := p.Referrers(ctx, repo, subject, wish...)
	if err != nil || list.of != rec.Digest {
		return Manifest{}, false
	}
	m, kept := p.cachedManifest(ctx, repo, as)
	m.Outcome, m.Stale, m.At = list.Outcome, list.Stale, list.At
	return m, kept
}

// noteLongTag notes what a long list is served as.
func (p *Puller) noteLongTag(repo Repository, list Referrers, own Digest, as Manifest) {
	if list.of != "" && as.Descriptor.Digest != "" {
		p.lookups.tags.Put(longTag{repo, list.of, own}, as.Descriptor.Digest, longTagTTL)
	}
}
