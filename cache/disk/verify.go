package disk

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/entrepot/entrepot/cache"
)

// verifyPiece is how much is read between two looks at the pace, in bytes.
const verifyPiece = 256 << 10

func (b *blobs) Verify(ctx context.Context, d cache.Digest, pace func(n int) error) (int64, error) {
	path, ok := b.place(d)
	if !ok {
		return 0, fmt.Errorf("verify %q: %w", d, cache.ErrNotFound)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, notFound(err))
	}
	defer file.Close()
	found, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if err := b.checkSize(d, path, found); err != nil {
		return found.Size(), fmt.Errorf("verify %s: %w: %w", d, cache.ErrMismatch, err)
	}
	hash := d.Algorithm().Hash()
	err = readPaced(ctx, file, hash, found.Size(), pace)
	forgetPages(file)
	switch {
	case errors.Is(err, unix.EIO):
		// The disk can't read it back: that is damage too.
		b.setAside(d, path, found, "error", err)
		return 0, fmt.Errorf("verify %s, set aside: %w: %w", d, cache.ErrMismatch, err)
	case err != nil:
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if got := digest.NewDigest(d.Algorithm(), hash); got != d {
		b.setAside(d, path, found, "content", got.String())
		return found.Size(), fmt.Errorf("verify %s, set aside: the content is %s: %w", d, got, cache.ErrMismatch)
	}
	return found.Size(), nil
}

func readPaced(ctx context.Context, file *os.File, into hash.Hash, size int64, pace func(n int) error) error {
	for left := size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(left, verifyPiece)
		if err := pace(int(n)); err != nil {
			return err
		}
		read, err := io.CopyN(into, file, n)
		left -= read
		if errors.Is(err, io.EOF) {
			return nil // cut meanwhile: the digest will tell
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetPages keeps a scrub from pushing what clients ask for out of the
// kernel's memory. It is advice: a kernel that knows none loses nothing.
func forgetPages(file *os.File) {
	_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}
