package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// breaksAfter is how many signs of illness in a row open a breaker.
	breaksAfter = 5
	// firstRest and longestRest bound how long it stays open.
	firstRest   = time.Second
	longestRest = 30 * time.Second
	// limitProbe is how often a limit is asked after that is to last longer.
	limitProbe = time.Minute
)

// question is a kind of question, as far as registries limit or refuse them
// apart: Docker Hub counts GETs of manifests alone (W42).
type question int

const (
	headOfManifest question = iota
	getOfManifest
	ofBlob
	ofReferrers
	// ofReferrersTag is any question about a tag that carries referrers. Nobody
	// pulls those: that they are limited must not keep images from being pulled.
	ofReferrersTag
	ofTags
	questions
)

// about is the kind of a question about a manifest.
func (q question) about(ref string) question {
	if strings.HasPrefix(ref, "sha256-") || strings.HasPrefix(ref, "sha512-") {
		return ofReferrersTag
	}
	return q
}

// Breaker answers for an endpoint that is unwell, for a kind of question that
// it limits, and for a Referrers API that fails: no request goes out before it
// is time, then one tries, and the others still get the breaker's answer.
//
// Unwell is a host that can't be reached, that answers 502, 503 or 504, or 500
// for one repository after another. What an endpoint says of one repository or
// of one request, slowness, and what storage or a token server does, says
// nothing of the host; nor do the statuses of its Referrers API, which have a
// gate of their own.
func Breaker(next Registry) Registry { return &breaker{next: next} }

type breaker struct {
	next Registry

	mu      sync.Mutex
	signs   int             // of illness, in a row
	failing map[string]bool // the repositories among them that answered 500
	last    error
	ill     gate
	rest    time.Duration
	limits  [questions]gate
	route   route // of the Referrers API
}

// pass is a request under way, with the gates that it is the probe of.
type pass struct {
	ill, limit, route bool

	began  time.Time
	silent bool // it has had no answer for long, which is noted
	over   bool
}

func (b *breaker) enter(q question) (*pass, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refuse(q); err != nil {
		return nil, err
	}
	return &pass{
		ill: b.ill.enter(), limit: b.limits[q].enter(), route: q == ofReferrers && b.route.enter(), began: time.Now(),
	}, nil
}

// refuse is the answer to a question that may not pass. b.mu is held.
func (b *breaker) refuse(q question) error {
	if left, closed := b.limits[q].closed(); closed {
		return &RateLimitedError{RetryAfter: left}
	}
	if _, closed := b.route.closed(); closed && q == ofReferrers {
		return fmt.Errorf("%w: its Referrers API gave no answer: %s", ErrUnavailable, b.route.why)
	}
	if _, closed := b.ill.closed(); closed {
		return fmt.Errorf("%w: its last %d answers failed: %w", ErrUnavailable, b.signs, b.last)
	}
	return nil
}

func (b *breaker) refusal(q question) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refuse(q)
}

// refusal is what a Registry would answer to a kind of question without asking
// anybody, nil where it would ask.
func refusal(r Registry, q question) error {
	if g, ok := r.(interface{ refusal(q question) error }); ok {
		return g.refusal(q)
	}
	return nil
}

// leave notes how a request ended.
func (b *breaker) leave(ctx context.Context, q question, p *pass, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.over = true
	if p.ill {
		b.ill.probing = false
	}
	if p.limit {
		b.limits[q].probing = false
	}
	if p.route {
		b.route.probing = false
	}
	if q == ofReferrers && (err == nil || ctx.Err() == nil) {
		b.route.note(p, err)
	}
	var limited *RateLimitedError
	var sick *unwellError
	var failing *failingError
	switch {
	case err != nil && ctx.Err() != nil:
		// The caller left: that says nothing about the upstream.
	case errors.As(err, &limited):
		if !limited.elsewhere {
			now := time.Now()
			b.limits[q] = gate{until: now.Add(limited.RetryAfter), probe: now.Add(limitProbe)}
		}
		b.well()
	case errors.Is(err, ErrElsewhere), errors.Is(err, ErrBadAnswer):
		b.well()
	case q == ofReferrers && failedRoute(err):
		// The route's own trouble.
	case errors.As(err, &sick):
		b.sign(err)
	case errors.As(err, &failing):
		switch {
		case p.ill:
			b.close(err)
		case !b.failing[failing.repo]:
			b.sign(err)
			if b.failing == nil {
				b.failing = make(map[string]bool)
			}
			b.failing[failing.repo] = true
		}
	case errors.Is(err, ErrUnavailable):
		if p.ill {
			b.close(err) // it is not known to be well
		}
	default:
		b.limits[q] = gate{}
		b.well()
	}
	if p.limit && !b.limits[q].until.IsZero() {
		b.limits[q].probe = time.Now().Add(limitProbe) // whatever it was, the limit may last
	}
}

// sign notes a sign of illness. b.mu is held.
func (b *breaker) sign(err error) {
	b.signs++
	if b.last = err; b.signs >= breaksAfter {
		b.close(err)
	}
}

// close lets nobody pass for a while. b.mu is held.
func (b *breaker) close(err error) {
	b.last = err
	b.rest = min(max(2*b.rest, firstRest), longestRest)
	b.ill = closedFor(b.rest)
}

// well forgets all signs: the host has answered. b.mu is held.
func (b *breaker) well() {
	b.signs, b.failing, b.rest, b.ill, b.last = 0, nil, 0, gate{}, nil
}

func guarded[T any](ctx context.Context, b *breaker, q question, fn func() (T, error)) (T, error) {
	p, err := b.enter(q)
	if err != nil {
		var none T
		return none, err
	}
	answer, err := fn()
	b.leave(ctx, q, p, err)
	return answer, err
}

func (b *breaker) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return guarded(ctx, b, headOfManifest.about(ref), func() (Descriptor, error) { return b.next.Resolve(ctx, repo, ref) })
}

func (b *breaker) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return guarded(ctx, b, getOfManifest.about(ref), func() (Content, error) { return b.next.Manifest(ctx, repo, ref) })
}

func (b *breaker) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return guarded(ctx, b, ofBlob, func() (Descriptor, error) { return b.next.ResolveBlob(ctx, repo, d) })
}

func (b *breaker) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return guarded(ctx, b, ofBlob, func() (Content, error) { return b.next.Blob(ctx, repo, d, from, n) })
}

func (b *breaker) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	p, err := b.enter(ofReferrers)
	if err != nil {
		return nil, err
	}
	watch := time.AfterFunc(silentAfter, func() { b.silence(p) })
	defer watch.Stop()
	all, err := b.next.Referrers(ctx, repo, subject)
	b.leave(ctx, ofReferrers, p, err)
	return all, err
}

func (b *breaker) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return guarded(ctx, b, ofTags, func() (TagList, error) { return b.next.Tags(ctx, repo, page) })
}
