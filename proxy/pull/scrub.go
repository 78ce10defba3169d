package pull

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// scrubEvery is how long the background scrub rests between two rounds.
const scrubEvery = 24 * time.Hour

// Scrubbed says how far a scrub is.
type Scrubbed struct {
	Files      int      `json:"files"`
	Bytes      int64    `json:"bytes"`
	TotalFiles int      `json:"totalFiles"`
	TotalBytes int64    `json:"totalBytes"`
	Damaged    []Digest `json:"damaged"` // set aside, to be fetched again when asked for
	Unreadable int      `json:"unreadable"`
}

// Scrub hashes everything that is kept and sets aside what does not match its
// digest, at most rate bytes a second where that is more than zero. It tells
// how far it is after each file; tell may be nil.
func (p *Puller) Scrub(ctx context.Context, rate int64, tell func(Scrubbed)) (Scrubbed, error) {
	s := Scrubbed{Damaged: []Digest{}}
	sizes := map[Digest]int64{}
	err := p.opts.Blobs.Walk(ctx, func(d Digest, size int64) bool {
		sizes[d] = size
		s.TotalBytes += size
		return true
	})
	if err != nil {
		return s, err
	}
	s.TotalFiles = len(sizes)
	wait := paceOf(ctx, rate)
	for d, size := range sizes {
		_, err := p.opts.Blobs.Verify(ctx, d, wait)
		switch {
		case ctx.Err() != nil:
			return s, context.Cause(ctx)
		case errors.Is(err, cache.ErrMismatch): // of the size, which is an ErrNotFound too, or of the digest
			s.Damaged = append(s.Damaged, d)
			p.noteAside(err, size)
			p.opts.Memory.Delete(d)
		case errors.Is(err, cache.ErrNotFound) && !p.has(ctx, d):
			// Evicted meanwhile.
		case err != nil:
			s.Unreadable++
			p.log.Error("content can't be scrubbed", "digest", d.String(), "error", err)
		}
		s.Files++
		s.Bytes += size
		if tell != nil {
			tell(s)
		}
	}
	if len(s.Damaged) > 0 {
		p.countKept(ctx) // files of a wrong size had been counted with another
	}
	return s, nil
}

// paceOf lets at most rate bytes a second through; zero lets everything through.
func paceOf(ctx context.Context, rate int64) func(n int) error {
	if rate <= 0 {
		return func(int) error { return nil }
	}
	var next time.Time
	return func(n int) error {
		if now := time.Now(); next.Before(now) {
			next = now
		}
		next = next.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// scrubNowAndThen goes through everything once a day.
func (p *Puller) scrubNowAndThen(ctx context.Context) {
	for {
		s, err := p.Scrub(ctx, p.opts.ScrubRate, nil)
		if ctx.Err() != nil {
			return
		}
		p.log.Info("scrubbed", "files", s.Files, "bytes", s.Bytes, "damaged", len(s.Damaged), "unreadable", s.Unreadable, "error", err)
		if pause(ctx, scrubEvery) != nil {
			return
		}
	}
}

// pause waits for about d, with jitter.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
