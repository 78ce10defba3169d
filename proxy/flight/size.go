package flight

import (
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// heldBack is how many bytes at the end readers get only once the digest is
	// proven, so that nobody can mistake corrupt content for whole.
	heldBack = 4 << 10
	// maxUnsized is how many bytes content may have whose size nobody told, and
	// smallUnsized how many it may have at least where a manifest, which may be
	// wrong, announced one, and the source tells none.
	maxUnsized   = 16 << 30
	smallUnsized = 64 << 20
)

// size is what is known of how long content is. What a manifest says may be
// wrong, and many clients never look: the source's word counts, and the digest
// decides.
type size struct {
	total     int64 // as the source tells it, -1 while unknown
	announced int64 // as a manifest tells it, -1 where none does
	limit     int64 // bytes that are taken
	// doubted says that manifest and source differ: nothing goes out before the
	// digest is proven, unless there is too much to hold back.
	conflicting bool
}

func sizeOf(want cache.Descriptor) size { return size{total: -1, announced: want.Size} }

// proven makes the announced size count: it is that of content that was proven
// before.
func (s size) trusted() size {
	s.total, s.limit = s.announced, s.announced
	return s
}

// answered takes the source's word from its first answer. A page in a blob's
// place is known by both, its type and its size.
func (s size) withFirstAnswer(c upstream.Content) (size, error) {
	differ := s.announced >= 0 && c.Size >= 0 && c.Size != s.announced
	if differ && c.MediaType == "text/html" {
		return s, fmt.Errorf("%w: the blob has %d bytes, and what came is a web page", upstream.ErrBadAnswer, s.announced)
	}
	switch {
	case c.Size >= 0:
		s.limit = c.Size
	case s.announced >= 0:
		s.limit = max(s.announced, smallUnsized)
	default:
		s.limit = maxUnsized
	}
	s.total = c.Size
	s.conflicting = differ && c.Size <= window
	return s, nil
}

// confirmed holds a further answer against what is known.
func (s size) withAnswer(c upstream.Content) (size, error) {
	if s.total < 0 {
		s.total = c.Size
	}
	if c.Size >= 0 && c.Size != s.total {
		return s, fmt.Errorf("%w: the blob has %d bytes, the upstream sends %d", upstream.ErrBadAnswer, s.total, c.Size)
	}
	return s, nil
}

// admits says whether content may have so many bytes.
func (s size) check(written int64) error {
	switch {
	case s.total >= 0 && written > s.total:
		return fmt.Errorf("%w: more than the %d bytes of the blob", upstream.ErrBadAnswer, s.total)
	case s.total < 0 && written > s.limit:
		return fmt.Errorf("%w: no size was told, and more than %d bytes came", upstream.ErrBadAnswer, s.limit)
	}
	return nil
}

// readable is how far readers may go before the digest is proven.
func (s size) readable(written int64) int64 {
	switch {
	case s.conflicting:
		return 0
	case s.total >= 0:
		return min(written, s.total-heldBack)
	case s.announced >= 0:
		return min(written, s.announced) - heldBack // it may be more than that, or junk
	}
	return written - heldBack
}

// upTo is as much of buf as reaches to where a manifest says that the content
// ends, where nobody else says so.
func (s size) clip(buf []byte, written int64) []byte {
	if left := s.announced - written; s.total < 0 && left > 0 {
		return buf[:min(left, int64(len(buf)))]
	}
	return buf
}
