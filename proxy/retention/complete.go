package retention

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/metadata"
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
		if rec.Wide && !r.hasAllOf(ctx, &rec, queue[0]) {
			return false
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

// hasAllOf says whether all blobs of a wide manifest are cached, and completes
// the children in its record.
func (r *Retention) hasAllOf(ctx context.Context, rec *metadata.Manifest, d Digest) bool {
	children, blobs, ok := r.store.AllNames(ctx, rec.MediaType, d)
	rec.Children = children
	return ok && !slices.ContainsFunc(blobs, func(b Descriptor) bool { return len(b.URLs) == 0 && !r.store.Has(ctx, b.Digest) })
}
