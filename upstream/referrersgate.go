package upstream

import (
	"errors"
	"fmt"
	"time"
)

const (
	// silentAfter is how long a request to the Referrers API may take before
	// other requests do not wait for the same.
	silentAfter = 5 * time.Second
	// subjectFailureThreshold is how many requests about one subject have to
	// fail in a row. A single page in place of an answer is often followed by an
	// answer.
	subjectFailureThreshold = 2
	// referrersFailureThreshold is about how many subjects requests have to fail,
	// with no answer about any other.
	referrersFailureThreshold = 3
	// maxFailingSubjects is about how many subjects a failure may concern only
	// the subject. If there are more, with no answer in between, it is the API.
	maxFailingSubjects = 8
	// maxSubjectGates limits how many subjects have a gate of their own.
	maxSubjectGates = 1 << 10
)

// referrersGate is the gate of an endpoint's Referrers API, which may fail or
// hang while everything else works.
//
// An API may also fail for one subject only: a mirror answers 503 for one of
// which it knows nothing. So each subject has a gate of its own beside that of
// the API, which only closes for what says something about all subjects.
//
//   - Open: every request passes. Failures about several subjects close it for a
//     second. A request that takes long closes it for half a minute while it
//     still runs. Two failures about one subject close that subject's gate.
//   - Closed: no request passes; the error says that nothing is known.
//   - Half open, when that time is over: one request is the probe, and no other
//     passes meanwhile. If it fails, the gate is closed for twice as long as
//     before, at most half a minute. If it says nothing about the API, as when it
//     is about a subject that failed before, the next request is the probe.
//
// Any answer opens the gate, no matter when: a list that took long proves that
// the API works.
type referrersGate struct {
	restingGate
	answeredAt  time.Time        // when the API answered last
	failing     map[content]bool // the subjects about which it has failed since then
	failingRepo string           // the last repository that got a 500
	subjects    map[content]*subjectGate
}

// restingGate is a gate that is closed for longer each time.
type restingGate struct {
	gate
	closedFor time.Duration
	reason    string // why it is closed
}

// subjectGate is the gate of one subject.
type subjectGate struct {
	restingGate
	failures int // in a row
}

func (g *restingGate) close(why string, rest time.Duration) {
	g.gate, g.closedFor, g.reason = closedFor(rest), rest, why
}

// closeLonger closes the gate for twice as long as the last time.
func (g *restingGate) closeLonger(why string) {
	g.close(why, min(max(2*g.closedFor, minOpen), maxOpen))
}

// rejection is the error of a request about a subject that may not pass, or nil.
func (r *referrersGate) rejection(of content) error {
	if _, closed := r.closed(); closed {
		return fmt.Errorf("%w: its Referrers API does not answer: %s", ErrUnavailable, r.reason)
	}
	if s := r.subjects[of]; s != nil {
		if _, closed := s.closed(); closed {
			return fmt.Errorf("%w: its Referrers API does not answer about this subject: %s", ErrUnavailable, s.reason)
		}
	}
	return nil
}

// pass is called for a request about a subject that may pass. It reports whether
// the request is a probe of the API, and of the subject.
func (r *referrersGate) pass(of content) (probesAPI, probesSubject bool) {
	if s := r.subjects[of]; s != nil {
		probesSubject = s.gate.pass()
	}
	return r.gate.pass(), probesSubject
}

// endProbes lets other requests probe the gates that a request has probed.
func (r *referrersGate) endProbes(p *admission) {
	if p.probesReferrers {
		r.probing = false
	}
	if s := r.subjects[p.subject]; s != nil && p.probesSubject {
		s.probing = false
	}
}

// record records the result of a request that was not ended by its caller.
func (r *referrersGate) record(p *admission, err error) {
	switch {
	case isRegistryAnswer(err):
		r.answered(p)
	case p.silent, !isReferrersFailure(err):
		// It has been recorded already, or says nothing about the API.
	default:
		s := r.subject(p.subject)
		if s.failures++; s.failures >= subjectFailureThreshold && (p.probesSubject || s.isOpen()) {
			s.closeLonger(err.Error())
		}
		r.recordFailure(p, err)
	}
}

