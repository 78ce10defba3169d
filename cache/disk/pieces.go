package disk

import (
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// runLength is the largest number of bytes with one checksum in a draft. It is
// what has to be read again before a byte of an earlier draft is sent.
const runLength = 1 << 20

// run is a piece of a draft with its CRC-32C.
type run struct {
	From int64  `json:"from"`
	To   int64  `json:"to"`
	Sum  uint32 `json:"sum"`
}

func (r run) span() cache.Span { return cache.Span{From: r.From, To: r.To} }

// addRun notes the checksum of what was written behind the prefix. d.mu is held.
func (d *draft) addRun(off int64, b []byte) {
	for len(b) > 0 {
		i := d.runAt(off)
		if i > 0 && d.runs[i-1].To == off && d.runs[i-1].span().Len() < runLength {
			last := &d.runs[i-1]
			part := b[:min(int64(len(b)), runLength-last.span().Len())]
			last.Sum = crc32.Update(last.Sum, castagnoli, part)
			last.To += int64(len(part))
			off, b = last.To, b[len(part):]
			continue
		}
		part := b[:min(len(b), runLength)]
		r := run{off, off + int64(len(part)), crc32.Checksum(part, castagnoli)}
		d.runs = slices.Insert(d.runs, i, r)
		off, b = r.To, b[len(part):]
	}
}

// runAt is the index of the first run that begins at off or later.
func (d *draft) runAt(off int64) int {
	i, _ := slices.BinarySearchFunc(d.runs, off, func(r run, off int64) int { return int(min(max(r.From-off, -1), 1)) })
	return i
}

func (d *draft) Advance(n int) (int, error) {
	if d.done {
		return 0, fmt.Errorf("advance %s: %w", d.want.Digest, errDone)
	}
	off := d.Written()
	d.mu.Lock()
	follows := d.pieces.End(off) - off
	d.mu.Unlock()
	if follows = min(follows, int64(n)); follows == 0 {
		return 0, nil
	}
	sound := d.Check(off, follows)
	if sound == 0 {
		return 0, fmt.Errorf("%s: what was kept of it is damaged at %d: %w", d.want.Digest, off, cache.ErrMismatch)
	}
	b := make([]byte, sound)
	if _, err := d.file.ReadAt(b, off); err != nil {
		d.forget(cache.Span{From: off, To: off + sound})
		return 0, fmt.Errorf("%s: what was kept of it cannot be read: %w: %w", d.want.Digest, cache.ErrMismatch, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.extend(b)
	prefix := d.Written()
	d.runs = slices.DeleteFunc(d.runs, func(r run) bool { return r.To <= prefix })
	return len(b), nil
}

func (d *draft) Drop(off int64) {
	d.forget(cache.Span{From: max(off, d.Written()), To: 1<<63 - 1})
}

// forget forgets a part that is behind the prefix.
func (d *draft) forget(span cache.Span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	prefix := d.Written()
	var rest []run
	for _, r := range d.runs {
		if r.From < span.To && span.From < r.To {
			// Without its checksum the rest of the run can't be kept either.
			span.From, span.To = max(min(span.From, r.From), prefix), max(span.To, r.To)
			continue
		}
		rest = append(rest, r)
	}
	d.runs = rest
	d.pieces.Remove(span)
	d.unchecked.Remove(span)
}

func (d *draft) Check(off, n int64) int64 {
	d.mu.Lock()
	end := min(d.pieces.End(off), off+n)
	plain := len(d.unchecked) == 0
	d.mu.Unlock()
	if plain || end <= off {
		return end - off
	}
	d.checking.Lock()
	defer d.checking.Unlock()
	for at := off; at < end; {
		next, ok := d.nextUnchecked(at, end)
		if !ok {
			return end - off
		}
		if next.From > off && !d.isSound(next) {
			d.forget(next.span())
			return max(next.From, off) - off
		} else if next.From <= off && !d.isSound(next) {
			d.forget(next.span())
			return 0
		}
		d.mu.Lock()
		d.unchecked.Remove(next.span())
		d.mu.Unlock()
		at = next.To
	}
	return end - off
}

// nextUnchecked is the first run between two offsets that nobody has read yet.
func (d *draft) nextUnchecked(from, to int64) (run, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	span, ok := d.unchecked.Next(from)
	if !ok || span.From >= to {
		return run{}, false
	}
	at := max(span.From, from)
	i := d.runAt(at + 1)
	if i == 0 || d.runs[i-1].To <= at {
		return run{at, span.To, 0}, true // there is no checksum of it, so it is not sound
	}
	return d.runs[i-1], true
}

// isSound says whether a run is what was written.
func (d *draft) isSound(r run) bool {
	b := make([]byte, min(r.span().Len(), runLength))
	if _, err := d.file.ReadAt(b, r.From); err != nil {
		return false
	}
	return crc32.Checksum(b, castagnoli) == r.Sum && int64(len(b)) == r.span().Len()
}
