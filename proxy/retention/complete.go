package retention

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
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
	w := walk{r: r, repo: of.Repository, seen: map[Digest]bool{}}
	for w.add(d); len(w.queue) > 0; w.queue = w.queue[1:] {
		d := w.queue[0]
		rec, ok := r.ledger.Manifest(of.Repository, d)
		if !ok || !r.store.Has(ctx, d) || !w.hasAllOf(ctx, rec, d) {
			return false
		}
		refer, known := r.ledger.Referrers(of.Repository, d)
		if needReferrers && !known {
			return false
		}
		for _, d := range refer.Manifests {
			w.add(d.Digest)
		}
	}
	return true
}

// walk goes through the manifests of an image.
type walk struct {
	r     *Retention
	repo  Repository
	seen  map[Digest]bool
	queue []Digest
}

func (w *walk) add(d Digest) {
	if !w.seen[d] {
		w.seen[d] = true
		w.queue = append(w.queue, d)
	}
}

// hasAllOf says whether all blobs that a manifest names are cached and may be
// served for the repository. It adds the manifests that it lists.
func (w *walk) hasAllOf(ctx context.Context, rec metadata.Manifest, d Digest) bool {
	if !rec.Wide {
		for _, child := range rec.Children {
			w.add(child.Digest)
		}
		return !slices.ContainsFunc(rec.Blobs, func(b Descriptor) bool {
			return len(b.URLs) == 0 && (!w.r.store.Has(ctx, b.Digest) || !w.r.ledger.Holds(w.repo, b.Digest))
		})
	}
	whole, holds := true, w.r.holdsOf(w.repo, rec)
	ok := w.r.store.EachName(ctx, rec.MediaType, d, func(named Descriptor, isManifest bool) bool {
		if isManifest {
			w.add(named.Digest)
		} else if len(named.URLs) == 0 {
			whole = w.r.store.Has(ctx, named.Digest) && holds(named.Digest)
		}
		return whole
	})
	return ok && whole
}

// holdsOf returns what says whether a blob that a wide manifest names may be
// served for the repository. That it names it is not on record.
func (r *Retention) holdsOf(repo Repository, rec metadata.Manifest) func(Digest) bool {
	holds := r.ledger.Holds
	if referrers.NamesVerifiedBlobs(rec.MediaType) {
		holds = r.ledger.HoldsNamed
	}
	return func(d Digest) bool { return holds(repo, d) }
}
