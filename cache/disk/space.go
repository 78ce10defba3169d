package disk

import (
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/cache"
)

// faults simulate failures of the kernel in tests; a nil function means none.
type faults struct {
	free    func() (int64, error)              // free bytes of the file system
	write   func(n int) (allowed int, _ error) // a write of n bytes to a draft
	sync    func() error                       // a sync of a draft
	rename  func() error                       // a rename of a draft
	read    func() error                       // a read of content to check it
	records func() error                       // a write of a group of records
}

func (f faults) inject(fault func() error) error {
	if fault == nil {
		return nil
	}
	return fault()
}

// wrapFull adds cache.ErrFull to the kernel's errors for a lack of space: of
// the file system, of a quota, or of the maximum file size.
func wrapFull(err error) error {
	for _, full := range noRoomErrors {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", cache.ErrFull, err)
		}
	}
	return err
}

// hasRoom returns cache.ErrFull if there is no room at all for a draft.
func (b *blobs) hasRoom(size int64) error {
	free, err := b.free()
	if err == nil && size != 0 && free-b.minFree-b.reserved.Load() <= 0 {
		err = fmt.Errorf("%w: %d bytes are free, and %d have to stay free", cache.ErrFull, free, b.minFree)
	}
	return err
}

// reserve reserves n bytes of the file system for a draft, so that concurrent
// drafts are not promised the same space.
func (b *blobs) reserve(n int64) error {
	free, err := b.free()
	if err != nil {
		return err
	}
	if room := free - b.minFree; n > room || b.reserved.Add(n) > room {
		if n <= room {
			b.reserved.Add(-n)
		}
		return fmt.Errorf("%w: %d bytes are free, and %d have to stay free", cache.ErrFull, free, b.minFree)
	}
	return nil
}

// free returns how many bytes this user can still write to the file system.
func (b *blobs) free() (int64, error) {
	if b.faults.free != nil {
		return b.faults.free()
	}
	of, err := b.files.Space(b.drafts)
	return of.FreeBytes, err
}
