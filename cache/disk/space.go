package disk

import (
	"errors"
	"fmt"
	"syscall"

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
		if !errors.Is(err, full) || errors.Is(err, cache.ErrFull) {
			continue
		}
		bound := cache.DiskSpace
		switch {
		case errors.Is(err, syscall.EDQUOT):
			bound = cache.Quota
		case errors.Is(err, syscall.EFBIG):
			bound = cache.FileSize
		}
		return &cache.FullError{Bound: bound, Err: err}
	}
	return err
}

// hasRoom returns cache.ErrFull if there is no room at all for a draft.
func (b *blobs) hasRoom(size int64) error {
	free, known, err := b.free()
	if err == nil && known && size != 0 && free-b.minFree-b.reserved.Load() <= 0 {
		err = b.tooLittle(free)
	}
	return err
}

// reserve reserves n bytes of the file system for a draft, so that concurrent
// drafts are not promised the same space.
func (b *blobs) reserve(n int64) error {
	free, known, err := b.free()
	if err != nil {
		return err
	}
	if !known {
		b.reserved.Add(n)
		return nil
	}
	if room := free - b.minFree; n > room || b.reserved.Add(n) > room {
		if n <= room {
			b.reserved.Add(-n)
		}
		return b.tooLittle(free)
	}
	return nil
}

func (b *blobs) tooLittle(free int64) error {
	bound := cache.MinFree
	if free <= 0 || b.minFree == 0 {
		bound = cache.DiskSpace
	}
	return &cache.FullError{Bound: bound, Err: fmt.Errorf("%d bytes are free, and %d have to stay free", free, b.minFree)}
}

// free returns how many bytes this user can still write to the file system. If
// it tells nothing of itself, only a write that fails shows that it is full.
func (b *blobs) free() (free int64, known bool, err error) {
	if b.faults.free != nil {
		free, err = b.faults.free()
		return free, true, err
	}
	of, err := b.files.Space(b.drafts)
	return of.FreeBytes, of.Bytes > 0, err
}
