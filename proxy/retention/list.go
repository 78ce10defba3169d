package retention

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Item is a part of the content of the cache: what is set of it.
type Item struct {
	Image     *CachedImage    `json:"image,omitempty"`
	Draft     *CachedDraft    `json:"draft,omitempty"`
	Referrers *KnownReferrers `json:"referrers,omitempty"`
	// Totals come last.
	Totals *Totals `json:"totals,omitempty"`
}

// List calls each for every image in the cache, sorted by name, then for the
// unfinished downloads, the known referrers of manifests that are not in the cache,
// and the totals. It returns the first error of each.
//
// It goes from repository to repository, needs the memory of the largest, and
// holds nothing up, neither eviction nor the storing of images. So an image is
// listed as it is in that moment. One that is evicted then may be listed as not
// whole.
func (r *Retention) List(ctx context.Context, each func(Item) error) error {
	r.flush(ctx)
	c, err := r.census(ctx)
	if err != nil {
		return err
	}
	drafts := draftsIn(r.store)
	for _, repo := range c.repositories {
		images, err := r.imagesOf(ctx, repo, c, drafts)
		if err != nil {
			return err
		}
		for i := range images {
			if err := each(Item{Image: &images[i]}); err != nil {
				return err
			}
		}
	}
	for _, d := range listDrafts(drafts) {
		if err := each(Item{Draft: &d}); err != nil {
			return err
		}
	}
	subjects, err := listSubjects(r.ledger, Repository{}, c.hasManifest)
	if err != nil {
		return err
	}
	for _, k := range subjects {
		if err := each(Item{Referrers: &k}); err != nil {
			return err
		}
	}
	totals, err := r.totals(ctx)
	if err != nil {
		return err
	}
	return each(Item{Totals: &totals})
}

// imagesOf describes the images of a repository, sorted by name.
func (r *Retention) imagesOf(ctx context.Context, repo Repository, c *census, drafts map[Digest]draft) ([]CachedImage, error) {
	s, err := r.part(ctx, repo, drafts)
	if err != nil {
		return nil, err
	}
	for d, own := range s.references.content {
		s.references.content[d] = max(own, c.references(d)) // more if it has come since
	}
	var all []CachedImage
	for _, image := range s.images() {
		k := r.describe(ctx, s, image)
		if r.ledger.HasManifest(repo, image.root.digest) { // else it is gone meanwhile
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b CachedImage) int { return strings.Compare(a.name(), b.name()) })
	return all, ctx.Err()
}

// totals counts what is on disk. What has come since the images were listed is in
// it.
func (r *Retention) totals(ctx context.Context) (Totals, error) {
	c, err := r.census(ctx)
	if err != nil {
		return Totals{}, err
	}
	met := r.store.LastMet()
	all := Totals{
		MaxBytes: r.store.MaxBytes(), Records: r.store.RecordBytes(), Aside: r.store.AsideBytes(), Full: met.Bound, FullAt: met.At.UTC(),
	}
	if met.At.IsZero() {
		all.FullAt = time.Time{}
	}
	for d, draft := range draftsIn(r.store) {
		all.Bytes += draft.Weight
		if c.references(d) == 0 {
			all.Strays += draft.Weight
		}
	}
	err = r.store.Walk(ctx, func(d Digest, size int64) bool {
		all.Bytes += r.store.Weight(size)
		if c.references(d) == 0 {
			all.Strays += size
		}
		return true
	})
	return all, err
}

// Inventory is List in one.
func (r *Retention) Inventory(ctx context.Context) (Inventory, error) {
	return Collect(func(each func(Item) error) error { return r.List(ctx, each) })
}

// Collect makes an Inventory of what a list calls its argument with.
func Collect(list func(each func(Item) error) error) (Inventory, error) {
	all := Inventory{Images: []CachedImage{}, Drafts: []CachedDraft{}, Referrers: []KnownReferrers{}}
	err := list(func(item Item) error {
		switch {
		case item.Image != nil:
			all.Images = append(all.Images, *item.Image)
		case item.Draft != nil:
			all.Drafts = append(all.Drafts, *item.Draft)
		case item.Referrers != nil:
			all.Referrers = append(all.Referrers, *item.Referrers)
		case item.Totals != nil:
			all.Totals = *item.Totals
		}
		return nil
	})
	if err != nil {
		return Inventory{}, err
	}
	return all, nil
}

// Each calls each with everything, in the order of a list.
func (i Inventory) Each(each func(Item) error) error {
	for _, k := range i.Images {
		if err := each(Item{Image: &k}); err != nil {
			return err
		}
	}
	for _, d := range i.Drafts {
		if err := each(Item{Draft: &d}); err != nil {
			return err
		}
	}
	for _, k := range i.Referrers {
		if err := each(Item{Referrers: &k}); err != nil {
			return err
		}
	}
	return each(Item{Totals: &i.Totals})
}
