package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// What a list names is opened, because its claims are often wrong (W51). What
// was opened once is on record as seen, and is not opened again. So a long list
// is opened within bounds: a part at once, and the rest over time.
const (
	// parallelReads is how many manifests one source reads in parallel, and
	// parallelRest how many in the background.
	parallelReads, parallelRest = 32, 4
	// maxOpened is how many manifests that are not kept one lookup opens, and
	// fewOpened how many if the upstream's rate limit runs low or the rest is
	// being opened already.
	maxOpened, fewOpened = 512, 16
	// restAfter is how long the rest of a long list waits, so that it takes no
	// turns from the client that asked.
	restAfter = time.Second
)

var (
	// errLasting means that asking again would not help soon.
	errLasting = fmt.Errorf("%w: %w", upstream.ErrInvalidResponse, errUnreadable)
	// errUnopened means that a manifest is opened later.
	errUnopened = fmt.Errorf("%w: it is opened later", errLasting)
)

// budget is how many manifests a lookup may open. Its sources share it.
type budget struct {
	mu       sync.Mutex
	left     int
	granted  map[Digest]bool
	unopened []Descriptor
}

func newBudget(n int) *budget { return &budget{left: n, granted: make(map[Digest]bool)} }

// grant says whether a manifest may be opened. If not, it is noted.
func (b *budget) grant(d Descriptor, isLow bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.granted[d.Digest] {
		return true
	}
	if b.left <= 0 || isLow && len(b.granted) >= fewOpened {
		b.unopened = append(b.unopened, d)
		return false
	}
	b.left--
	b.granted[d.Digest] = true
	return true
}

// opened is what became of a list.
type opened struct {
	list   []Descriptor // derived from manifests
	unread []Descriptor // what the list says of those that could not be read
	// claimed says that what could not be read is listed as it is claimed to be.
	claimed bool

	failed  []error
	isShort bool    // something is listed that could not be read
	absent  []error // of what is listed, and is not there
	// mayLack says that what is not there is none: it is not a registry that
	// lists it, but an index, and those may be sparse.
	mayLack bool
}

// fail notes that something could not be found out.
func (o *opened) fail(err error) {
	if !IsInconclusive(err) && !isRefusal(err) {
		err = fmt.Errorf("%w: %w", upstream.ErrInvalidResponse, withoutMeaning(err))
	}
	o.failed = append(o.failed, err)
}

// missing notes that something is listed that cannot be read.
func (o *opened) missing(err error) {
	o.failed = append(o.failed, fmt.Errorf("%w: %w", errLasting, withoutMeaning(err)))
	o.isShort = true
}

// withoutMeaning is an error about something else than what was asked for.
func withoutMeaning(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errUnopened) {
		return err
	}
	return errors.New(err.Error())
}

// answer is what a source says that listed this at a time.
func (o *opened) answer(of referrers.Kind, at time.Time) referrers.Answer {
	for _, err := range o.absent {
		if !o.mayLack {
			o.missing(err)
		}
	}
	a := referrers.Answer{Of: of, State: referrers.These, List: o.list, At: at}
	switch err := decisiveError(o.failed); {
	case err != nil:
		a.State, a.Err, a.Refused, a.Unread = referrers.CannotTell, err, isRefusal(err), o.isShort
		if o.claimed {
			for _, claim := range o.unread {
				if referrers.Whole(claim) {
					a.Claims = append(a.Claims, claim)
				}
			}
		}
	case len(o.list) == 0:
		a.State = referrers.None
	}
	return a
}

// decisiveError chooses the error that decides the answer. A refusal takes
// precedence over a failure, because a cached answer may stand in for a failure,
// and a failure over what asking again would not mend.
func decisiveError(errs []error) error {
	rank := func(err error) int {
		switch {
		case isRefusal(err):
			return 2
		case !errors.Is(err, errLasting):
			return 1
		}
		return 0
	}
	var decisive error
	for _, err := range errs {
		if decisive == nil || rank(err) > rank(decisive) {
			decisive = err
		}
	}
	return decisive
}

