package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// defaultPatience is how long a client waits for a lookup at most. After
	// that it gets the answer that is known by then, and the lookup continues.
	defaultPatience = 5 * time.Second
	// maxLookup bounds a lookup. Some registries take half a minute for a page,
	// and have many. What a lookup has found so far is not lost when its clients
	// leave: the next one joins it.
	maxLookup = 15 * time.Minute
	// maxFetch is how long a lookup is waited for that no client has asked for.
	maxFetch = 90 * time.Second
	// maxIncomplete bounds how many incomplete answers are remembered.
	maxIncomplete = 1 << 10
)

// A lookup asks every source about one subject, all at the same time. It
// belongs to the mirror: it continues when the clients that wait for it have
// left, and its result is recorded before it is done.
type lookup struct {
	started time.Time
	oldest  time.Time // of the remembered answers that it takes
	done    chan struct{}

	mu      sync.Mutex
	answers []referrers.Answer

	answer Referrers // set when done is closed
	err    error

	interim singleflight.Group
}

// share has those who have waited long enough at the same time share an answer.
func (l *lookup) share(conclude func() (Referrers, error)) (Referrers, error) {
	answer, err, _ := l.interim.Do("", func() (any, error) {
		answer, err := conclude()
		return encodeOnce(answer), err
	})
	return answer.(Referrers), err
}

// lookups are the lookups that are under way, one per subject.
type lookups struct {
	noAPI *memory.Answers[withoutAPI, time.Time]
	// incomplete are answers that are not complete, and that asking again would
	// not complete soon.
	incomplete *memory.Answers[string, Referrers]
	// encoding are the lists that are being encoded again, and recent those that
	// were.
	encoding singleflight.Group
	recent   *recentLists
	// tags are the manifests that long lists are served as under the tag.
	tags *memory.Answers[longTag, Digest]

	mu      sync.Mutex
	byKey   map[string]*lookup
	opening map[string]bool // subjects of which long lists are being opened
}

func newLookups() *lookups {
	incomplete, err := memory.NewAnswers[string, Referrers](maxIncomplete)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	tags, err := memory.NewAnswers[longTag, Digest](maxIncomplete)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &lookups{noAPI: newNoAPI(), incomplete: incomplete, tags: tags, recent: newRecentLists(), byKey: make(map[string]*lookup), opening: make(map[string]bool)}
}

// beginOpening says whether the caller is to open what a list names.
func (l *lookups) beginOpening(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opening[key] {
		return false
	}
	l.opening[key] = true
	return true
}

func (l *lookups) endOpening(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.opening, key)
	l.incomplete.Delete(key) // there is more to tell now
}

func (l *lookups) isOpening(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opening[key]
}

// joinLookup returns the lookup that is under way, or starts one. If another one
// has finished since the caller checked the record, it returns what is on record.
func (p *Puller) joinLookup(u Upstream, repo Repository, subject Digest, renew renewal) *lookup {
	p.ledger.Listed(repo, subject) // a long list is not encoded under the lock of all lookups
	l, rec := p.joinOrBegin(u, repo, subject, renew)
	if rec != nil {
		l.answer, l.err = p.listed(p.work.Context(), repo, subject, *rec)
		close(l.done)
	}
	return l
}

// joinOrBegin returns a lookup, or a record that makes it superfluous.
func (p *Puller) joinOrBegin(u Upstream, repo Repository, subject Digest, renew renewal) (*lookup, *metadata.Listed) {
	key := metadata.Key(repo, subject.String())
	isOpening := p.lookups.isOpening(key)
	p.lookups.mu.Lock()
	defer p.lookups.mu.Unlock()
	if l, ok := p.lookups.byKey[key]; ok {
		return l, nil
	}
	now := time.Now()
	l := &lookup{started: now, oldest: p.oldestRemembered(now, renew), done: make(chan struct{})}
	if rec, ok := p.ledger.Listed(repo, subject); ok && p.isFreshAnswer(rec.At, rec.WasEmpty) && renew.allows(rec.At) {
		return l, &rec
	}
	q := &question{
		upstream: u, repo: repo, subject: subject, began: now, oldest: l.oldest, renew: renew,
		attached: p.ledger.Attached(repo, subject), budget: newBudget(maxOpened),
	}
	if isOpening {
		q.budget = newBudget(fewOpened)
	}
	sources := p.sources(u)
	for _, s := range sources {
		l.answers = append(l.answers, pendingAnswer(kindOf(s)))
	}
	l.answers = append(l.answers, pendingAnswer(referrers.FromSeen))
	p.lookups.byKey[key] = l
	started := p.work.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxLookup, upstream.ErrTimeout)
		defer cancel()
		defer func() {
			p.lookups.mu.Lock()
			defer p.lookups.mu.Unlock()
			delete(p.lookups.byKey, key)
			close(l.done)
		}()
		defer panics.Catch("lookup of referrers", &l.err)
		l.run(ctx, sources, passedThrough{p: p}, q)
		l.answer, l.err = p.recordAnswer(ctx, q, l.answers)
		p.requests.renewals.note(key, renew, l.err == nil && !l.answer.Stale && renew.metBy(l.answer))
		p.openRest(u, repo, subject, q.budget.unopened)
	})
	if !started {
		delete(p.lookups.byKey, key)
		l.err = causeOf(p.work.Context(), context.Canceled)
		close(l.done)
	}
	return l, nil
}

