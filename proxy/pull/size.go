package pull

import (
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// maxUnsized is how many bytes a blob may have whose size nobody told, and
	// smallUnsized how many it may at least where a manifest, which may be
	// wrong, told one, and the upstream tells none.
	maxUnsized   = 16 << 30
	smallUnsized = 64 << 20
)

// expect takes the size of a blob from the first answer about it. What a
// manifest says of it may be wrong, and many clients never look: the digest
// decides. A page in a blob's place is told by both, its type and its size.
func (p *Puller) expect(f *flight, c upstream.Content) error {
	told := f.size
	if told >= 0 && c.Size >= 0 && c.Size != told && c.MediaType == "text/html" {
		return fmt.Errorf("%w: the blob has %d bytes, and what came is a web page", upstream.ErrBadAnswer, told)
	}
	switch {
	case c.Size >= 0:
	case told >= 0:
		f.most = max(told, smallUnsized)
	default:
		f.most = maxUnsized
	}
	if most := p.opts.Room.MaxBytes; most > 0 && c.Size > most && !f.store.left {
		// It could not be kept, and would take the room of what is.
		p.bypass(f, fmt.Errorf("%w: %d bytes are more than max_size", cache.ErrFull, c.Size))
		f.store.exchange(nil)
	} else if c.Size != told && !f.store.left {
		// No byte is there yet, and the draft is held to a size.
		f.store.exchange(p.draft(f, c.Size))
	}
	f.mu.Lock()
	f.told = told
	f.doubted = told >= 0 && c.Size >= 0 && c.Size != told && c.Size <= window
	f.mu.Unlock()
	f.begin(c.Size)
	return nil
}

// begin says that bytes come, of a blob of that size.
func (f *flight) begin(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size, f.state = size, flowing
	f.most = max(f.most, size)
	f.signal()
}

// announce holds an answer's headers against what is known of the blob.
func (f *flight) announce(c upstream.Content) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.From > f.written {
		return fmt.Errorf("%w: asked for offset %d, got %d", upstream.ErrBadAnswer, f.written, c.From)
	}
	if f.size < 0 {
		f.size = c.Size
	}
	if c.Size >= 0 && c.Size != f.size {
		return fmt.Errorf("%w: the blob has %d bytes, the upstream sends %d", upstream.ErrBadAnswer, f.size, c.Size)
	}
	f.state = flowing
	f.signal()
	return nil
}

// upTo is as much of buf as reaches to where a manifest says that the blob ends,
// where nobody else says so.
func (f *flight) upTo(buf []byte) []byte {
	if left := f.told - f.written; f.size < 0 && left > 0 {
		return buf[:min(left, int64(len(buf)))]
	}
	return buf
}

// isTold says that a blob whose size its upstream does not tell is whole where
// its manifest says so: what comes after that is not waited for.
func (f *flight) isTold() bool {
	return f.size < 0 && f.written == f.told && f.store.verify() == nil
}
