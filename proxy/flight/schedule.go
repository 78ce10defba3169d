package flight

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
)

const (
	// maxRequests is how many requests for one content may be under way, but for
	// those beside the fill: the fill and one for what is far ahead of it, or,
	// without a fill, two for what readers wait for.
	maxRequests = 2
	// farAhead is the largest distance, in bytes, between a request for all the
	// rest and a byte that is worth waiting for.
	farAhead = 4 << 20
	// segment is the largest number of bytes of one request once readers ask
	// for ranges. What is within it is waited for, so that requests do not run
	// into one another: the bytes that are on their way when a connection is
	// closed cross the link for nothing.
	segment = 16 << 20
	// smallContent is the size in bytes below which content is fetched whole
	// whatever is asked for, unless the group's options say otherwise.
	smallContent = 4 << 20
	// lookShare is the share of the content, in percent, that may be asked for
	// by ranges before all of it is fetched. Partial updates of images read a
	// third (F4).
	lookShare = 60
	// extraShare is the share of what readers have asked for that may be fetched
	// besides, a fifth, and extraBytes how much in any case: a gap between two
	// ranges costs less than a request.
	extraShare = 5
	extraBytes = 512 << 10
	// passOver is the share of the content that may be received a second time,
	// a 64th: the fill passes over pieces that are there, so that it is not
	// closed, and does not make a request for each gap between small ones.
	passOver   = 64
	smallPiece = 64 << 10
)

// A schedule decides which part of the content is requested next. It is what a
// download knows about bytes, without any of them.
type schedule struct {
	total int64 // size of the content in bytes; -1 while it is not known
	sizes
	have  cache.Spans
	asked cache.Spans // by readers of ranges, and what was there before
	fill  bool        // all of it is wanted
	// insisted means that a reader wants all of it: without it, the fill is
	// only to be expected, and what is there is served if it fails. noFill
	// means that it has failed.
	insisted, noFill bool
	ranges
	lanes    lanes
	requests []*request
	spent
	// scattered means that pieces have been requested ahead of the fill. It
	// then goes by segments, so that it is not on its way into them.
	scattered bool
}

// sizes are those in bytes from which content is fetched otherwise.
type sizes struct {
	small int64 // below which all of it is wanted, and of the smallest part
	side  int64 // from which on it is fetched side by side
}

// ranges is what is known of whether the source has ranges.
type ranges struct {
	// inOrder means that only a request from the start on gets anywhere: the
	// source has no ranges (F38), or does not tell the size.
	inOrder bool
	// doubtful means that the source had no ranges lately. One is then asked for
	// by the only request alone: if the answer is everything, it is the fill.
	doubtful bool
	// ranged means that the source has answered with a range.
	ranged bool
}

// spent is what is received besides what readers ask for, in bytes.
type spent struct {
	twice int64 // received although it was there
	extra int64 // requested although no reader asked for it
}

// request is a part of the content that is being received.
type request struct {
	from, at, to int64 // to is math.MaxInt64 if the end is not known
	fill         bool
	beside       int       // its number, if it is beside the fill, from 1 on
	open         bool      // it has no end
	began        time.Time // receiving
	// stale means that what it brings belongs to content that has changed.
	stale bool
	// queued means that it waits for a place at the source: nothing is sent yet.
	queued bool
	// gaveAway means that the disk may still read what was written last.
	gaveAway bool
	place    place // while it has an answer
	end      context.CancelFunc
}

// wait is what one reader still needs, in the order in which it reads.
type wait struct {
	spans []cache.Span
	// toEnd means that it reads all the rest.
	toEnd bool
	// patient readers wait for the fill, however far away it is.
	patient bool
}

// ask notes that ranges are to be read, and starts the fill if that makes it due.
func (s *schedule) ask(spans []cache.Span) {
	for _, span := range spans {
		s.asked.Add(span)
	}
	s.consider()
}

