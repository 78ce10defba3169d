package memory

import (
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// pieces are parts of content, sorted. They do not overlap, and their bytes
// never change.
type pieces []piece

type piece struct {
	from    int64
	content []byte
}

func (p piece) to() int64 { return p.from + int64(len(p.content)) }

// first is the index of the first piece that ends after off.
func (p pieces) first(off int64) int {
	i, _ := slices.BinarySearchFunc(p, off, func(piece piece, off int64) int {
		if piece.to() <= off {
			return -1
		}
		return 1
	})
	return i
}

// at returns the bytes from off to the end of the piece that has them; none if
// there is no such piece.
func (p pieces) at(off int64) []byte {
	if i := p.first(off); i < len(p) && p[i].from <= off {
		return p[i].content[off-p[i].from:]
	}
	return nil
}

// add adds a piece where there is none.
func (p *pieces) add(from int64, content []byte) {
	if len(content) > 0 {
		*p = slices.Insert(*p, p.first(from), piece{from, content})
	}
}

// remove removes a span, with everything before it.
func (p *pieces) remove(s cache.Span) {
	all := (*p)[p.first(s.To-1):]
	if len(all) > 0 && all[0].to() <= s.To {
		all = all[1:]
	}
	if len(all) > 0 && all[0].from < s.To {
		all[0] = piece{s.To, all[0].content[s.To-all[0].from:]}
	}
	*p = all
}
