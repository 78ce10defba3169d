package retention

import (
	"context"
	"hash/fnv"
	"slices"
	"sort"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// census is what is known of all that is cached by whoever looks at one repository
// after the other: eight bytes for each manifest and each blob, where a snapshot
// takes a hundred times as much. It is as old as itself, and holds nothing up.
type census struct {
	repositories []Repository // with manifests, in the order of the keys
	manifests    []uint64     // sums of their keys, sorted
	content      []uint64     // sums of digests, as often as they are referenced, sorted
	wide         []*referrers.NameSet
}

// sumOf makes a number of a digest or a key. That of two is the same once in
// billions of caches, and then the one is listed as if it were the other.
func sumOf[T string | Digest | []byte](of T) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(of)) // never fails
	return sum.Sum64()
}

func (r *Retention) census(ctx context.Context) (*census, error) {
	c := &census{}
	type wideManifest struct {
		mediaType string
		digest    Digest
	}
	var wide []wideManifest
	last := ""
	err := r.ledger.EachNaming(func(n metadata.Naming) {
		if n.Repository != last {
			last = n.Repository
			if repo, _, ok := metadata.SplitKey(last); ok {
				c.repositories = append(c.repositories, repo)
			}
		}
		c.manifests = append(c.manifests, sumOf(n.Repository+n.Digest.String()))
		c.content = append(c.content, sumOf(n.Digest))
		if mediaType, ok := n.Wide(); ok {
			wide = append(wide, wideManifest{mediaType, n.Digest})
			return
		}
		n.EachBlob(func(d []byte) { c.content = append(c.content, sumOf(d)) })
	})
	for _, w := range wide {
		if names, ok := r.store.Names(ctx, w.mediaType, w.digest); ok {
			c.wide = append(c.wide, names)
		}
	}
	slices.Sort(c.manifests)
	slices.Sort(c.content)
	return c, err
}

// references is how often cached manifests reference content, or are it.
func (c *census) references(d Digest) (n int) {
	sum := sumOf(d)
	from, found := slices.BinarySearch(c.content, sum)
	if found {
		n = sort.Search(len(c.content)-from, func(i int) bool { return c.content[from+i] > sum })
	}
	for _, names := range c.wide {
		if names.Has(d) {
			n++
		}
	}
	return n
}

// hasManifest says whether a manifest is cached for a repository.
func (c *census) hasManifest(repo Repository, d Digest) bool {
	_, found := slices.BinarySearch(c.manifests, sumOf(metadata.Key(repo, d.String())))
	return found
}
