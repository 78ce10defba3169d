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
	// failureThreshold is how many failures in a row trip a breaker.
	failureThreshold = 5
	// minOpen and maxOpen limit how long a tripped breaker rejects requests.
	minOpen = time.Second
	maxOpen = 30 * time.Second
	// limitProbeInterval is how often a request probes a rate limit that is
	// longer.
	limitProbeInterval = time.Minute
	// slowProbe is how long other requests wait for a probe: about as long as it
	// takes to find out, three times, that a host can't be reached.
	slowProbe = 18 * time.Second
	// probeWait is how long a request for referrers waits for the end of a probe.
	// What is asked about one subject are several requests at a time, and the
	// answer is complete only if all are answered. A pull does not wait: it has
	// other hosts to go to.
	probeWait = 2 * time.Second
)

// requestClass is a class of requests that registries limit or refuse
// separately: Docker Hub only counts GETs of manifests (W42).
type requestClass int

const (
	manifestHeads requestClass = iota
	manifestGets
	blobRequests
	referrersRequests
	// referrersTagRequests are all requests for a tag that lists referrers. No
	// client pulls those, and a limit on them must not block pulls of images.
	referrersTagRequests
	tagListRequests
	requestClasses
)

// forReference returns the class of a request for a manifest.
func (q requestClass) forReference(ref string) requestClass {
	if strings.HasPrefix(ref, "sha256-") || strings.HasPrefix(ref, "sha512-") {
		return referrersTagRequests
	}
	return q
}

// requestKind is what requests are for. What a status says of one kind says
// nothing of the others: a registry may fail to list referrers or tags while
// every image can be pulled, and the reverse.
type requestKind int

const (
	images requestKind = iota
	referrersTags
	tagLists
	referrersAPI // has a gate of its own
	requestKinds
)

func (q requestClass) kind() requestKind {
	switch q {
	case referrersRequests:
		return referrersAPI
	case referrersTagRequests:
		return referrersTags
	case tagListRequests:
		return tagLists
	}
	return images
}

// Breaker rejects requests to an endpoint that is unhealthy, of a class that
// the endpoint limits, or to a Referrers API that fails. After a while one
// request probes the endpoint; the others are still rejected until it succeeds.
//
// A host is unhealthy if it can't be reached, or if it answers 502, 503 or 504
// where an image is pulled. A kind of requests is, if it is answered 500 for one
// repository after another, or 502, 503 or 504. Nothing else counts: not what
// it says about one repository or one request, not slowness, and not failures
// of storage or of a token server. Statuses of its Referrers API count only for
// that API, which has a gate of its own.
func Breaker(next Endpoint) Endpoint { return &breaker{next: next} }

type breaker struct {
	next Endpoint

	mu        sync.Mutex
	host      health
	kinds     [requestKinds]health
	limits    [requestClasses]gate
	referrers referrersGate
	probed    chan struct{} // closed when the next probe ends; nil if nobody waits for that
}

// admission is a request in progress, with the gates that it probes.
type admission struct {
	probesHost, probesKind, probesLimit bool
	probesReferrers, probesSubject      bool

	subject content // of a request for referrers
	started time.Time
	silent  bool // it has taken long, which has been recorded
	paged   bool // a page of a list has come
	ended   bool
}

// waitsForProbe reports whether a request waits for the end of a probe.
func (q requestClass) waitsForProbe() bool {
	return q == referrersRequests || q == referrersTagRequests
}

