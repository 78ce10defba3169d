package retention

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/background"
)

// scrubInterval is the pause between two background scrubs.
const scrubInterval = 24 * time.Hour

// Scrubbed is the progress of a scrub.
type Scrubbed struct {
	Files      int      `json:"files"`
	Bytes      int64    `json:"bytes"`
	TotalFiles int      `json:"totalFiles"`
	TotalBytes int64    `json:"totalBytes"`
	Damaged    []Digest `json:"damaged"` // quarantined, and downloaded again when requested
	Unreadable int      `json:"unreadable"`
}

// Scrub hashes all content and quarantines what does not match its digest, at
// no more than rate bytes a second if rate is positive. It reports its progress
// after each file; progress may be nil. The content is walked twice, to count it
// and to hash it, and is never in memory as a list: what has come meanwhile is
// hashed too, or not.
func (r *Retention) Scrub(ctx context.Context, rate int64, progress func(Scrubbed)) (Scrubbed, error) {
	s := Scrubbed{Damaged: []Digest{}}
	err := r.store.Walk(ctx, func(_ Digest, size int64) bool {
		s.TotalFiles++
		s.TotalBytes += size
		return true
	})
	if err != nil {
		return s, err
	}
	wait := throttle(ctx, rate)
	err = r.store.Walk(ctx, func(d Digest, size int64) bool {
		r.scrub(ctx, d, size, wait, &s)
		if ctx.Err() == nil && progress != nil {
			progress(s)
		}
		return ctx.Err() == nil
	})
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	if len(s.Damaged) > 0 {
		r.recount(ctx) // files of a wrong size were counted with that size
	}
	return s, err
}

// scrub hashes one file.
func (r *Retention) scrub(ctx context.Context, d Digest, size int64, wait func(n int) error, s *Scrubbed) {
	err := r.store.Verify(ctx, d, size, wait)
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, cache.ErrMismatch): // wrong digest, or wrong size (which is also an ErrNotFound)
		s.Damaged = append(s.Damaged, d)
	case errors.Is(err, cache.ErrNotFound) && !r.store.Has(ctx, d):
		// It was evicted in the meantime.
	case err != nil:
		s.Unreadable++
		r.log.Error("content cannot be scrubbed", "digest", d.String(), "error", err)
	}
	s.Files++
	s.Bytes += size
	s.TotalFiles, s.TotalBytes = max(s.TotalFiles, s.Files), max(s.TotalBytes, s.Bytes)
}

// throttle limits a read to rate bytes a second; zero means no limit.
func throttle(ctx context.Context, rate int64) func(n int) error {
	if rate <= 0 {
		return func(int) error { return nil }
	}
	var next time.Time
	return func(n int) error {
		if now := time.Now(); next.Before(now) {
			next = now
		}
		next = next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		return background.Wait(ctx, time.Until(next))
	}
}

// RunScrub scrubs everything once a day until ctx is done, at no more than rate
// bytes a second.
func (r *Retention) RunScrub(ctx context.Context, rate int64) {
	for {
		s, err := r.Scrub(ctx, rate, nil)
		if ctx.Err() != nil {
			return
		}
		r.log.Info("scrubbed", "files", s.Files, "bytes", s.Bytes, "damaged", len(s.Damaged), "unreadable", s.Unreadable, "error", err)
		if background.Pause(ctx, scrubInterval) != nil {
			return
		}
	}
}