// insist starts the fill for a reader.
func (s *schedule) insist() { s.fill, s.insisted = true, true }

// consider starts the fill where it is due.
func (s *schedule) consider() {
	if s.total >= 0 && !s.noFill && (s.total < s.small || s.asked.Len() > s.total/100*lookShare) {
		s.fill = true
	}
}

// isQueued says whether all that is requested waits for a place at the source.
func (s *schedule) isQueued() bool {
	return len(s.requests) > 0 && !slices.ContainsFunc(s.requests, func(r *request) bool { return !r.queued })
}

// prefix is how many bytes there are from the start on.
func (s *schedule) prefix() int64 { return s.have.End(0) }

// isWhole says whether everything is there.
func (s *schedule) isWhole() bool { return s.total >= 0 && s.prefix() >= s.total }

// next is the request to start now, if there is one. The waits come in the order
// in which they are served; index is that of the wait the request is for, or -1.
func (s *schedule) next(waits []wait) (r *request, index int) {
	if (s.total < 0 || s.doubtful) && len(s.requests) > 0 || s.isWhole() {
		return nil, -1
	}
	fills, ahead := 0, 0
	for _, r := range s.requests {
		switch {
		case !r.fill:
			ahead++
		case r.beside == 0:
			fills++
		}
	}
	if fills+ahead < maxRequests {
		if !s.inOrder && (!s.fill || ahead == 0) {
			for i, w := range waits {
				if r := s.nextAhead(w, waits); r != nil {
					return r, i
				}
			}
		}
		if s.fill && fills == 0 {
			if r := s.nextFill(); r != nil {
				return r, -1
			}
		}
	}
	return s.nextBeside(time.Now()), -1
}

// nextAhead is a request for what a reader needs and nobody fetches.
func (s *schedule) nextAhead(w wait, all []wait) *request {
	if w.patient {
		return nil
	}
	for _, span := range w.spans {
		span.To = min(span.To, s.end())
		for missing := s.have.Missing(span); missing.Len() > 0; missing = s.have.Missing(span) {
			if awaited := s.awaitedTo(missing.From, missing.To); awaited > missing.From {
				if s.total < 0 {
					return nil // what follows may be past the end
				}
				span.From = awaited // what follows may not be on its way
				continue
			}
			r := &request{from: missing.From, at: missing.From, to: s.obstacle(missing.From, missing.To)}
			s.scattered = s.scattered || r.from > s.prefix()
			r.open = w.toEnd && r.to == s.end()
			if !r.open {
				r.to = s.merge(r.from, min(r.to, r.from+segment), all)
			}
			return r
		}
	}
	return nil
}

// merge extends a request over what follows and is wanted too.
func (s *schedule) merge(from, to int64, waits []wait) int64 {
	var wanted cache.Spans
	for _, w := range waits {
		if w.patient {
			continue
		}
		for _, span := range w.spans {
			wanted.Add(span)
		}
	}
	for {
		piece := s.have.End(to) - to // is received again, if it is small
		if piece > smallPiece || !s.mayRepeat(piece) || s.isAt(to) {
			return to
		}
		at := wanted.End(to) // what touches is wanted without a gap
		gap := int64(0)
		if at == to {
			following, ok := wanted.Next(to)
			if !ok {
				return to
			}
			gap, at = following.From-to, following.To
		}
		at = min(at, from+segment, s.end())
		if at <= to+gap || s.obstacle(to, at) < at || s.extra+gap > max(s.asked.Len()/extraShare, extraBytes) {
			return to
		}
		s.extra += gap
		to = at
	}
}

