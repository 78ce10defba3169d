package flight

import (
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// heldBack is how many bytes at the end are held back from readers until
	// the digest is verified, so that no client can mistake corrupt content for
	// complete content.
	heldBack = 4 << 10
	// maxUnsized bounds content, in bytes, if nothing says how large it is: what
	// of it is stored, the sink bounds, too. If
	// the source does not say but a manifest does, which may be wrong,
	// smallUnsized bytes are accepted in any case.
	maxUnsized   = 16 << 30
	smallUnsized = 64 << 20
)

// size is what is known about the length of content. What a manifest says may
// be wrong, and many clients do not check it. So what the source says counts,
// and the digest decides.
type size struct {
	total     int64 // according to the source, -1 while unknown
	announced int64 // according to a manifest, -1 if there is none
	limit     int64 // accepted bytes
	// conflicting means that manifest and source disagree. Then nothing is
	// delivered before the digest is verified, unless there is too much to hold
	// back.
	conflicting bool
}

func sizeOf(want cache.Descriptor) size { return size{total: -1, announced: want.Size} }

// withTotal makes a size final that the source has given, or that of content
// that was verified before.
func (s size) withTotal(total int64) size {
	s.total, s.limit = total, total
	return s
}

// withFirstAnswer applies the source's first answer. A web page in place of a
// blob is recognized by its type together with its size.
func (s size) withFirstAnswer(c upstream.Content) (size, error) {
	differ := s.announced >= 0 && c.Size >= 0 && c.Size != s.announced
	if differ && c.MediaType == "text/html" {
		return s, fmt.Errorf("%w: the blob has %d bytes, and the upstream sent a web page", upstream.ErrInvalidResponse, s.announced)
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

// withAnswer checks a further answer against what is known.
func (s size) withAnswer(c upstream.Content) (size, error) {
	if s.total < 0 {
		s.total = c.Size
	}
	if c.Size >= 0 && c.Size != s.total && c.MediaType == "text/html" {
		return s, fmt.Errorf("%w: the blob has %d bytes, and the upstream sent a web page", upstream.ErrInvalidResponse, s.total)
	}
	if c.Size >= 0 && c.Size != s.total {
		return s, fmt.Errorf("%w: %w: the blob has %d bytes, and the upstream sends %d", errLost, upstream.ErrInvalidResponse, s.total, c.Size)
	}
	return s, nil
}

// check says whether content may have so many bytes.
func (s size) check(written int64) error {
	switch {
	case s.total >= 0 && written > s.total:
		return fmt.Errorf("%w: %w: the upstream sent more than the %d bytes of the blob", errLost, upstream.ErrInvalidResponse, s.total)
	case s.total < 0 && written > s.limit:
		return fmt.Errorf("%w: the upstream gave no size and sent more than %d bytes", upstream.ErrInvalidResponse, s.limit)
	}
	return nil
}

// readable is the offset up to which readers may read before the digest is
// verified.
func (s size) readable(written int64) int64 {
	switch {
	case s.conflicting:
		return 0
	case s.total >= 0:
		return min(written, s.total-heldBack)
	case s.announced >= 0:
		return min(written, s.announced) - heldBack // there may be more, or trailing garbage
	}
	return written - heldBack
}

// clip limits n to the end of the content that a manifest gives, if the source
// does not give a size.
func (s size) clip(n, at int64) int64 {
	if left := s.announced - at; left > 0 {
		return min(left, n)
	}
	return n
}
