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
	// settleDelay is how long after a manifest was cached its repository is
	// scanned, so that the pull itself comes first.
	settleDelay = 2 * time.Second
	// scanFactor is how many times the duration of a scan must pass before a
	// repository is scanned again. A repository may have thousands of cached
	// images while more of it is being pulled.
	scanFactor = 20
)

// schedule says when each repository of an upstream is scanned.
type schedule struct {
	changed chan struct{}

	mu         sync.Mutex
	due        map[Repository]time.Time
	backoffs   map[Repository]*background.Backoff // of those that failed
	failed     map[Repository]map[string]bool     // what failed, until the rest is over
	lastFailed map[Repository]string              // what failed last
	scanTimes  map[Repository]time.Duration       // to look at those that are large
}

func newSchedule() *schedule {
	return &schedule{
		changed: make(chan struct{}, 1), due: make(map[Repository]time.Time), backoffs: make(map[Repository]*background.Backoff),
		failed: make(map[Repository]map[string]bool), lastFailed: make(map[Repository]string), scanTimes: make(map[Repository]time.Duration),
	}
}

// add schedules a scan of a repository after the pull that is under way.
func (s *schedule) add(repo Repository) {
	s.mu.Lock()
	wait := max(settleDelay, scanFactor*s.scanTimes[repo])
	if at, ok := s.due[repo]; !ok || time.Until(at) > wait {
		s.due[repo] = time.Now().Add(wait)
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// next returns a repository that is due, or how long to wait until one is.
func (s *schedule) next() (repo Repository, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = maxBackoff
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

// finish records how a pass through a repository ended.
func (s *schedule) finish(repo Repository, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.backoffs, repo)
		delete(s.failed, repo)
		delete(s.lastFailed, repo)
		return
	}
	if errors.Is(err, errBackoff) {
		if _, ok := s.due[repo]; !ok {
			s.due[repo] = s.backoffs[repo].Until()
		}
		return
	}
	again := time.Now().Add(quotaBackoff)
	if !errors.Is(err, errQuotaLow) {
		if s.backoffs[repo] == nil {
			s.backoffs[repo] = &background.Backoff{}
		}
		s.backoffs[repo].Extend(minBackoff, maxBackoff)
		again = s.backoffs[repo].Until()
	}
	var limited *upstream.RateLimitedError
	if errors.As(err, &limited) && time.Until(again) < limited.RetryAfter {
		again = time.Now().Add(limited.RetryAfter)
	}
	s.due[repo] = again
}

// recordScan records how long a scan of a repository took.
func (s *schedule) recordScan(repo Repository, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.scanTimes, repo); scanFactor*took > settleDelay {
		s.scanTimes[repo] = took
	}
}

// recordFailure records something that could not be fetched.
func (s *schedule) recordFailure(repo Repository, what retention.Missing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastFailed[repo] = what.String()
	if s.failed[repo] == nil {
		s.failed[repo] = make(map[string]bool)
	}
	s.failed[repo][what.String()] = true
}

// inBackoff returns what failed and is not requested again before the backoff
// is over, even if something new is cached meanwhile.
func (s *schedule) inBackoff(repo Repository) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backoffs[repo].IsOver() {
		delete(s.failed, repo)
	}
	return maps.Clone(s.failed[repo])
}

// rotate sorts what is missing so that a pass starts after what failed last.
// Something that always fails must not prevent the rest from being fetched.
func (s *schedule) rotate(repo Repository, all []retention.Missing) []retention.Missing {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(all, func(what retention.Missing) bool { return what.String() == s.lastFailed[repo] }) + 1
	return slices.Concat(all[at:], all[:at])
}
