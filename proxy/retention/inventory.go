package retention

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// CachedImage is one image in the cache: a manifest with its children, its
// referrers and their blobs. Sizes are in bytes.
type CachedImage struct {
	Upstream   string   `json:"upstream"`
	Repository string   `json:"repository"`
	Tags       []string `json:"tags"`
	Digest     Digest   `json:"digest"`
	MediaType  string   `json:"mediaType"`
	Size       int64    `json:"size"`  // on disk, with unfinished downloads and what it shares with other images
	Alone      int64    `json:"alone"` // the part of it that no other image references
	Manifests  int      `json:"manifests"`
	Whole      bool     `json:"whole"` // nothing that is known to belong to it is missing
	// Unlearnt is what another pull of the cached platforms may request and is
	// not cached yet: "manifest", "blob" or "referrers of", and a digest.
	Unlearnt   []string  `json:"unlearnt"`
	Pinned     bool      `json:"pinned"`
	LastPulled time.Time `json:"lastPulled,omitzero"`
	// Fresh means that no tag needs a check. CheckedAt is when one was last
	// checked.
	Fresh     bool      `json:"fresh"`
	CheckedAt time.Time `json:"checkedAt,omitzero"`
	// GoneSince is when the upstream first said that one of the tags no longer
	// exists.
	GoneSince time.Time `json:"goneSince,omitzero"`
}

// CachedDraft is an unfinished download of a blob that was kept. Sizes are in
// bytes.
type CachedDraft struct {
	Digest Digest `json:"digest"`
	// Upstream and Repository are where the download was begun; they are
	// omitted if that is not known.
	Upstream   string    `json:"upstream,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Size       int64     `json:"size"`  // of the whole blob, or -1 if that is not known
	Bytes      int64     `json:"bytes"` // that are there
	KeptAt     time.Time `json:"keptAt"`
}

// Inventory is the content of the cache.
type Inventory struct {
	Images []CachedImage `json:"images"`
	Drafts []CachedDraft `json:"drafts"`
	// Referrers are the known referrers of manifests that are not in the cache.
	Referrers []KnownReferrers `json:"referrers"`
	Totals
}

// Totals are the sizes of what is in the cache, in bytes.
type Totals struct {
	// Bytes is the size of all content, with unfinished downloads. Strays is
	// the size of the part that belongs to no image.
	Bytes  int64 `json:"bytes"`
	Strays int64 `json:"strays"`
	// Records is the size of the records, and Aside that of files that were set
	// aside because they are damaged. They count against the bound too.
	Records int64 `json:"records"`
	Aside   int64 `json:"aside"`
	// MaxBytes is the bound, or 0 if there is none.
	MaxBytes int64 `json:"maxBytes"`
	// Full is the bound that was met last since the start, and FullAt when.
	Full   cache.Bound `json:"full,omitempty"`
	FullAt time.Time   `json:"fullAt,omitzero"`
}

// inventoryFlush bounds how long an inventory waits for the records.
const inventoryFlush = 5 * time.Second

// flush makes the records durable, so that what is listed as whole is so after a
// crash, too. Where they can't be written, a list says more than none.
func (r *Retention) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, inventoryFlush)
	defer cancel()
	if err := r.ledger.Flush(ctx); err != nil {
		r.log.Warn("the records are not durable yet", "error", err)
	}
}

// listDrafts describes the drafts, sorted by where they were begun.
func listDrafts(drafts map[Digest]draft) []CachedDraft {
	all := []CachedDraft{}
	for _, d := range drafts {
		all = append(all, CachedDraft{
			Digest: d.Digest, Upstream: d.repo.Upstream, Repository: d.repo.Name,
			Size: d.Size, Bytes: d.Bytes, KeptAt: d.KeptAt.UTC(),
		})
	}
	slices.SortFunc(all, func(a, b CachedDraft) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Repository, b.Repository), cmp.Compare(a.Digest, b.Digest))
	})
	return all
}

func (k CachedImage) name() string {
	return strings.Join([]string{k.Upstream, k.Repository, strings.Join(k.Tags, ","), k.Digest.String()}, "\x00")
}

func (r *Retention) describe(ctx context.Context, s *snapshot, of image) CachedImage {
	root := of.root
	k := CachedImage{
		Upstream: root.repo.Upstream, Repository: root.repo.Name, Tags: slices.Sorted(slices.Values(root.tags)),
		Digest: root.digest, MediaType: root.rec.MediaType, Pinned: root.pinned, Fresh: len(root.tags) > 0,
		Whole: r.IsComplete(ctx, Reference{Repository: root.repo, Ref: root.digest.String()}, false),
	}
	if of.use > 0 {
		k.LastPulled = time.Unix(0, of.use).UTC()
	}
	if k.Tags == nil {
		k.Tags = []string{}
	}
	for _, tag := range root.tags {
		rec, _ := r.ledger.Tag(root.repo, tag)
		k.Fresh = k.Fresh && r.fresh(root.repo, tag, rec)
		if k.GoneSince.IsZero() {
			k.GoneSince = rec.GoneTime()
		}
		if rec.CheckedAt.After(k.CheckedAt) {
			k.CheckedAt = rec.CheckedAt.UTC()
		}
	}
	seen := map[*node]bool{}
	root.collect(seen)
	needs := map[Digest]int{} // by manifests of this image
	cached := map[Digest]metadata.Manifest{}
	for n := range seen {
		k.Manifests++
		cached[n.digest] = n.rec
		for _, d := range append(slices.Clone(n.blobs), n.digest) {
			needs[d]++
		}
	}
	for d, by := range needs {
		size := s.sizes[d] + s.drafts[d].Weight
		k.Size += size
		if s.references.content[d] == by {
			k.Alone += size
		}
	}
	k.Unlearnt = []string{}
	for _, what := range r.FindMissing(ctx, root.repo, cached) {
		k.Unlearnt = append(k.Unlearnt, what.String())
	}
	k.Whole = k.Whole && len(k.Unlearnt) == 0
	return k
}
