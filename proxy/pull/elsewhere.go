package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/flight"
)

// openElsewhere opens ranges of a blob that is being downloaded from another
// upstream: they are asked for by themselves, and not even the size comes from
// there. If the client wants the whole, in one part or in several in order,
// inOrder says that a download from its own upstream serves it. If neither is so,
// the client has to wait for the other upstream.
//
// openElsewhere releases f unless it returns nil and no error.
func (p *Puller) openElsewhere(ctx context.Context, f *flight.Flight, source *blobSource, want Want) (b Blob, inOrder bool, err error) {
	if want.Parts == nil {
		return nil, true, nil
	}
	if _, verified := f.Progress(); verified {
		return nil, false, nil
	}
	size, err := p.sizeElsewhere(ctx, source)
	switch {
	case err != nil:
		f.Release()
		return nil, false, err
	case size < 0:
		return nil, false, nil
	case want.isAllInParts(size):
		return nil, want.isInOrder(size), nil
	}
	other := &flightBlob{source: source, f: f, want: want, size: size, repairs: p.diskReaders.any(source.digest)}
	other.read(want.options(size))
	return other, false, nil
}

// sizeElsewhere is the size of a blob according to its own upstream, which also
// says that the repository has it.
func (p *Puller) sizeElsewhere(ctx context.Context, s *blobSource) (int64, error) {
	if m, known := p.member(ctx, s.repo, s.digest); known && m.Confirmed && m.Size >= 0 {
		return m.Size, nil
	}
	desc, err := p.resolveUpstreamBlob(ctx, s.u, s.repo, s.digest)
	return desc.Size, err
}

// isInOrder says whether the parts of a blob of size bytes begin where those
// before have ended, or earlier.
func (w Want) isInOrder(size int64) bool {
	end := int64(0)
	for _, part := range w.Parts(size) {
		if part.From < end {
			return false
		}
		end = part.To
	}
	return true
}
