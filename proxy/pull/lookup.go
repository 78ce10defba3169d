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
	// usualPatience is how long at most a client waits for a lookup. Then it is
	// answered from what is known by then, and the lookup goes on.
	usualPatience = 5 * time.Second
	// maxLookup bounds a lookup. Registries have been seen to take half a minute
	// for a list.
	maxLookup = 90 * time.Second
)

// errUnanswered stands for a source that has not answered yet.
var errUnanswered = fmt.Errorf("%w: not all of its answers are in", upstream.ErrTimeout)

// A source is one place where referrers are listed. Without an error its
// answer is whole; with one, what it found before still counts as found.
type source func(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error)

// The sources whose answers are weighed against each other stand first.
const (
	fromAPI = iota
	fromTag
)

func (p *Puller) sources(u Upstream) []source {
	sources := []source{fromAPI: p.listedByAPI, fromTag: p.listedByTag}
	sources = append(sources, p.attachedByBuildKit)
	if u.CosignTags {
		sources = append(sources, p.taggedByCosign)
	}
	return sources
}

// finding is what the sources have said, in their order.
type finding struct {
	lists [][]Descriptor
	errs  []error
}

// err is the error that an answer is made of, nil where every source has
// answered.
func (f finding) err() error {
	errs := slices.Clone(f.errs)
	if tag := errs[fromTag]; errors.Is(errs[fromAPI], upstream.ErrDenied) && (tag == nil || errors.Is(tag, errUnanswered)) {
		// Who may read the tag may read what it lists: a refusal of the API
		// alone says that it can't be asked.
		errs[fromAPI] = fmt.Errorf("%w: the Referrers API is refused: %w", upstream.ErrBadAnswer, errors.New(errs[fromAPI].Error()))
	}
	return worst(errs)
}

// unread says that a source lists what could not be read.
func (f finding) unread() bool { return errors.Is(errors.Join(f.errs...), errUnread) }

// anyWhole says whether a source gave its whole list, and not an empty one.
func (f finding) anyWhole() bool {
	for i, list := range f.lists {
		if f.errs[i] == nil && len(list) > 0 {
			return true
		}
	}
	return false
}

// A lookup asks every source about one subject, at the same time. It belongs to
// the mirror: it goes on when those who wait for it have left, and what it ends
// with is on record before it is over.
type lookup struct {
	began time.Time
	over  chan struct{}

	mu    sync.Mutex
	found finding

	answer Referrers // once it is over
	err    error
}

// lookups are those under way, one for each subject.
type lookups struct {
	noAPI *memory.Answers[Repository, struct{}]

	mu  sync.Mutex
	all map[string]*lookup
}

func newLookups() *lookups { return &lookups{noAPI: newNoAPI(), all: make(map[string]*lookup)} }

// lookUp returns the lookup that is under way, or begins one.
func (p *Puller) lookUp(u Upstream, repo Repository, subject Digest) *lookup {
	key := metadata.Key(repo, subject.String())
	p.lookups.mu.Lock()
	defer p.lookups.mu.Unlock()
	if l, ok := p.lookups.all[key]; ok {
		return l
	}
	l := &lookup{began: time.Now(), over: make(chan struct{})}
	if rec, ok := p.ledger.Referrers(repo, subject); ok && p.freshReferrers(rec) {
		// Looked up since the caller looked.
		l.answer = Referrers{Manifests: rec.Manifests, Outcome: Hit}
		close(l.over)
		return l
	}
	sources := p.sources(u)
	l.found = finding{make([][]Descriptor, len(sources)), slices.Repeat([]error{errUnanswered}, len(sources))}
	p.lookups.all[key] = l
	started := p.work.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxLookup, upstream.ErrTimeout)
		defer cancel()
		l.ask(ctx, sources, u, repo, subject)
		l.answer, l.err = p.finish(ctx, u, repo, subject, l.found)
		p.lookups.mu.Lock()
		defer p.lookups.mu.Unlock()
		delete(p.lookups.all, key)
		close(l.over)
	})
	if !started {
		delete(p.lookups.all, key)
		l.err = causeOf(p.work.Context(), context.Canceled)
		close(l.over)
	}
	return l
}

func (l *lookup) ask(ctx context.Context, sources []source, u Upstream, repo Repository, subject Digest) {
	var asked sync.WaitGroup
	for i, ask := range sources {
		asked.Go(func() {
			list, err := ask(ctx, u, repo, subject)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.found.lists[i], l.found.errs[i] = list, err
		})
	}
	asked.Wait()
}

// finish puts a whole answer on record.
func (p *Puller) finish(ctx context.Context, u Upstream, repo Repository, subject Digest, f finding) (Referrers, error) {
	answer, err := p.conclude(repo, subject, f)
	switch {
	case err == nil && !answer.Stale:
		answer.Manifests = referrers.Merge(answer.Manifests, p.stillThere(ctx, u, repo, subject, answer.Manifests))
		p.ledger.PutReferrers(repo, subject, metadata.Referrers{Manifests: answer.Manifests, At: time.Now()})
	case cannotTell(f.err()):
		p.lookups.noAPI.Delete(repo) // it may come back as another
		p.log.Info("referrers could not be looked up whole", "upstream", repo.Upstream, "repository", repo.Name, "subject", subject.String(), "error", f.err())
	}
	return answer, causeOf(ctx, err)
}

// wait returns the lookup's answer, or, once the lookup has taken longer than a
// client's patience, what conclude makes of what is known by then.
func (l *lookup) wait(ctx context.Context, patience time.Duration, conclude func(finding) (Referrers, error)) (Referrers, error) {
	late := time.NewTimer(patience - time.Since(l.began))
	defer late.Stop()
	select {
	case <-l.over:
		return l.answer, l.err
	case <-ctx.Done():
		return Referrers{}, context.Cause(ctx)
	case <-late.C:
	}
	select {
	case <-l.over:
		return l.answer, l.err
	default:
		return conclude(l.soFar())
	}
}

func (l *lookup) soFar() finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return finding{slices.Clone(l.found.lists), slices.Clone(l.found.errs)}
}

// ErrIncomplete says that an answer about referrers is not complete.
var ErrIncomplete = fmt.Errorf("%w: not all that lists referrers could be asked", upstream.ErrUnavailable)

// FetchReferrers looks up what refers to subject, for nobody but the ledger. It
// waits longer than any client does, and returns an error unless the answer is
// complete.
func (p *Puller) FetchReferrers(ctx context.Context, repo Repository, subject Digest) error {
	u, err := p.admit(repo)
	if err != nil {
		return err
	}
	answer, err := p.lookUp(u, repo, subject).wait(ctx, maxLookup, func(finding) (Referrers, error) { return Referrers{}, ErrIncomplete })
	if err == nil && answer.Stale {
		err = ErrIncomplete
	}
	return err
}