// nextFill is the request for what is missing first and is not on its way.
func (s *schedule) nextFill() *request {
	at := s.prefix()
	if s.inOrder {
		return &request{from: at, at: at, to: s.end(), fill: true, open: true}
	}
	if s.total < 0 && s.lanes.likely >= s.side && s.lanes.count() > 1 && !s.doubtful {
		// So that no request is cut off where those beside it begin.
		return &request{to: s.chunk(), fill: true}
	}
	if at = s.unclaimed(); at >= s.end() {
		return nil
	}
	r := &request{from: at, at: at, to: s.obstacle(at, s.end()), fill: true}
	for planned := int64(0); r.to < s.end(); {
		piece := s.have.End(r.to) - r.to
		planned += piece
		if piece == 0 || piece > smallPiece || s.isAt(r.to+piece) || !s.mayRepeat(planned) {
			break
		}
		r.to = s.obstacle(r.to+piece, s.end())
	}
	r.to = at + min(r.to-at, s.chunk())
	r.open = r.to == s.end()
	return r
}

// unclaimed is where the first byte is that is missing and not on its way.
func (s *schedule) unclaimed() int64 {
	at := s.prefix()
	for moved := true; moved; {
		moved = false
		for _, r := range s.requests {
			if to := s.claimedTo(r); r.at <= at && at < to {
				at, moved = s.have.End(to), true
			}
		}
	}
	return at
}

func (s *schedule) end() int64 {
	if s.total < 0 {
		return math.MaxInt64
	}
	return s.total
}

// obstacle is the end of what can be requested from at on, up to to: where there
// is something, or another request.
func (s *schedule) obstacle(at, to int64) int64 {
	if next, ok := s.have.Next(at); ok && next.From > at {
		to = min(to, next.From)
	}
	for _, r := range s.requests {
		if r.at > at {
			to = min(to, r.at)
		}
	}
	return to
}

// isAwaited says whether a byte is on its way, near enough to wait for it.
func (s *schedule) isAwaited(at int64) bool { return s.awaitedTo(at, at+1) > at }

// awaitedTo is the end of what is on its way from at on, up to to, as far as it
// is near enough to wait for it.
func (s *schedule) awaitedTo(at, to int64) int64 {
	if s.inOrder && s.fill {
		return to
	}
	for _, r := range s.requests {
		reach := r.to
		if r.open {
			reach = min(r.to, r.at+farAhead)
		}
		if r.at <= at && at < reach {
			return min(to, reach)
		}
	}
	// The fill may be about to start.
	if prefix := s.prefix(); s.fill && at >= prefix && at < prefix+farAhead && !slices.ContainsFunc(s.requests, isFill) {
		return min(to, prefix+farAhead)
	}
	return at
}

// room is how many bytes a request may receive now: up to its end, or to the
// next obstacle. If there is none, twice is how many bytes it receives again
// in order to go on behind them; if that is 0 too, it is over.
func (s *schedule) room(r *request) (n, twice int64) {
	end := s.have.End(r.at)
	if end == r.at {
		return s.obstacleFor(r) - r.at, 0
	}
	twice = min(end, r.to) - r.at
	if s.inOrder || end < r.to && !s.isAt(end) && s.mayRepeat(twice) {
		return 0, twice
	}
	return 0, 0
}

// mayRepeat says whether n more bytes may be received a second time.
func (s *schedule) mayRepeat(n int64) bool { return s.twice+n <= s.total/passOver }

// obstacleFor is where a request has to stop, or to pass over something.
func (s *schedule) obstacleFor(r *request) int64 {
	to := r.to
	if next, ok := s.have.Next(r.at); ok {
		to = min(to, next.From)
	}
	for _, other := range s.requests {
		if !s.inOrder && other != r && other.at > r.at {
			to = min(to, other.at)
		}
	}
	return to
}

// isAt says whether a request is about to receive what is at that offset.
func (s *schedule) isAt(at int64) bool {
	return slices.ContainsFunc(s.requests, func(r *request) bool { return r.at == at && at < r.to })
}

// remove removes a request that is over.
func (s *schedule) remove(r *request) {
	s.requests = slices.DeleteFunc(s.requests, func(other *request) bool { return other == r })
}

// isFill says whether a request is the fill itself.
func isFill(r *request) bool { return r.fill && r.beside == 0 }