// answered is called when the API has answered a request.
func (r *referrersGate) answered(p *admission) {
	delete(r.subjects, p.subject)
	if !r.until.IsZero() {
		r.subjects = nil // it was the API that failed about them
	}
	*r = referrersGate{answeredAt: time.Now(), subjects: r.subjects}
}

// recordFailure records what a failure says about the API.
func (r *referrersGate) recordFailure(p *admission, err error) {
	var failing *internalError
	switch {
	case !p.probesReferrers && !r.isOpen():
		return // it has been recorded already
	case !p.probesReferrers && errors.As(err, &failing) && r.failingRepo == failing.repo:
		return // it may concern the repository only
	case !r.isNews(p.subject):
		return
	}
	if failing != nil {
		r.failingRepo = failing.repo
	}
	if p.probesReferrers || len(r.failing) >= referrersFailureThreshold {
		r.closeLonger(toOthers(err).Error())
	}
}

// isNews notes that a request about a subject has failed. It reports whether
// that says something about the API, and not only about this subject.
func (r *referrersGate) isNews(subject content) bool {
	if r.failing[subject] {
		return false
	}
	if !r.until.IsZero() && r.isOpen() {
		r.gate, r.failing = gate{}, nil // it was closed long ago
	}
	if r.failing == nil {
		r.failing = make(map[content]bool)
	}
	if len(r.failing) < maxFailingSubjects {
		r.failing[subject] = true
	}
	return true
}

// subject returns the gate of a subject.
func (r *referrersGate) subject(of content) *subjectGate {
	if s := r.subjects[of]; s != nil {
		return s
	}
	if r.subjects == nil {
		r.subjects = make(map[content]*subjectGate)
	}
	for old := range r.subjects {
		if len(r.subjects) < maxSubjectGates {
			break
		}
		delete(r.subjects, old)
	}
	s := &subjectGate{}
	r.subjects[of] = s
	return s
}

// markSilent records that a request takes long.
func (b *breaker) markSilent(p *admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ended {
		return
	}
	if p.probesHost {
		p.probesHost, b.host.probing = false, false // other requests to the host do not wait for this one
		b.probeEnded()
	}
	if b.referrers.answeredAt.After(p.started) {
		return // other requests are answered, so it is this subject that takes long
	}
	why := fmt.Sprintf("no response for %s", silentAfter)
	b.referrers.endProbes(p)
	if b.referrers.isNews(p.subject) {
		b.referrers.close(why, maxOpen)
	}
	b.referrers.subject(p.subject).close(why, maxOpen)
	p.silent, p.probesReferrers, p.probesSubject = true, false, false
}

// pageArrived records that a page of a list has come: the API works, whatever
// becomes of the rest of this list.
func (b *breaker) pageArrived(p *admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ended {
		return
	}
	b.endProbes(referrersRequests, p)
	p.probesHost, p.probesReferrers, p.probesSubject = false, false, false
	p.silent, p.paged = false, true
	b.referrers.answered(p)
	b.host.reset()
}

// isRegistryAnswer reports whether the endpoint itself answered a request: with
// a list, with another response that a Referrers API may give, or as an
// endpoint without it would.
func isRegistryAnswer(err error) bool {
	var s *statusError
	var pages *listError
	return err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrStale) || errors.As(err, &pages) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrInvalidResponse) && errors.As(err, &s) && s.form == formRegistry
}

// isReferrersFailure reports whether a request got no answer for a reason that
// may be the API's. Rate limits and denials concern the client, and unreachable
// hosts, storage and token servers have their own failures.
func isReferrersFailure(err error) bool {
	var sick *unhealthyError
	unreachable := errors.As(err, &sick) && !isStatus(err)
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrThirdParty) && !unreachable && !isRegistryAnswer(err)
}
