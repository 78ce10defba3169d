package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// What pulling an image again asks for is learnt while its upstream is there.
// Docker asks at every pull what refers to the attestations of the image (W58),
// BuildKit asks for their tags, containerd asks for neither: the one that
// pulled first must not decide whether the next one can. So where an index is
// kept, with a platform of it, entrepot asks by itself for
//
//   - the attestation manifests of that platform, and their blobs;
//   - the referrers of those, of the platform's manifest and of the index, with
//     small blobs of theirs: signatures. That there are none counts as learnt.
//
// [retention.Retention.Missing] says what there is to learn: it follows from what
// is kept and what is on record, so there is no list that could be lost, and a
// restart goes on where the last process stopped. Each thing is asked for once,
// one repository of an upstream at a time, and nothing while the upstream's
// limit runs low.

const (
	// lowQuota is the share of a limit below which nothing is learnt, and
	// quotaRest how long until it is looked at again.
	minQuota     = 0.25
	quotaBackoff = 5 * time.Minute
	// refusedFor is how long an upstream is not asked for what it has refused,
	// and maxRefused how much of that is remembered.
	refusedTTL = 6 * time.Hour
	maxRefused = 16 << 10
	// maxFailures is how many questions of one pass may fail.
	maxFailures = 3
)

var (
	errQuotaLow = fmt.Errorf("%w: its rate limit runs low", upstream.ErrUnavailable)
	errBackoff  = fmt.Errorf("%w: it failed a moment ago", upstream.ErrUnavailable)
)

// LearnerOptions say what a Learner works with.
type PrefetcherOptions struct {
	Puller    *pull.Puller
	Retention *retention.Retention
	Ledger    *metadata.Ledger
	// Upstreams are the names of those that are learnt from.
	Upstreams []string
	Offline   bool
	Logger    *slog.Logger
}

// Learner learns what pulling again may ask for. All methods are safe for
// concurrent use.
type Prefetcher struct {
	opts      PrefetcherOptions
	log       *slog.Logger
	schedules map[string]*schedule // by upstream
	refused   *memory.Answers[string, struct{}]
}

// NewLearner returns a Learner. Nothing is learnt before Run is called.
func NewPrefetcher(opts PrefetcherOptions) *Prefetcher {
	refused, err := memory.NewAnswers[string, struct{}](maxRefused)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	l := &Prefetcher{opts: opts, log: opts.Logger, schedules: make(map[string]*schedule), refused: refused}
	for _, name := range opts.Upstreams {
		l.schedules[name] = newSchedule()
	}
	return l
}

// ManifestKept has a repository looked at, if a manifest that was kept for it
// may lead to more: an index, a platform, an attestation.
func (l *Prefetcher) ManifestStored(repo Repository, d Digest, m metadata.Manifest) {
	if len(m.Children) == 0 && !retention.IsPlatform(m) && !l.opts.Ledger.IsAttestation(repo, d) {
		return
	}
	if s, ok := l.schedules[repo.Upstream]; ok {
		s.add(repo)
	}
}

// Run learns until ctx ends.
func (l *Prefetcher) Run(ctx context.Context) {
	if l.opts.Offline {
		return
	}
	repositories, err := l.opts.Ledger.Repositories()
	if err != nil {
		l.log.Error("what is kept cannot be read", "error", err)
	}
	for _, repo := range repositories {
		if s, ok := l.schedules[repo.Upstream]; ok {
			s.add(repo)
		}
	}
	var all sync.WaitGroup
	for _, s := range l.schedules {
		all.Go(func() { l.prefetchUpstream(ctx, s) })
	}
	all.Wait()
}

// follow goes over the repositories of one upstream as they are due.
func (l *Prefetcher) prefetchUpstream(ctx context.Context, s *schedule) {
	for ctx.Err() == nil {
		repo, wait := s.next()
		if wait > 0 {
			due := time.NewTimer(wait)
			select {
			case <-due.C:
			case <-s.changed:
			case <-ctx.Done():
			}
			due.Stop()
			continue
		}
		n, err := l.prefetch(ctx, s, repo)
		if ctx.Err() != nil {
			return
		}
		s.finish(repo, err)
		switch {
		case err != nil && !errors.Is(err, errBackoff):
			l.log.Info("not all that pulling again may ask for could be learnt", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n, "error", err)
		case n > 0:
			l.log.Debug("learnt what pulling again may ask for", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n)
		}
	}
}

// learn goes over a repository once. What it fetches may say that there is more
// to learn: then the repository is due again.
func (l *Prefetcher) prefetch(ctx context.Context, s *schedule, repo Repository) (fetched int, err error) {
	if forbidden := l.opts.Puller.Check(repo); forbidden != nil {
		return 0, nil //nolint:nilerr // the configuration has changed: nobody pulls it again
	}
	began := time.Now()
	kept, err := l.opts.Ledger.ManifestsOf(repo)
	if err != nil {
		return 0, err
	}
	missing := l.opts.Retention.FindMissing(ctx, repo, kept)
	s.recordScan(repo, time.Since(began))
	var failed []error
	var pending error
	resting := s.inBackoff(repo)
	for _, what := range s.rotate(repo, missing) {
		key := metadata.Key(repo, what.String())
		if _, refused := l.refused.Get(key); refused {
			continue
		}
		if resting[what.String()] {
			pending = errBackoff
			continue
		}
		if l.opts.Puller.Quota(repo) < minQuota {
			return fetched, errQuotaLow
		}
		err := l.fetch(ctx, repo, what)
		var limited *upstream.RateLimitedError
		switch {
		case ctx.Err() != nil:
			return fetched, context.Cause(ctx)
		case err == nil:
			fetched++
		case errors.As(err, &limited):
			return fetched, err
		case errors.Is(err, cache.ErrFull):
			s.recordFailure(repo, what)
			return fetched, err
		case pull.IsInconclusive(err):
			s.recordFailure(repo, what)
			if failed = append(failed, err); len(failed) == maxFailures {
				return fetched, errors.Join(failed...)
			}
		default:
			l.refused.Put(key, struct{}{}, refusedTTL)
		}
	}
	if fetched > 0 {
		s.add(repo)
	}
	if len(failed) == 0 {
		return fetched, pending
	}
	return fetched, errors.Join(failed...)
}

func (l *Prefetcher) fetch(ctx context.Context, repo Repository, what retention.Missing) error {
	switch what.Kind {
	case retention.MissingManifest:
		return l.opts.Puller.FetchManifest(ctx, repo, what.Of.Digest)
	case retention.MissingBlob:
		return l.opts.Puller.FetchBlob(ctx, repo, what.Of)
	default:
		return l.opts.Puller.FetchReferrers(ctx, repo, what.Of.Digest)
	}
}
