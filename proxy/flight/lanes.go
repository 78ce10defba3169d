package flight

import (
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

const (
	// judgeEvery is how often it is looked whether the requests side by side
	// are worth it, and judgeFor how long their rate is measured.
	judgeEvery = 250 * time.Millisecond
	judgeFor   = 500 * time.Millisecond
	// firstTrial is after how long one fewer is tried, and nextTrial, doubled each
	// time up to maxTrial, after how long again where a trial has changed nothing.
	firstTrial = 2 * time.Second
	nextTrial  = 5 * time.Second
	maxTrial   = time.Minute
	// restFor is how long nothing is requested beside what others wait for.
	restFor = time.Second
	// restingChunk is what the fill alone asks for at once meanwhile, in bytes:
	// small parts one after the other cost a round trip each.
	restingChunk = 64 << 20
	// maxBroken is how many requests beside others may break off.
	maxBroken = 3
	// slowRest is how long a request may still need, by its own rate, before
	// the half of what it has left is requested beside it.
	slowRest = 2 * time.Second
	// sideBySide is the size in bytes below which content is fetched over one
	// connection, unless the group's options say otherwise: what is on its way when
	// connections break is lost, once for each, and counts for more the smaller the
	// content is.
	sideBySide = 32 << 20
	// minHalf is the smallest such half, in bytes.
	minHalf = 1 << 20
)

// lanes is how many requests fetch the content side by side. All that are allowed
// begin at once. Then, now and again, one fewer or one more is tried for a moment:
// it stays so if the rate says that the request brings less, or more, than half of
// its share. The zero value is one.
type lanes struct {
	most int // that are allowed
	now  int // of which so many may be under way
	// likely is the size of the content that a manifest gives, in bytes; -1 if
	// none does.
	likely int64
	// rested is when the next one may begin.
	rested time.Time
	broken int // that have broken off

	since time.Time // what is measured has begun
	from  int64     // bytes received until then
	rate  float64   // before the trial, in bytes a second
	trial int       // -1: one fewer is tried, 1: one more
	down  bool      // what was tried last
	next  time.Time // when there is a trial again
	wait  time.Duration
}

func newLanes(most int, likely int64) lanes {
	return lanes{most: most, now: most, likely: likely, wait: nextTrial}
}

// count is how many may be under way.
func (l *lanes) count() int { return max(l.now, 1) }

// off has one request fetch everything from now on.
func (l *lanes) off() { l.most, l.now = 1, 1 }

// isResting says whether no further one begins now.
func (l *lanes) isResting(now time.Time) bool { return l.most > 1 && now.Before(l.rested) }

// rest has no further one begin for a moment.
func (l *lanes) rest(now time.Time) { l.rested = now.Add(restFor) }

// judge looks at what has been received, by so many requests that are under way.
func (l *lanes) judge(now time.Time, received int64, underWay int) {
	if l.most <= 1 {
		return
	}
	if l.next.IsZero() {
		l.next = now.Add(firstTrial)
	}
	if underWay != l.now {
		l.since = time.Time{}
		return
	}
	if l.since.IsZero() {
		l.since, l.from = now, received
		return
	}
	took := now.Sub(l.since)
	if took < judgeFor {
		return
	}
	rate := float64(received-l.from) / took.Seconds()
	l.since, l.from = now, received
	if l.trial != 0 {
		l.conclude(now, rate)
		return
	}
	if l.rate = rate; now.Before(l.next) {
		return
	}
	l.try()
}

// try begins a trial.
func (l *lanes) try() {
	l.trial = 1
	if l.now == l.most || l.now > 1 && !l.down {
		l.trial = -1
	}
	l.down = l.trial < 0
	l.now += l.trial
	l.since = time.Time{}
}

// conclude ends a trial.
func (l *lanes) conclude(now time.Time, rate float64) {
	tried := l.trial
	share := float64(max(l.now, l.now-tried)) // what one of so many should bring
	enough := rate >= l.rate*(1-1/(2*share))
	if tried > 0 {
		enough = rate >= l.rate*(1+1/(2*(share-1)))
	}
	l.trial = 0
	if enough {
		l.rate, l.next, l.down = rate, now, tried > 0 // the same once more
		if tried < 0 && l.now == 1 || tried > 0 && l.now == l.most {
			l.settle(now)
		}
		return
	}
	l.now -= tried
	l.since = time.Time{}
	l.settle(now)
}

func (l *lanes) settle(now time.Time) {
	l.next = now.Add(l.wait)
	l.wait = min(2*l.wait, maxTrial)
}

// chunk is how many bytes the fill, or a request beside it, asks for at once. The
// parts become smaller, so that all of them end at about the same time.
func (s *schedule) chunk() int64 {
	size := s.size()
	if s.lanes.isResting(time.Now()) {
		return restingChunk
	}
	if s.lanes.count() == 1 || size < s.side {
		if s.scattered {
			return segment
		}
		return math.MaxInt64
	}
	left := size - s.have.Len()
	for _, r := range s.requests {
		left -= s.claimedTo(r) - r.at
	}
	return s.clamp(left / int64(2*s.lanes.count()))
}

// claimedTo is the end of what a request is to bring. One that has no end brings
// what is near: the rest is requested beside it.
func (s *schedule) claimedTo(r *request) int64 {
	if !r.open || s.lanes.count() == 1 || s.inOrder || !r.fill {
		return r.to
	}
	if to := s.obstacle(r.at, r.to); to < r.to {
		return to
	}
	return min(r.to, r.at+s.share())
}

// share is how many bytes each request brings, if each brings two parts.
func (s *schedule) share() int64 { return s.clamp(s.size() / int64(2*s.lanes.count())) }

// size is the size in bytes as far as anybody knows it, or -1.
func (s *schedule) size() int64 {
	if s.total >= 0 {
		return s.total
	}
	return s.lanes.likely
}

// clamp bounds the size of a part.
func (s *schedule) clamp(n int64) int64 { return min(max(n, s.small), segment) }

// nextBeside is a request beside the fill, or nil. Before it is known whether the
// source has ranges, there is one at most.
func (s *schedule) nextBeside(now time.Time) *request {
	if !s.fill || s.inOrder || s.total < s.side || s.lanes.isResting(now) {
		return nil
	}
	beside, alone := 0, true
	for _, r := range s.requests {
		if r.beside > 0 {
			beside++
		}
		alone = alone && !r.fill
	}
	if alone || beside >= s.lanes.count()-1 || !s.ranged && beside > 0 {
		return nil
	}
	r := &request{fill: true, beside: 1}
	for slices.ContainsFunc(s.requests, func(other *request) bool { return other.beside == r.beside }) {
		r.beside++
	}
	if at := s.unclaimed(); at < s.end() {
		r.from, r.to = at, min(s.obstacle(at, s.end()), at+s.chunk())
	} else if r.from, r.to = s.slowHalf(now); r.from == r.to {
		return nil
	}
	r.at = r.from
	return r
}

// slowHalf is the second half of what a request still has to bring that is too
// slow for it.
func (s *schedule) slowHalf(now time.Time) (from, to int64) {
	longest := slowRest
	for _, r := range s.requests {
		left, took := r.to-r.at, now.Sub(r.began)
		if !r.fill || left < 2*minHalf || r.began.IsZero() || took < slowRest/2 || s.obstacle(r.at, r.to) < r.to {
			continue
		}
		rest := time.Duration(math.MaxInt64)
		if got := r.at - r.from; got > 0 {
			rest = time.Duration(float64(took) * float64(left) / float64(got))
		}
		if rest > longest {
			longest, from, to = rest, r.at+left/2, r.to
		}
	}
	return from, to
}

// judge looks whether the requests side by side are worth it.
func (s *schedule) judge(now time.Time) {
	underWay := 0
	for _, r := range s.requests {
		if r.fill {
			underWay++
		}
	}
	s.lanes.judge(now, s.have.Len(), underWay)
}

// brokeOff notes that a request beside the fill has ended with an error, and
// whether others would, too.
func (l *lanes) brokeOff(now time.Time, r *request, err error) (off bool) {
	switch {
	case errors.Is(err, upstream.ErrNoPlace), errors.Is(err, errYielded):
		l.rest(now)
		return false
	case r.at-r.from >= minProgress && isResumable(err):
		l.broken++
		return l.broken >= maxBroken
	}
	return true
}

// singleFor is how long the content of an upstream is fetched over one connection
// after requests side by side have failed.
const singleFor = 10 * time.Minute

// singles are the upstreams where requests side by side have failed lately.
type singles struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (s *singles) add(upstream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = make(map[string]time.Time)
	}
	s.until[upstream] = time.Now().Add(singleFor)
}

func (s *singles) has(upstream string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[upstream])
}

// besideEnded handles the failure of a request beside the fill. What it was to
// bring is fetched by others. d.mu is held.
func (d *download) besideEnded(r result) {
	if !d.plan.lanes.brokeOff(time.Now(), r.request, r.err) || d.plan.lanes.most == 1 {
		return
	}
	d.plan.lanes.off()
	d.group.single.add(d.source.Origin().Upstream)
	d.start.Log.Info("the rest of the blob is fetched over one connection", "error", r.err)
}

// hasLanes says whether there may be requests beside the fill.
func (d *download) hasLanes() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plan.fill && !d.plan.inOrder && d.plan.lanes.most > 1 && d.plan.total >= 2*d.plan.small && !d.plan.isWhole()
}

func (d *download) judge(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan.judge(now)
}
