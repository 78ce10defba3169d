package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// verifyPiece is how much is read between two looks at the pace, in bytes.
const verifyPiece = 256 << 10

func (b *blobs) Verify(ctx context.Context, d cache.Digest, pace func(n int) error) (int64, error) {
	path, ok := b.place(d)
	if !ok {
		return 0, fmt.Errorf("verify %q: %w", d, cache.ErrNotFound)
	}
	file, err := openPublished(path)
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, notFound(err))
	}
	defer file.Close()
	found, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if err := b.checkSize(d, path, found); err != nil {
		return found.Size(), fmt.Errorf("verify %s: %w", d, err)
	}
	var made summing
	hash := d.Algorithm().Hash()
	over := passing(file)
	err = readPaced(ctx, file, io.MultiWriter(hash, &made), found.Size(), pace)
	over()
	switch {
	case unreadable(err):
		return 0, fmt.Errorf("verify %s: %w: %w", d, b.mismatch(d, path, found, "error", err), err)
	case err != nil:
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if got := digest.NewDigest(d.Algorithm(), hash); got != d {
		return found.Size(), fmt.Errorf("verify %s: the content is %s: %w", d, got, b.mismatch(d, path, found, "content", got.String()))
	}
	if sumsLength(found.Size()) > 0 && loadSums(d, path, found.Size()) == nil {
		b.saveSums(d, path, file, made.sums())
	}
	return found.Size(), nil
}

// mismatch sets a file aside, and is what is said of it.
func (b *blobs) mismatch(d cache.Digest, path string, found fs.FileInfo, why ...any) error {
	if b.setAside(d, path, found, why...) {
		return fmt.Errorf("%w: %w", cache.ErrSetAside, cache.ErrMismatch)
	}
	return cache.ErrMismatch
}

func readPaced(ctx context.Context, file io.Reader, into io.Writer, size int64, pace func(n int) error) error {
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
