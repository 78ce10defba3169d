package pull

import (
	"context"
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Adopt caches a manifest of a repository that came another way than from its
// upstream. The caller has proven that content has the digest, and has stored
// what it names.
func (p *Puller) Adopt(ctx context.Context, repo Repository, mediaType string, d Digest, content []byte) error {
	if _, err := p.upstreamFor(repo); err != nil {
		return err
	}
	if len(content) > maxManifest {
		return fmt.Errorf("manifest %s of %s: %w: over %d bytes", d, repo, errTooLarge, maxManifest)
	}
	m, err := p.storeManifest(ctx, repo, mediaType, referrers.Parse(content), d)
	switch {
	case err != nil:
		return err
	case m.uncacheable:
		return fmt.Errorf("manifest %s of %s: %w: it can be read in two ways", d, repo, upstream.ErrInvalidResponse)
	case !p.store.Has(ctx, d):
		return fmt.Errorf("manifest %s of %s: %w", d, repo, cache.ErrFull)
	}
	p.ledger.UseManifest(repo, d)
	return nil
}

// AdoptTag records what a tag points at, which is cached, and forgets that there
// was none.
func (p *Puller) AdoptTag(repo Repository, tag string, t metadata.Tag) {
	p.ledger.PutTag(repo, tag, t)
	p.negative.delete(manifestKey(repo, tag))
	p.negative.delete(tagListKey(repo))
}
