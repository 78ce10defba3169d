package retention

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// Kept is one image that is kept: a manifest with everything that it needs and
// that hangs on it. Sizes are in bytes.
type CachedImage struct {
	Upstream   string   `json:"upstream"`
	Repository string   `json:"repository"`
	Tags       []string `json:"tags"`
	Digest     Digest   `json:"digest"`
	MediaType  string   `json:"mediaType"`
	Size       int64    `json:"size"`  // on disk, with what it shares with others
	Alone      int64    `json:"alone"` // of that, what nothing else needs
	Manifests  int      `json:"manifests"`
	Whole      bool     `json:"whole"` // nothing that is known to belong to it is missing
	// Unlearnt is what pulling the platforms that are kept again may ask for, and
	// is not known here yet: "manifest", "blob" or "referrers of", and a digest.
	Unlearnt   []string  `json:"unlearnt"`
	Pinned     bool      `json:"pinned"`
	LastPulled time.Time `json:"lastPulled,omitzero"`
	// Fresh says that the upstream need not be asked about any of the tags;
	// CheckedAt is when it was asked last.
	Fresh     bool      `json:"fresh"`
	CheckedAt time.Time `json:"checkedAt,omitzero"`
	// GoneSince is when the upstream first said that one of the tags is gone.
	GoneSince time.Time `json:"goneSince,omitzero"`
}

// Inventory is everything that is kept.
type Inventory struct {
	Images []CachedImage `json:"images"`
	// Bytes are all that is kept; Strays of these is what belongs to no image.
	Bytes  int64 `json:"bytes"`
	Strays int64 `json:"strays"`
	// MaxBytes is the bound, 0 where there is none.
	MaxBytes int64 `json:"maxBytes"`
}

// Inventory lists what is kept, in the order of names.
func (r *Retention) Inventory(ctx context.Context) (Inventory, error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return Inventory{}, err
	}
	defer s.watch.End()
	list := Inventory{Bytes: s.total, MaxBytes: r.store.MaxBytes(), Images: []CachedImage{}}
	for _, blob := range s.unreferencedBlobs() {
		list.Strays += s.sizes[blob.digest]
	}
	for _, image := range s.images() {
		list.Images = append(list.Images, r.describe(ctx, s, image))
	}
	slices.SortFunc(list.Images, func(a, b CachedImage) int {
		return strings.Compare(a.name(), b.name())
	})
	return list, nil
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
	kept := map[Digest]metadata.Manifest{}
	for n := range seen {
		k.Manifests++
		kept[n.digest] = n.rec
		for _, d := range append(digestsOf(n.rec.Blobs), n.digest) {
			needs[d]++
		}
	}
	for d, by := range needs {
		k.Size += s.sizes[d]
		if s.references.content[d] == by {
			k.Alone += s.sizes[d]
		}
	}
	k.Unlearnt = []string{}
	for _, what := range r.FindMissing(ctx, root.repo, kept) {
		k.Unlearnt = append(k.Unlearnt, what.String())
	}
	k.Whole = k.Whole && len(k.Unlearnt) == 0
	return k
}
