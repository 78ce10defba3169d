package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache/memory"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// defaultPatience is how long a client waits for a lookup at most. After
	// that it gets the answer that is known by then, and the lookup continues.
	defaultPatience = 5 * time.Second
	// maxLookup bounds a lookup. Some registries take half a minute to list
	// referrers.
	maxLookup = 90 * time.Second
)

// errPending is the error of a source that has not answered yet.
var errPending = fmt.Errorf("%w: it has not answered yet", upstream.ErrTimeout)

// A source is one place where referrers are listed. If it returns no error, its
// answer is complete. If it returns one, the descriptors returned with it are
// still valid.
type source func(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error)

// Indexes of the sources that the rules below treat specially.
const (
	sourceAPI = iota
	sourceTag
)

func (p *Puller) sources(u Upstream) []source {
	sources := []source{sourceAPI: p.referrersFromAPI, sourceTag: p.referrersFromTag}
	sources = append(sources, p.referrersFromBuildKit)
	if u.CosignTags {
		sources = append(sources, p.referrersFromCosign)
	}
	return sources
}

// sourceResults are the answers of the sources, in the order of the sources.
type sourceResults struct {
	lists [][]Descriptor
	errs  []error
}

// err is the error that decides the answer, or nil if every source has
// answered.
func (f sourceResults) err() error {
	errs := slices.Clone(f.errs)
	if tag := errs[sourceTag]; errors.Is(errs[sourceAPI], upstream.ErrDenied) && (tag == nil || errors.Is(tag, errPending)) {
		// A client that may read the tag may read what it lists. If only the
		// API refuses, treat it as an API that cannot be asked.
		errs[sourceAPI] = fmt.Errorf("%w: the Referrers API is refused: %w", upstream.ErrInvalidResponse, errors.New(errs[sourceAPI].Error()))
	}
	return decisiveError(errs)
}

// hasUnreadable says whether a source lists a manifest that could not be read.
func (f sourceResults) hasUnreadable() bool { return errors.Is(errors.Join(f.errs...), errUnreadable) }

// hasCompleteList says whether a source returned a complete list that is not
// empty.
func (f sourceResults) hasCompleteList() bool {
	for i, list := range f.lists {
		if f.errs[i] == nil && len(list) > 0 {
			return true
		}
	}
	return false
}

// A lookup asks every source about one subject, all at the same time. It
// belongs to the mirror: it continues when the clients that wait for it have
// left, and its result is recorded before it is done.
type lookup struct {
	started time.Time
	done    chan struct{}

	mu      sync.Mutex
	results sourceResults

	answer Referrers // set when done is closed
	err    error
}

// lookups are the lookups that are under way, one per subject.
type lookups struct {
	noAPI *memory.Answers[Repository, struct{}]

	mu    sync.Mutex
	byKey map[string]*lookup
}

func newLookups() *lookups { return &lookups{noAPI: newNoAPI(), byKey: make(map[string]*lookup)} }

// joinLookup returns the lookup that is under way, or starts one.
func (p *Puller) joinLookup(u Upstream, repo Repository, subject Digest, renew renewal) *lookup {
	key := metadata.Key(repo, subject.String())
	p.lookups.mu.Lock()
	defer p.lookups.mu.Unlock()
	if l, ok := p.lookups.byKey[key]; ok {
		return l
	}
	l := &lookup{started: time.Now(), done: make(chan struct{})}
	if rec, ok := p.ledger.Referrers(repo, subject); ok && p.isFreshAnswer(rec) && renew.allows(rec.At) {
		// Another lookup has finished since the caller checked the record.
		l.answer = Referrers{Manifests: rec.Manifests, Outcome: Hit}
		close(l.done)
		return l
	}
	for _, tag := range referrers.TagForms(subject) {
		p.negative.forget(manifestKey(repo, tag), renew.oldest)
	}
	sources := p.sources(u)
	l.results = sourceResults{make([][]Descriptor, len(sources)), slices.Repeat([]error{errPending}, len(sources))}
	p.lookups.byKey[key] = l
	started := p.work.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxLookup, upstream.ErrTimeout)
		defer cancel()
		l.run(ctx, sources, u, repo, subject)
		l.answer, l.err = p.recordAnswer(ctx, u, repo, subject, l.results)
		p.requests.renewals.note(key, renew, l.err == nil && !l.answer.Stale)
		p.lookups.mu.Lock()
		defer p.lookups.mu.Unlock()
		delete(p.lookups.byKey, key)
		close(l.done)
	})
	if !started {
		delete(p.lookups.byKey, key)
		l.err = causeOf(p.work.Context(), context.Canceled)
		close(l.done)
	}
	return l
}

func (l *lookup) run(ctx context.Context, sources []source, u Upstream, repo Repository, subject Digest) {
	var asked sync.WaitGroup
	for i, ask := range sources {
		asked.Go(func() {
			list, err := ask(ctx, u, repo, subject)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.results.lists[i], l.results.errs[i] = list, err
		})
	}
	asked.Wait()
}

// recordAnswer records a complete answer.
func (p *Puller) recordAnswer(ctx context.Context, u Upstream, repo Repository, subject Digest, f sourceResults) (Referrers, error) {
	answer, err := p.combine(repo, subject, f)
	switch {
	case err == nil && !answer.Stale:
		answer.Manifests = referrers.Merge(answer.Manifests, p.confirmSeen(ctx, u, repo, subject, answer.Manifests))
		p.ledger.PutReferrers(repo, subject, metadata.Referrers{Manifests: answer.Manifests, At: time.Now()})
	case IsInconclusive(f.err()):
		p.lookups.noAPI.Delete(repo) // the registry may have been replaced when it comes back
		p.log.Info("referrers lookup is incomplete", "upstream", repo.Upstream, "repository", repo.Name, "subject", subject.String(), "error", f.err())
	}
	return answer, causeOf(ctx, err)
}

// wait returns the answer of the lookup. If that takes longer than patience, it
// returns what interim makes of the results so far.
func (l *lookup) wait(ctx context.Context, patience time.Duration, interim func(sourceResults) (Referrers, error)) (Referrers, error) {
	late := time.NewTimer(patience - time.Since(l.started))
	defer late.Stop()
	select {
	case <-l.done:
		return l.answer, l.err
	case <-ctx.Done():
		return Referrers{}, context.Cause(ctx)
	case <-late.C:
	}
	select {
	case <-l.done:
		return l.answer, l.err
	default:
		return interim(l.current())
	}
}

func (l *lookup) current() sourceResults {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sourceResults{slices.Clone(l.results.lists), slices.Clone(l.results.errs)}
}

// ErrIncomplete means that an answer about referrers is not complete.
var ErrIncomplete = fmt.Errorf("%w: not all sources of referrers could be asked", upstream.ErrUnavailable)

// FetchReferrers looks up the referrers of subject in order to record them. It
// waits longer than a client would, and returns an error unless the answer is
// complete.
func (p *Puller) FetchReferrers(ctx context.Context, repo Repository, subject Digest) error {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return err
	}
	answer, err := p.joinLookup(u, repo, subject, renewal{}).wait(ctx, maxLookup, func(sourceResults) (Referrers, error) { return Referrers{}, ErrIncomplete })
	if err == nil && answer.Stale {
		err = ErrIncomplete
	}
	return err
}
