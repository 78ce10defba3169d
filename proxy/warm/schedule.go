package warm

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// settles is how long after something was kept it is looked for what there
	// is to learn: the pull itself goes first.
	settles = 2 * time.Second
	// breathes is how many times as long as it took to look at a repository it
	// is not looked at again: thousands of images can be kept of one, while more
	// of it is pulled.
	breathes = 20
)

// schedule says when each repository of an upstream is looked at.
type schedule struct {
	wake chan struct{}

	mu     sync.Mutex
	due    map[Repository]time.Time
	rests  map[Repository]*background.Rest // of those that failed
	failed map[Repository]map[string]bool  // what failed, until the rest is over
	after  map[Repository]string           // what failed last
	took   map[Repository]time.Duration    // to look at those that are large
}

func newSchedule() *schedule {
	return &schedule{
		wake: make(chan struct{}, 1), due: make(map[Repository]time.Time), rests: make(map[Repository]*background.Rest),
		failed: make(map[Repository]map[string]bool), after: make(map[Repository]string), took: make(map[Repository]time.Duration),
	}
}

// look has a repository looked at when the pull under way has settled.
func (s *schedule) look(repo Repository) {
	s.mu.Lock()
	wait := max(settles, breathes*s.took[repo])
	if at, ok := s.due[repo]; !ok || time.Until(at) > wait {
		s.due[repo] = time.Now().Add(wait)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes a repository that is due, or says how long none is.
func (s *schedule) next() (repo Repository, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = longestRest
	for repo, at := range s.due {
		left := time.Until(at)
		if left <= 0 {
			delete(s.due, repo)
			return repo, 0
		}
		wait = min(wait, left)
	}
	return Repository{}, wait
}

// leave notes how a pass over a repository ended.
func (s *schedule) leave(repo Repository, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.rests, repo)
		delete(s.failed, repo)
		delete(s.after, repo)
		return
	}
	if errors.Is(err, errResting) {
		if _, ok := s.due[repo]; !ok {
			s.due[repo] = s.rests[repo].Until()
		}
		return
	}
	again := time.Now().Add(quotaRest)
	if !errors.Is(err, errLimitLow) {
		if s.rests[repo] == nil {
			s.rests[repo] = &background.Rest{}
		}
		s.rests[repo].Longer(firstRest, longestRest)
		again = s.rests[repo].Until()
	}
	var limited *upstream.RateLimitedError
	if errors.As(err, &limited) && time.Until(again) < limited.RetryAfter {
		again = time.Now().Add(limited.RetryAfter)
	}
	s.due[repo] = again
}

// looked notes how long it took to look at a repository.
func (s *schedule) looked(repo Repository, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.took, repo); breathes*took > settles {
		s.took[repo] = took
	}
}

// failedAt notes what a pass could not go past.
func (s *schedule) failedAt(repo Repository, what retention.Missing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after[repo] = what.String()
	if s.failed[repo] == nil {
		s.failed[repo] = make(map[string]bool)
	}
	s.failed[repo][what.String()] = true
}

// resting is what failed, and is left alone until the rest is over, whatever new
// is kept meanwhile.
func (s *schedule) resting(repo Repository) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rests[repo].Over() {
		delete(s.failed, repo)
	}
	return maps.Clone(s.failed[repo])
}

// inTurn orders what is missing so that a pass goes on behind what the last one
// could not go past: what always fails must not keep the rest from being learnt.
func (s *schedule) inTurn(repo Repository, all []retention.Missing) []retention.Missing {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(all, func(what retention.Missing) bool { return what.String() == s.after[repo] }) + 1
	return slices.Concat(all[at:], all[:at])
}
