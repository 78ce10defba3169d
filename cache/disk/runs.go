package disk

import (
	"hash/crc32"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// run is a part of a draft with its CRC-32C. It lies within one of the pieces
// that published content has checksums of, so checking a byte reads no more
// than that.
type run struct {
	cache.Span
	sum uint32
	// checked says that this process wrote the bytes, or has read them back.
	checked bool
}

// runs are the runs of a draft. They do not overlap.
type runs struct {
	byPiece    map[int64][]run // sorted
	notChecked int             // how many there are that are not checked
}

// add adds what was just written at off, where nothing was. It continues the run
// before, so that content that is written in small pieces has few runs.
func (r *runs) add(content []byte, off int64) {
	for len(content) > 0 {
		part := content[:min(int64(len(content)), pieceSize-off%pieceSize)]
		content = content[len(part):]
		to := off + int64(len(part))
		if before := r.endingAt(off); before != nil && before.checked {
			before.sum = crc32.Update(before.sum, castagnoli, part)
			before.To = to
		} else {
			r.put(run{cache.Span{From: off, To: to}, crc32.Checksum(part, castagnoli), true})
		}
		off = to
	}
}

// put adds a run where nothing is.
func (r *runs) put(added run) {
	if r.byPiece == nil {
		r.byPiece = make(map[int64][]run)
	}
	if !added.checked {
		r.notChecked++
	}
	piece := added.From / pieceSize
	in := r.byPiece[piece]
	i, _ := slices.BinarySearchFunc(in, added.From, func(at run, from int64) int { return int(at.From - from) })
	r.byPiece[piece] = slices.Insert(in, i, added)
}

// endingAt returns the run that ends at off, if it can be continued there.
func (r *runs) endingAt(off int64) *run {
	in := r.byPiece[off/pieceSize]
	for i := range in {
		if in[i].To == off {
			return &in[i]
		}
	}
	return nil
}

// at returns the run that has the byte at off.
func (r *runs) at(off int64) (run, bool) {
	for _, at := range r.byPiece[off/pieceSize] {
		if at.From <= off && off < at.To {
			return at, true
		}
	}
	return run{}, false
}

// remove removes the runs of a span. None of them may reach over its ends.
func (r *runs) remove(s cache.Span) {
	for piece := s.From / pieceSize; piece*pieceSize < s.To; piece++ {
		in, ok := r.byPiece[piece]
		if !ok {
			continue
		}
		in = slices.DeleteFunc(in, func(at run) bool {
			removed := at.From >= s.From && at.To <= s.To
			if removed && !at.checked {
				r.notChecked--
			}
			return removed
		})
		if r.byPiece[piece] = in; len(in) == 0 {
			delete(r.byPiece, piece)
		}
	}
}

// unchecked reports whether there is a run that is not checked.
func (r *runs) unchecked() bool { return r.notChecked > 0 }

// markChecked marks a run as checked, unless it was replaced meanwhile.
func (r *runs) markChecked(checked run) {
	in := r.byPiece[checked.From/pieceSize]
	if i := slices.Index(in, checked); i >= 0 && !checked.checked {
		in[i].checked = true
		r.notChecked--
	}
}

// all returns the runs in any order.
func (r *runs) all() []run {
	all := make([]run, 0, len(r.byPiece))
	for _, in := range r.byPiece {
		all = append(all, in...)
	}
	return all
}
