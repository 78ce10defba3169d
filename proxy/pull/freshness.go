package pull

import (
	"time"

	"github.com/entrepot/entrepot/cache/memory"
)

// Freshness is what a client wishes of the age of an answer (RFC 9111, section
// 5.2.1: no-cache, max-age). The zero Freshness is no wish: then the rules of
// the configuration decide alone. A wish never makes anything fresh that is not
// fresh by those rules.
//
// It is a wish, and not an order. An upstream is asked anew for its sake at most
// once in renewInterval for each tag or subject, and all who wish it join that
// request. What could not be asked anew is served as stale.
type Freshness struct {
	wished bool
	maxAge time.Duration
}

// NoOlderThan is the wish for an answer of at most that age: zero for
// no-cache. A negative age is no wish.
func NoOlderThan(age time.Duration) Freshness { return Freshness{wished: age >= 0, maxAge: age} }

const (
	// renewInterval is how long what was asked anew for a client's sake is not
	// asked anew for another's.
	renewInterval = 5 * time.Second
	maxRenewed    = 16 << 10
)

// renewals are the tags and subjects that were asked for anew a moment ago.
type renewals struct {
	ended *memory.Answers[string, renewed]
}

// renewed is how asking anew has ended.
type renewed struct {
	succeeded bool
	oldest    time.Time // of the answers that would do
}

func newRenewals() renewals {
	ended, err := memory.NewAnswers[string, renewed](maxRenewed)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return renewals{ended}
}

// A renewal says whether what is remembered will do for a client.
type renewal struct {
	// oldest is the time of the oldest answer that will do; zero if any will.
	oldest time.Time
	// failed says that the upstream was asked anew a moment ago, and could not
	// be.
	failed bool
}

// allows says whether an answer of that time will do.
func (r renewal) allows(said time.Time) bool { return !r.failed && !said.Before(r.oldest) }

// metBy says whether an answer is as new as a client wishes. A list of many pages
// may have begun long before: it is as old as its first page. A parent may have
// been asked anew for another client a moment ago, and its parent too.
func (r renewal) metBy(answer Referrers) bool {
	return answer.At.IsZero() || r.oldest.IsZero() || !answer.At.Before(r.oldest.Add(-2*renewInterval))
}

// wanted returns what a client's wish means for an answer that the upstream
// gave at that time; zero if there is none.
func (r renewals) wanted(key string, wish []Freshness, said time.Time) renewal {
	for _, w := range wish {
		now := time.Now()
		if !w.wished || !said.Before(now.Add(-w.maxAge)) && !said.After(now) {
			continue
		}
		// One that took older answers than this client wishes was not for its sake.
		if last, ok := r.ended.Get(key); ok && !last.oldest.Before(now.Add(-w.maxAge-renewInterval)) {
			return renewal{failed: !last.succeeded}
		}
		return renewal{oldest: now.Add(-w.maxAge)}
	}
	return renewal{}
}

// note notes how asking anew has ended.
func (r renewals) note(key string, of renewal, succeeded bool) {
	if !of.oldest.IsZero() {
		r.ended.Put(key, renewed{succeeded, of.oldest}, renewInterval)
	}
}
