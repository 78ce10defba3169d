package pull

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// What pulling an image again asks for is learnt while its upstream is there.
// Docker asks at every pull what refers to the attestations of the image (W58),
// BuildKit asks for their tags, containerd asks for neither: the one that
// pulled first must not decide whether the next one can. So where an index is
// kept, with a platform of it, entrepot asks of its own accord for
//
//   - the attestation manifests of that platform, and their blobs;
//   - the referrers of those, of the platform's manifest and of the index, with
//     small blobs of theirs: signatures. That there are none counts as learnt.
//
// What there is to learn follows from what is kept and what is on record, so
// there is no list that could be lost, and a restart goes on where the last
// process stopped. Each thing is asked for once, one repository of an upstream
// at a time, and nothing while the upstream's limit runs low.

const (
	// settles is how long after something was kept it is looked for what there
	// is to learn: the pull itself goes first.
	settles = 2 * time.Second
	// breathes is how many times as long as it took to look at a repository it
	// is not looked at again: thousands of images can be kept of one, while more
	// of it is pulled.
	breathes = 20
	// maxAttestation and maxAttached are the sizes in bytes up to which blobs
	// are fetched: of attestations, SBOMs among them, and of other referrers.
	maxAttestation = 16 << 20
	maxAttached    = 1 << 20
	// maxLearnt is how many referrers of one manifest are fetched.
	maxLearnt = 64
	// lowQuota is the share of a limit below which nothing is learnt, quotaRest
	// how long until it is looked at again.
	lowQuota  = 0.25
	quotaRest = 5 * time.Minute
	// longestLesson is the longest time until an upstream that fails is tried
	// again, and refusedFor how long it is not asked for what it has refused.
	longestLesson = 30 * time.Minute
	refusedFor    = 6 * time.Hour
	maxRefused    = 16 << 10
	// maxFailures is how many questions of one pass may fail.
	maxFailures = 3
)

var (
	errLimitLow     = fmt.Errorf("%w: its rate limit runs low", upstream.ErrUnavailable)
	errResting      = fmt.Errorf("%w: it failed a moment ago", upstream.ErrUnavailable)
	errStillUnknown = fmt.Errorf("%w: not all that lists referrers could be asked", upstream.ErrUnavailable)
)

// learner learns about what is kept of one upstream.
type learner struct {
	upstream string
	refused  *memory.Answers[string, struct{}]
	wake     chan struct{}

	mu     sync.Mutex
	due    map[Repository]time.Time
	rests  map[Repository]*rest           // of those that failed
	failed map[Repository]map[string]bool // lessons, until the rest is over
	after  map[Repository]string          // the lesson that failed last
	took   map[Repository]time.Duration   // to look at those that are large
}

func newLearner(upstreamName string) *learner {
	refused, err := memory.NewAnswers[string, struct{}](maxRefused)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &learner{
		upstream: upstreamName, refused: refused, wake: make(chan struct{}, 1),
		due: make(map[Repository]time.Time), rests: make(map[Repository]*rest),
		failed: make(map[Repository]map[string]bool), after: make(map[Repository]string),
		took: make(map[Repository]time.Duration),
	}
}

// look has a repository looked at when the pull under way has settled.
func (l *learner) look(repo Repository) {
	l.mu.Lock()
	wait := max(settles, breathes*l.took[repo])
	if at, ok := l.due[repo]; !ok || time.Until(at) > wait {
		l.due[repo] = time.Now().Add(wait)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next takes a repository that is due, or says how long none is.
func (l *learner) next() (repo Repository, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait = longestLesson
	for repo, at := range l.due {
		left := time.Until(at)
		if left <= 0 {
			delete(l.due, repo)
			return repo, 0
		}
		wait = min(wait, left)
	}
	return Repository{}, wait
}

// leave notes how a pass over a repository ended.
func (l *learner) leave(repo Repository, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.rests, repo)
		delete(l.failed, repo)
		delete(l.after, repo)
		return
	}
	if errors.Is(err, errResting) {
		if _, ok := l.due[repo]; !ok {
			l.due[repo] = l.rests[repo].until
		}
		return
	}
	again := time.Now().Add(quotaRest)
	if !errors.Is(err, errLimitLow) {
		if l.rests[repo] == nil {
			l.rests[repo] = &rest{}
		}
		l.rests[repo].longer(longestLesson)
		again = l.rests[repo].until
	}
	var limited *upstream.RateLimitedError
	if errors.As(err, &limited) && time.Until(again) < limited.RetryAfter {
		again = time.Now().Add(limited.RetryAfter)
	}
	l.due[repo] = again
}

// looked notes how long it took to look at a repository.
func (l *learner) looked(repo Repository, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.took, repo); breathes*took > settles {
		l.took[repo] = took
	}
}

