package upstream

import (
	"sync"
	"time"
)

// Quota is the rate limit of an upstream (W42). The zero value has no limit.
type Quota struct {
	mu    sync.Mutex
	share float64
	until time.Time
}

// Observe records that remaining of limit requests are left in a window. A
// limit that is not positive is ignored.
func (q *Quota) Observe(limit, remaining int, window time.Duration) {
	if limit <= 0 {
		return
	}
	if window <= 0 {
		window = time.Hour
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.share, q.until = float64(min(remaining, limit))/float64(limit), time.Now().Add(window)
}

// Share returns the part of the quota that is left, from 0 to 1; 1 if there is
// no known limit.
func (q *Quota) Share() float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Now().After(q.until) {
		return 1
	}
	return q.share
}
