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
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// A pull of an image that is already cached makes further requests, which
// depend on the client. Docker asks for the referrers of the image's
// attestations at every pull (W58), BuildKit asks for their referrers tags, and
// containerd asks for neither. Whether the next client can pull must not depend
// on which client pulled first. So if an index and one of its platforms are
// cached, entrepot requests by itself
//
//   - the attestation manifests of that platform, and their blobs;
//   - the referrers of these, of the platform's manifest and of the index, with
//     their small blobs, such as signatures. An empty list of referrers is an
//     answer too.
//
// [retention.Retention.FindMissing] says what there is to fetch. It follows
// from the cache and the records, so there is no list that could be lost, and a
// new process continues where the last one stopped. Each thing is requested
// once, for one repository of an upstream at a time, and not while the
// upstream's rate limit runs low.

const (
	// minQuota is the remaining share of a rate limit below which nothing is
	// prefetched. quotaBackoff is how long until it is checked again.
	minQuota     = 0.25
	quotaBackoff = 5 * time.Minute
	// refusedTTL is how long something is not requested again after the
	// upstream has refused it. maxRefused bounds how much of that is
	// remembered.
	refusedTTL = 6 * time.Hour
	maxRefused = 16 << 10
	// maxFailures is how many requests of one pass may fail.
	maxFailures = 3
)

var (
	errQuotaLow = fmt.Errorf("%w: its rate limit is running low", upstream.ErrUnavailable)
	errBackoff  = fmt.Errorf("%w: it failed recently", upstream.ErrUnavailable)
)

// PrefetcherOptions are the dependencies and settings of a Prefetcher.
type PrefetcherOptions struct {
	Puller    *pull.Puller
	Retention *retention.Retention
	Ledger    *metadata.Ledger
	// Upstreams are the names of the upstreams to prefetch from.
	Upstreams []string
	Logger    *slog.Logger
}

// Prefetcher fetches what another pull of a cached image may request. All
// methods are safe for concurrent use.
type Prefetcher struct {
	opts      PrefetcherOptions
	log       *slog.Logger
	schedules map[string]*schedule // by upstream
	refused   *memory.Answers[string, struct{}]
}

// NewPrefetcher returns a Prefetcher. It does nothing before Run is called.
func NewPrefetcher(opts PrefetcherOptions) *Prefetcher {
	refused, err := memory.NewAnswers[string, struct{}](maxRefused)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	l := &Prefetcher{opts: opts, log: opts.Logger, schedules: make(map[string]*schedule), refused: refused}
	for _, name := range opts.Upstreams {
		if !opts.Puller.IsOffline(name) {
			l.schedules[name] = newSchedule()
		}
	}
	return l
}

// ManifestStored schedules a repository if a manifest that was cached for it
// may lead to more: an index, a platform, an attestation, or what names blobs
// that the upstream has to be asked about.
func (l *Prefetcher) ManifestStored(repo Repository, d Digest, m metadata.Manifest) {
	if len(m.Children) == 0 && !retention.IsPlatform(m) && !l.opts.Ledger.IsAttestation(repo, d) && l.opts.Ledger.HoldsAll(repo, m) {
		return
	}
	if s, ok := l.schedules[repo.Upstream]; ok {
		s.add(repo)
	}
}

// Run prefetches until ctx is done.
func (l *Prefetcher) Run(ctx context.Context) {
	repositories, err := l.opts.Ledger.Repositories()
	if err != nil {
		l.log.Error("the list of repositories cannot be read", "error", err)
	}
	for _, repo := range repositories {
		if s, ok := l.schedules[repo.Upstream]; ok {
			s.add(repo)
		}
	}
	var all sync.WaitGroup
	for _, s := range l.schedules {
		all.Go(func() {
			defer panics.Report("prefetching")
			l.prefetchUpstream(ctx, s)
		})
	}
	all.Wait()
}

// prefetchUpstream goes through the repositories of one upstream as they become
// due.
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
		case err != nil && !errors.Is(err, errBackoff) && !errors.Is(err, cache.ErrDown):
			l.log.Info("not everything that another pull may request could be prefetched", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n, "error", err)
		case n > 0:
			l.log.Debug("prefetched what another pull may request", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n)
		}
	}
}

// prefetch goes through a repository once. What it fetches may lead to more;
// then the repository is due again.
func (l *Prefetcher) prefetch(ctx context.Context, s *schedule, repo Repository) (fetched int, err error) {
	defer panics.Catch("prefetching", &err)
	if forbidden := l.opts.Puller.Check(repo); forbidden != nil {
		return 0, nil // the configuration has changed: the repository cannot be pulled any more
	}
	start := time.Now()
	cached, err := l.opts.Ledger.ManifestsOf(repo)
	if err != nil {
		return 0, err
	}
	missing := l.opts.Retention.FindMissing(ctx, repo, cached)
	s.recordScan(repo, time.Since(start))
	var failed []error
	var pending error
	backoff := s.inBackoff(repo)
	for _, what := range s.rotate(repo, missing) {
		key := metadata.Key(repo, what.String())
		if _, refused := l.refused.Get(key); refused {
			continue
		}
		if backoff[what.String()] {
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
