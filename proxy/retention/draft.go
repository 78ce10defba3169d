package retention

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/store"
)

// draft is an unfinished download that was kept.
type draft struct {
	cache.KeptDraft
	repo Repository // where it was begun; zero if the note does not say
}

// draftsIn returns the drafts that are kept now.
func draftsIn(from *store.Store) map[Digest]draft {
	all := make(map[Digest]draft)
	for _, kept := range from.AllKept() {
		all[kept.Digest] = draft{kept, repositoryIn(kept.Note)}
	}
	return all
}

// repositoryIn reads the repository from the note of a draft. A note that cannot
// be read belongs to a draft that is of no use, but takes room all the same.
func repositoryIn(note []byte) (repo Repository) {
	var origin struct {
		Upstream   string `json:"upstream"`
		Repository string `json:"repository"`
	}
	if json.Unmarshal(note, &origin) == nil {
		repo = Repository{Upstream: origin.Upstream, Name: origin.Repository}
	}
	return repo
}

// lastUse is when the draft was kept, in Unix nanoseconds: whoever reads from it
// resumes it, and it is kept anew.
func (d draft) lastUse() int64 { return metadata.PastUse(d.KeptAt.UnixNano()) }

// unpinnedDrafts returns the drafts of what no pinned image needs, least recently
// used first.
func (s *snapshot) unpinnedDrafts() []draft {
	if len(s.drafts) == 0 {
		return nil
	}
	pinned := s.pinnedContent()
	var all []draft
	for _, d := range s.drafts {
		if pinned[d.Digest] == nil {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b draft) int {
		return cmp.Or(cmp.Compare(a.lastUse(), b.lastUse()), cmp.Compare(a.Digest, b.Digest))
	})
	return all
}

// evictDraft removes a draft, unless it was resumed or kept anew after the
// snapshot was taken.
func (r *Retention) evictDraft(ctx context.Context, d draft) (freed int64) {
	return r.dropDraft(ctx, d.Digest, d.KeptAt)
}

// dropDraft removes the draft of d that was kept at that time, and with it the
// record of its use.
func (r *Retention) dropDraft(ctx context.Context, d Digest, keptAt time.Time) (freed int64) {
	if freed = r.store.DropKept(ctx, d, keptAt); freed > 0 {
		r.ledger.DropBlobUse(d)
	}
	return freed
}
