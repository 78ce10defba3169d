package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/metadata"
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
		names, ok := p.store.Names(ctx, wide.MediaType, wide.Digest)
		if !ok {
			continue
		}
		if size, ok := names.Member(d); ok {
			member = metadata.Member{Size: size}
			p.ledger.PutMember(repo, d, member)
			return member, true
		}
	}
	return metadata.Member{}, false
}
