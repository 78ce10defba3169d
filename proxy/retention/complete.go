package retention

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
)

// IsComplete says whether an image is cached with all its platforms, all their
// blobs, which may be served for its repository, and all known referrers. With needReferrers set, the referrers must be
// known. It makes no requests.
func (r *Retention) IsComplete(ctx context.Context, of Reference, needReferrers bool) bool {
	d, err := digest.Parse(of.Ref)
	if err != nil {
		rec, ok := r.ledger.Tag(of.Repository, of.Ref)
		if !ok {
			return false
		}
		d = rec.Descriptor.Digest
	}
	seen := map[Digest]bool{d: true}
	for queue := []Digest{d}; len(queue) > 0; queue = queue[1:] {
		rec, ok := r.ledger.Manifest(of.Repository, queue[0])
		if !ok || !r.store.Has(ctx, queue[0]) {
			return false
		}
		for _, b := range rec.Blobs {
			if len(b.URLs) == 0 && (!r.store.Has(ctx, b.Digest) || !r.ledger.Holds(of.Repository, b.Digest)) {
				return false
			}
		}
		refer, known := r.ledger.Referrers(of.Repository, queue[0])
		if needReferrers && !known {
			return false
		}
		for _, d := range slices.Concat(rec.Children, refer.Manifests) {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				queue = append(queue, d.Digest)
			}
		}
	}
	return true
}