// oldestRemembered is the time of the oldest answer of a source that need not be
// asked for again. An answer is as old as the oldest of its sources, so that
// one that may be empty is never made of anything that is not fresh.
func (p *Puller) oldestRemembered(now time.Time, renew renewal) time.Time {
	oldest := now.Add(-min(p.rules.ReferrersTTL, p.rules.NegativeTTL))
	if renew.oldest.After(oldest) {
		return renew.oldest
	}
	return oldest
}

func pendingAnswer(of referrers.Kind) referrers.Answer {
	return referrers.Answer{Of: of, Err: errPending, Pending: true}
}

// run asks the sources, and then what passed through.
func (l *lookup) run(ctx context.Context, sources []source, last passedThrough, q *question) {
	var asked sync.WaitGroup
	for i, s := range sources {
		asked.Go(func() { l.set(i, answerSafely(ctx, s, q)) })
	}
	asked.Wait()
	again := *q
	again.oldest = last.p.oldestRemembered(time.Now(), renewal{oldest: q.oldest})
	for i, s := range sources {
		if isAskedAgain(l.answers[i], again.oldest) {
			asked.Go(func() { l.set(i, answerSafely(ctx, s, &again)) })
		}
	}
	asked.Wait()
	last.listed = l.answers[:len(sources)]
	for _, a := range last.listed {
		if a.State == referrers.CannotTell {
			return // the answer is not complete, whatever passed through
		}
	}
	l.set(len(sources), last.answer(ctx, q))
}

// answerSafely asks a source. One that panics can't tell.
func answerSafely(ctx context.Context, s source, q *question) referrers.Answer {
	answer, err := func() (a referrers.Answer, err error) {
		defer panics.Catch("source of referrers", &err)
		return s.answer(ctx, q), nil
	}()
	if err != nil {
		return cannotTell(kindOf(s), fmt.Errorf("%w: %w", upstream.ErrUnavailable, err))
	}
	return answer
}

// isAskedAgain says whether a source is asked once more when the others have
// answered.
//
// A list of many slow pages takes minutes. What was said at its beginning is not
// fresh any more. And what an index attaches could not be opened if the API or
// the tag was the request that found out whether the upstream is back.
func isAskedAgain(a referrers.Answer, oldest time.Time) bool {
	if a.State == referrers.CannotTell {
		return a.Of == referrers.FromBuildKit && errors.Is(a.Err, upstream.ErrProbed)
	}
	return a.Of != referrers.FromAPI && a.At.Before(oldest)
}

func (l *lookup) set(i int, a referrers.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[i] = a
}

// current are the answers so far.
func (l *lookup) current() []referrers.Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]referrers.Answer(nil), l.answers...)
}

// recordAnswer records a complete answer.
func (p *Puller) recordAnswer(ctx context.Context, q *question, answers []referrers.Answer) (Referrers, error) {
	verdict, answer, err := p.conclude(q.repo, q.subject, answers)
	if verdict.Conclusion == referrers.Known {
		p.ledger.RecordReferrers(q.repo, q.subject, metadata.Referrers{Manifests: verdict.List, At: verdict.At}, q.attached)
		if rec, ok := p.ledger.Listed(q.repo, q.subject); ok && rec.Digest != "" && !rec.List.IsZero() {
			p.keepList(rec) // ready before many clients ask for it at once
			if rec.List.Len() == len(verdict.List) {
				answer.List = rec.List // no more was seen, so that it is the same list
			}
		}
		return encodeOnce(answer), nil
	}
	p.log.Info("referrers lookup is incomplete", "upstream", q.repo.Upstream, "repository", q.repo.Name, "subject", q.subject.String(), "error", verdict.Err)
	answer = encodeOnce(answer)
	if err == nil && isLasting(answers) {
		kept := answer
		if !kept.List.IsZero() {
			kept.Manifests = nil // once is enough
		}
		p.lookups.incomplete.Put(metadata.Key(q.repo, q.subject.String()), kept, min(p.rules.ReferrersTTL, p.rules.NegativeTTL))
	}
	return answer, causeOf(ctx, err)
}

// isLasting says whether asking again would not help soon.
func isLasting(answers []referrers.Answer) bool {
	for _, a := range answers {
		if a.State == referrers.CannotTell && !a.Pending && !errors.Is(a.Err, errLasting) {
			return false
		}
	}
	return true
}

// wait returns the answer of the lookup. If that takes longer than patience, it
// returns what interim makes of the answers so far.
func (l *lookup) wait(ctx context.Context, patience time.Duration, interim func([]referrers.Answer) (Referrers, error)) (Referrers, error) {
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

// isOlder says whether a lookup that is done took answers that are older than
// that.
func (l *lookup) isOlder(than time.Time) bool {
	select {
	case <-l.done:
		return l.oldest.Before(than)
	default:
		return false
	}
}

// ErrIncomplete means that an answer about referrers is not complete.
var ErrIncomplete = fmt.Errorf("%w: not all sources of referrers could be asked", upstream.ErrUnavailable)

// FetchReferrers looks up the referrers of subject in order to record them. It
// waits longer than a client would, and returns an error unless the answer is
// complete. Offline, an answer on record will do.
func (p *Puller) FetchReferrers(ctx context.Context, repo Repository, subject Digest) error {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return err
	}
	if p.rules.Offline {
		if _, known := p.ledger.Referrers(repo, subject); known {
			return nil
		}
		return fmt.Errorf("referrers of %s in %s: %w", subject, repo, ErrOffline)
	}
	answer, err := p.joinLookup(u, repo, subject, renewal{}).wait(ctx, maxFetch, func([]referrers.Answer) (Referrers, error) { return Referrers{}, ErrIncomplete })
	if err == nil && answer.Stale {
		err = ErrIncomplete
	}
	return err
}