// admit admits a request, for referrers of a subject.
func (b *breaker) admit(ctx context.Context, q requestClass, subject content) (*admission, error) {
	var late *time.Timer
	for {
		p, probed, err := b.tryAdmit(q, subject)
		if !errors.Is(err, ErrProbed) || !q.waitsForProbe() {
			return p, err
		}
		if late == nil {
			late = time.NewTimer(probeWait)
			defer late.Stop()
		}
		select {
		case <-probed:
		case <-late.C:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryAdmit admits a request unless it may not pass. If that is because of a
// probe, probed is closed when the next probe ends.
func (b *breaker) tryAdmit(q requestClass, subject content) (p *admission, probed <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.rejectionLocked(q, subject); err != nil {
		if b.probed == nil {
			b.probed = make(chan struct{})
		}
		return nil, b.probed, err
	}
	p = &admission{
		probesHost: b.host.pass(), probesKind: b.kinds[q.kind()].pass(), probesLimit: b.limits[q].pass(),
		subject: subject, started: time.Now(),
	}
	if q == referrersRequests {
		p.probesReferrers, p.probesSubject = b.referrers.pass(subject)
	}
	return p, nil, nil
}

// probeEnded wakes the requests that wait for the end of a probe. b.mu is held.
func (b *breaker) probeEnded() {
	if b.probed != nil {
		close(b.probed)
		b.probed = nil
	}
}

// rejectionLocked returns the error of a request that may not pass, or nil.
// b.mu is held.
func (b *breaker) rejectionLocked(q requestClass, subject content) error {
	if left, closed := b.limits[q].closed(); closed {
		return &RateLimitedError{RetryAfter: left}
	}
	if q == referrersRequests {
		if err := b.referrers.rejection(subject); err != nil {
			return err
		}
	}
	for _, h := range []*health{&b.host, &b.kinds[q.kind()]} {
		if _, closed := h.closed(); closed {
			why := ErrUnavailable
			if h.probing {
				why = ErrProbed
			}
			return &restingError{fmt.Errorf("%w: its last %d requests failed: %w", why, h.failures, h.lastErr)}
		}
	}
	return nil
}

func (b *breaker) rejection(q requestClass) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rejectionLocked(q, content{})
}

// rejecter is a Registry that rejects requests without sending them.
type rejecter interface{ rejection(q requestClass) error }

var _ rejecter = &breaker{}

// rejection returns the error with which a Registry would reject a class of
// requests without sending them, or nil.
func rejection(r Registry, q requestClass) error {
	if r, ok := r.(rejecter); ok {
		return r.rejection(q)
	}
	return nil
}

// done records the result of a request.
func (b *breaker) done(ctx context.Context, q requestClass, p *admission, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.ended = true
	kind := &b.kinds[q.kind()]
	b.endProbes(q, p)
	if q == referrersRequests && !p.paged && (err == nil || ctx.Err() == nil) {
		b.referrers.record(p, err)
	}
	var limited *RateLimitedError
	var sick *unhealthyError
	var failing *internalError
	switch {
	case err != nil && ctx.Err() != nil && !errors.As(err, &sick):
		// The caller gave up, which says nothing about the upstream.
	case errors.As(err, &limited):
		if !limited.elsewhere {
			now := time.Now()
			b.limits[q] = gate{until: now.Add(limited.RetryAfter), probe: now.Add(limitProbeInterval)}
		}
		b.answered(kind)
	case errors.Is(err, ErrThirdParty), errors.Is(err, ErrInvalidResponse), errors.Is(err, ErrStale), errors.Is(err, ErrCrowded):
		b.answered(kind)
	case q == referrersRequests && isReferrersFailure(err):
		// A failure of the API only.
	case errors.As(err, &sick):
		if isStatus(err) && q.kind() != images {
			kind.record(err)
		} else {
			b.host.record(err)
		}
	case errors.As(err, &failing):
		if p.probesHost && q.kind() == images {
			b.host.trip(err) // it has not proved healthy
		}
		if p.probesKind {
			kind.trip(err)
		} else {
			kind.recordOf(failing.repo, err)
		}
	case IsSlow(err):
		// It took the request.
		if p.probesHost {
			b.host.reset()
		}
		if p.probesKind {
			kind.reset()
		}
	case errors.Is(err, ErrUnavailable):
		if p.probesHost {
			b.host.trip(err)
		}
		if p.probesKind {
			kind.trip(err)
		}
	default:
		b.limits[q] = gate{}
		b.answered(kind)
	}
	if p.probesLimit && !b.limits[q].until.IsZero() {
		b.limits[q].probe = time.Now().Add(limitProbeInterval) // the limit may still apply
	}
}

// endProbes lets other requests probe the gates that a request has probed. b.mu
// is held.
func (b *breaker) endProbes(q requestClass, p *admission) {
	if p.probesHost {
		b.host.probing = false
	}
	if p.probesKind {
		b.kinds[q.kind()].probing = false
	}
	if p.probesHost || p.probesKind {
		b.probeEnded()
	}
	if p.probesLimit {
		b.limits[q].probing = false
	}
	b.referrers.endProbes(p)
}

// answered forgets all failures of the host and of a kind of requests. b.mu is
// held.
func (b *breaker) answered(kind *health) {
	b.host.reset()
	kind.reset()
}

func throughBreaker[T any](ctx context.Context, b *breaker, q requestClass, fn func() (T, error)) (T, error) {
	p, err := b.admit(ctx, q, content{})
	if err != nil {
		var none T
		return none, err
	}
	if p.probesHost || p.probesKind || p.probesLimit {
		watch := time.AfterFunc(slowProbe, func() { b.endProbe(q, p) })
		defer watch.Stop()
	}
	answer, err := fn()
	b.done(ctx, q, p, err)
	return answer, err
}

// endProbe ends a probe that takes long. A host that can't be reached has been
// noticed by now, so this one is slow, and other requests do not wait for that.
func (b *breaker) endProbe(q requestClass, p *admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ended {
		return
	}
	b.probeEnded()
	if p.probesHost {
		p.probesHost = false
		b.host.reset()
	}
	if p.probesKind {
		p.probesKind = false
		b.kinds[q.kind()].reset()
	}
	if p.probesLimit {
		p.probesLimit, b.limits[q].probing = false, false
	}
}

func (b *breaker) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return throughBreaker(ctx, b, manifestHeads.forReference(ref), func() (Descriptor, error) { return b.next.Resolve(ctx, repo, ref) })
}

func (b *breaker) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return throughBreaker(ctx, b, manifestGets.forReference(ref), func() (Content, error) { return b.next.Manifest(ctx, repo, ref) })
}

func (b *breaker) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return throughBreaker(ctx, b, blobRequests, func() (Descriptor, error) { return b.next.ResolveBlob(ctx, repo, d) })
}

func (b *breaker) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return throughBreaker(ctx, b, blobRequests, func() (Content, error) { return b.next.Blob(ctx, repo, d, from, n) })
}

func (b *breaker) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	p, err := b.admit(ctx, referrersRequests, content{repo, subject.String()})
	if err != nil {
		return ReferrersList{}, err
	}
	watch := time.AfterFunc(silentAfter, func() { b.markSilent(p) })
	defer watch.Stop()
	// It is a page that takes long, and not a list of a hundred pages.
	paged := withPages(ctx, func() {
		watch.Reset(silentAfter)
		b.pageArrived(p)
	})
	all, err := b.next.Referrers(paged, repo, subject)
	b.done(ctx, referrersRequests, p, err)
	return all, err
}

func (b *breaker) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return throughBreaker(ctx, b, tagListRequests, func() (TagList, error) { return b.next.Tags(ctx, repo, page) })
}
