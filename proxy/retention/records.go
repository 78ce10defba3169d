package retention

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
)

const (
	// answersAtOnce is how many recorded answers are evicted in one step, because
	// each step waits for the disk.
	answersAtOnce = 256
	// sweepShare is the share of the bound, an eighth, from which on records are
	// evicted, and searched for what nothing needs; sweepInterval is how often,
	// because that reads most of them.
	sweepShare    = 8
	sweepInterval = 10 * time.Minute
)

// recordCandidates are what may be evicted beside content: files that were set
// aside, the recorded answers about manifests that are not in the cache, and
// records of what is not there any more.
func (r *Retention) recordCandidates(s *snapshot) (all []candidate) {
	for _, file := range r.store.Aside() {
		all = append(all, candidate{use: file.At.UnixNano(), remove: func(context.Context) (int64, error) { return r.store.DropAside(file), nil }})
	}
	most := r.store.MaxBytes()
	if most <= 0 || r.store.RecordBytes() <= most/sweepShare {
		return all // what is known of images is dearer than most content
	}
	subjects, err := s.listSubjects(Repository{})
	if err != nil {
		r.log.Error("the recorded answers cannot be read", "error", err)
	}
	slices.SortStableFunc(subjects, func(a, b KnownReferrers) int { return cmp.Compare(a.lastUse(), b.lastUse()) })
	for group := range slices.Chunk(subjects, answersAtOnce) {
		all = append(all, candidate{use: group[0].lastUse(), remove: func(ctx context.Context) (int64, error) { return r.evictAnswers(ctx, s, group) }})
	}
	if time.Since(r.swept) > sweepInterval {
		r.swept = time.Now()
		all = append(all, candidate{remove: func(ctx context.Context) (int64, error) { return r.sweepRecords(ctx, s) }})
	}
	return all
}

// lastUse is when the answer was recorded, in Unix nanoseconds: if it is asked
// for later, the upstream is asked too, and it is recorded anew.
func (k KnownReferrers) lastUse() int64 {
	if k.KnownAt.IsZero() {
		return 0
	}
	return k.KnownAt.UnixNano()
}

// evictAnswers removes recorded answers about manifests that are not in the
// cache, unless they have come meanwhile.
func (r *Retention) evictAnswers(ctx context.Context, s *snapshot, group []KnownReferrers) (freed int64, err error) {
	return r.freeing(ctx, func() {
		for _, k := range group {
			s.watch.ForgetReferrers(k.reference().Repository, k.Subject)
		}
	})
}

// sweepRecords removes the records of what is not there any more: of blobs that
// no manifest of their repository references, of uses, and of repositories.
func (r *Retention) sweepRecords(ctx context.Context, s *snapshot) (freed int64, err error) {
	repositories := make(map[Repository]bool)
	for _, n := range s.nodes {
		repositories[n.repo] = true
	}
	isHere := func(d Digest) bool {
		_, isStored := s.sizes[d]
		_, isDraft := s.drafts[d]
		return isStored || isDraft
	}
	return r.freeing(ctx, func() {
		s.watch.DropStale(metadata.Present{
			Repository: func(repo Repository) bool { return repositories[repo] },
			Manifest:   func(key string) bool { return s.nodes[key] != nil },
			Blob:       isHere,
			Member:     func(key string, d Digest) bool { return isHere(d) || s.references.members[key] > 0 },
		})
	})
}

// freeing removes records, and returns how many bytes they take less when that
// is durable.
func (r *Retention) freeing(ctx context.Context, remove func()) (freed int64, err error) {
	before := r.store.RecordBytes()
	remove()
	if err := r.ledger.Flush(ctx); err != nil {
		return 0, err
	}
	freed = max(before-r.store.RecordBytes(), 0)
	r.store.RecordsRemoved(freed, 0)
	r.evicted(freed)
	return freed, nil
}
