package pull

import (
	"context"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/cache"
)

// sink keeps what is downloaded, within the bounds of the cache.
type sink struct {
	blobs   cache.Blobs
	evictor *evictor
}

func (s sink) Has(ctx context.Context, d Digest) bool {
	_, err := s.blobs.Stat(ctx, d)
	return err == nil
}

// Create refuses what could never be kept, and would take the room of what is.
func (s sink) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
	if most := s.evictor.room.MaxBytes; most > 0 && want.Size > most {
		return nil, fmt.Errorf("%w: %d bytes are more than max_size", cache.ErrFull, want.Size)
	}
	return s.blobs.Create(ctx, want)
}

func (s sink) Expect(n int64) { s.evictor.expect(n) }

func (s sink) Publish(ctx context.Context, d Digest, size int64, draft cache.Draft) error {
	if err := s.evictor.admit(ctx, d, size); err != nil {
		return err
	}
	err := draft.Commit()
	s.evictor.settle(d, err == nil)
	return err
}

func (s sink) NotKept() { s.evictor.rouse() }

func (s sink) Quarantined(size int64) { s.evictor.shrank(size) }

// noteAside counts content of size bytes as no longer kept, if err says so.
func (p *Puller) noteAside(err error, size int64) {
	if errors.Is(err, cache.ErrSetAside) {
		p.evictor.shrank(size)
	}
}