// open reads the manifests that a source lists, in parallel, and has derive make
// their descriptors. What derive says is no referrer is left out.
func (p *Puller) open(ctx context.Context, q *question, listed []Descriptor, derive func(Manifest) (Descriptor, error)) *opened {
	read := &opened{}
	if len(listed) == 0 {
		return read
	}
	seen := make(map[Digest]Descriptor)
	for _, d := range p.ledger.Seen(q.repo, q.subject) {
		seen[d.Digest] = d
	}
	var mu sync.Mutex
	var reads sync.WaitGroup
	slots := make(chan struct{}, parallelReads)
	done := make(map[Digest]bool, len(listed))
	for _, claim := range listed {
		if done[claim.Digest] || claim.Digest == q.subject {
			continue
		}
		done[claim.Digest] = true
		if derived, ok := seen[claim.Digest]; ok {
			mu.Lock()
			read.list = append(read.list, derived)
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		reads.Go(func() {
			defer func() { <-slots }()
			derived, err := p.openOne(ctx, q, claim, derive)
			mu.Lock()
			defer mu.Unlock()
			read.note(claim, derived, err)
		})
	}
	reads.Wait()
	return read
}

// note notes what became of one entry.
func (o *opened) note(claim, derived Descriptor, err error) {
	switch about := fmt.Errorf("referrer %s: %w", claim.Digest, err); {
	case err == nil:
		o.list = append(o.list, derived)
	case errors.Is(err, referrers.ErrNotReferrer):
	case errors.Is(err, upstream.ErrNotFound):
		o.absent = append(o.absent, about)
	case errors.Is(err, errNoAlgorithm):
		o.missing(about) // nobody could pull it, so that it is not listed either
	case errors.Is(err, errUnopened), errors.Is(err, errTooLarge), errors.Is(err, referrers.ErrUnverified), errors.Is(err, referrers.ErrMalformed):
		o.missing(about)
		o.unread = append(o.unread, claim)
	default:
		if IsInconclusive(err) {
			about = fmt.Errorf("%w: %w", errUnreadable, about)
		}
		o.fail(about)
		o.isShort = true
		o.unread = append(o.unread, claim)
	}
}

func (p *Puller) openOne(ctx context.Context, q *question, claim Descriptor, derive func(Manifest) (Descriptor, error)) (_ Descriptor, err error) {
	defer panics.Catch("opening a referrer", &err)
	if err := checkVerifiable(claim.Digest); err != nil {
		return Descriptor{}, err
	}
	// What lists it now is newer than a remembered absence.
	p.negative.forget(manifestKey(q.repo, claim.Digest.String()), q.began)
	if !p.ledger.HasManifest(q.repo, claim.Digest) && !q.budget.grant(claim, p.isQuotaLow(q.upstream)) {
		return Descriptor{}, errUnopened
	}
	m, err := p.manifestByDigest(ctx, q.upstream, q.repo, claim.Digest)
	if err != nil {
		return Descriptor{}, err
	}
	return derive(m)
}

// openRest opens in the background what a lookup did not, so that the next ones
// need not. It stops while the upstream's rate limit runs low.
func (p *Puller) openRest(u Upstream, repo Repository, subject Digest, rest []Descriptor) {
	key := metadata.Key(repo, subject.String())
	if len(rest) == 0 || u.Offline || !p.lookups.beginOpening(key) {
		return
	}
	p.work.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxLookup, upstream.ErrTimeout)
		defer cancel()
		defer p.lookups.endOpening(key)
		if background.Wait(ctx, restAfter) != nil {
			return
		}
		var reads sync.WaitGroup
		defer reads.Wait()
		next := make(chan Descriptor)
		defer close(next)
		for range parallelRest {
			reads.Go(func() {
				defer panics.Report("opening a referrer") // the others go on
				for d := range next {
					var limited *upstream.RateLimitedError
					if _, err := p.manifestByDigest(ctx, u, repo, d.Digest); errors.As(err, &limited) {
						cancel() // the next question begins again
					}
				}
			})
		}
		for _, d := range rest {
			for p.isQuotaLow(u) {
				if background.Wait(ctx, time.Minute) != nil {
					return
				}
			}
			select {
			case next <- d:
			case <-ctx.Done():
				return
			}
		}
	})
}
