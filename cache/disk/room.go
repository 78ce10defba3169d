package disk

import (
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/cache"
)

// faults stand in for a kernel that refuses; a nil one means the real kernel.
type faults struct {
	free    func() (int64, error)              // bytes the file system has left
	write   func(n int) (allowed int, _ error) // of n bytes to a draft
	sync    func() error                       // of a draft
	rename  func() error                       // of a draft into its place
	read    func() error                       // of content, to check it
	records func() error                       // of a group of records
}

func (f faults) refuse(fault func() error) error {
	if fault == nil {
		return nil
	}
	return fault()
}

// noRoom adds cache.ErrFull to the errors by which a kernel says that there is
// no room: of the file system, of a quota, or for a file as large as that.
func noRoom(err error) error {
	for _, full := range noRoomErrors {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", cache.ErrFull, err)
		}
	}
	return err
}

// reserve sets n bytes of the file system apart for a draft, so that drafts
// begun at the same time are not promised the same room.
func (b *blobs) reserve(n int64) error {
	free, err := b.free()
	if err != nil {
		return err
	}
	if room := free - b.minFree; n > room || b.promised.Add(n) > room {
		if n <= room {
			b.promised.Add(-n)
		}
		return fmt.Errorf("%w: %d bytes are free, %d are to stay so", cache.ErrFull, free, b.minFree)
	}
	return nil
}

// free is how many bytes this user may still write to the file system.
func (b *blobs) free() (int64, error) {
	if b.faults.free != nil {
		return b.faults.free()
	}
	_, free, err := Space(b.drafts)
	return free, err
}