// failedAt notes a lesson that a pass could not go past.
func (l *learner) failedAt(repo Repository, what lesson) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after[repo] = what.String()
	if l.failed[repo] == nil {
		l.failed[repo] = make(map[string]bool)
	}
	l.failed[repo][what.String()] = true
}

// resting are the lessons that failed and are left alone until the rest is over,
// whatever new is kept meanwhile.
func (l *learner) resting(repo Repository) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rest := l.rests[repo]; rest == nil || !time.Now().Before(rest.until) {
		delete(l.failed, repo)
	}
	return maps.Clone(l.failed[repo])
}

// inTurn orders lessons so that a pass goes on behind what the last one could
// not go past: what always fails must not keep the rest from being learnt.
func (l *learner) inTurn(repo Repository, all []lesson) []lesson {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(all, func(what lesson) bool { return what.String() == l.after[repo] }) + 1
	return slices.Concat(all[at:], all[:at])
}

// Learn learns what pulling again may ask for, until ctx ends.
func (p *Puller) Learn(ctx context.Context) {
	if p.opts.Offline {
		return
	}
	kept, err := p.meta.Repositories()
	if err != nil {
		p.log.Error("what is kept cannot be read", "error", err)
	}
	for _, repo := range kept {
		if l, ok := p.learners[repo.Upstream]; ok {
			l.look(repo)
		}
	}
	var all sync.WaitGroup
	for _, l := range p.learners {
		all.Go(func() { p.learnFrom(ctx, l) })
	}
	all.Wait()
}

func (p *Puller) learnFrom(ctx context.Context, l *learner) {
	for ctx.Err() == nil {
		repo, wait := l.next()
		if wait > 0 {
			due := time.NewTimer(wait)
			select {
			case <-due.C:
			case <-l.wake:
			case <-ctx.Done():
			}
			due.Stop()
			continue
		}
		n, err := p.learn(ctx, l, repo)
		if ctx.Err() != nil {
			return
		}
		l.leave(repo, err)
		switch {
		case err != nil && !errors.Is(err, errResting):
			p.log.Info("not all that pulling again may ask for could be learnt", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n, "error", err)
		case n > 0:
			p.log.Debug("learnt what pulling again may ask for", "upstream", repo.Upstream, "repository", repo.Name, "learnt", n)
		}
	}
}

// learn goes over a repository once. What it fetches may say that there is more
// to learn: then the repository is due again.
func (p *Puller) learn(ctx context.Context, l *learner, repo Repository) (learnt int, err error) {
	u, err := p.admit(repo)
	if err != nil {
		return 0, nil //nolint:nilerr // the configuration has changed: nobody pulls it again
	}
	began := time.Now()
	kept, err := p.meta.ManifestsOf(repo)
	if err != nil {
		return 0, err
	}
	lessons := p.unlearnt(ctx, repo, kept)
	l.looked(repo, time.Since(began))
	var failed []error
	var left error
	resting := l.resting(repo)
	for _, what := range l.inTurn(repo, lessons) {
		key := metadata.Key(repo, what.String())
		if _, refused := l.refused.Get(key); refused {
			continue
		}
		if resting[what.String()] {
			left = errResting
			continue
		}
		if u.Quota != nil && u.Quota() < lowQuota {
			return learnt, errLimitLow
		}
		err := p.learnOne(ctx, u, repo, what)
		var limited *upstream.RateLimitedError
		switch {
		case ctx.Err() != nil:
			return learnt, context.Cause(ctx)
		case err == nil:
			learnt++
		case errors.As(err, &limited):
			return learnt, err
		case errors.Is(err, cache.ErrFull):
			l.failedAt(repo, what)
			return learnt, err
		case cannotTell(err):
			l.failedAt(repo, what)
			if failed = append(failed, err); len(failed) == maxFailures {
				return learnt, errors.Join(failed...)
			}
		default:
			l.refused.Put(key, struct{}{}, refusedFor)
		}
	}
	if learnt > 0 {
		l.look(repo)
	}
	if len(failed) == 0 {
		return learnt, left
	}
	return learnt, errors.Join(failed...)
}

func (p *Puller) learnOne(ctx context.Context, u Upstream, repo Repository, what lesson) error {
	switch what.kind {
	case aManifest:
		_, err := p.manifestByDigest(ctx, u, repo, what.of.Digest)
		if err == nil && !p.has(ctx, what.of.Digest) {
			err = fmt.Errorf("manifest %s of %s: %w", what.of.Digest, repo, cache.ErrFull)
		}
		return err
	case aBlob:
		return p.bring(ctx, u, repo, what.of)
	}
	answer, err := p.lookUp(u, repo, what.of.Digest).wait(ctx, maxLookup, func(finding) (Referrers, error) { return Referrers{}, errStillUnknown })
	if err == nil && answer.Stale {
		err = errStillUnknown
	}
	return err
}
