package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// member says whether a blob is known to belong to a repository. What a wide
// manifest names is not on record, but in its content: a blob of it is put on
// record when it is asked for.
func (p *Puller) member(ctx context.Context, repo Repository, d Digest) (metadata.Member, bool) {
	member, known := p.ledger.Member(repo, d)
	if known {
		return member, true
	}
	for _, wide := range p.ledger.WideManifests(repo) {
		if !referrers.NamesVerifiedBlobs(wide.MediaType) {
			continue
		}
		names, ok := p.store.Names(ctx, wide.MediaType, wide.Digest)
		if !ok {
			continue
		}
		if size, ok := names.Member(d); ok {
			p.ledger.PutNamed(repo, d, size)
			return metadata.Member{Size: size, Named: true}, true
		}
	}
	return metadata.Member{}, false
}
