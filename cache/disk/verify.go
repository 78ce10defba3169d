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

// verifyChunk is how many bytes are read between two calls of pace.
const verifyChunk = 256 << 10

func (b *blobs) Verify(ctx context.Context, d cache.Digest, pace func(n int) error) (int64, error) {
	path, ok := b.pathOf(d)
	if !ok {
		return 0, fmt.Errorf("verify %q: %w", d, cache.ErrNotFound)
	}
	file, err := b.files.OpenPublished(path)
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, wrapNotFound(err))
	}
	defer file.Close()
	found, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if err := b.checkSize(d, path, found); err != nil {
		return found.Size(), fmt.Errorf("verify %s: %w", d, err)
	}
	var made sumWriter
	hash := d.Algorithm().Hash()
	over := file.AvoidPageCache()
	err = readPaced(ctx, file, io.MultiWriter(hash, &made), found.Size(), pace)
	over()
	switch {
	case isReadDamage(err):
		return 0, fmt.Errorf("verify %s: %w: %w", d, b.mismatch(d, path, found, "error", err), err)
	case err != nil:
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if got := digest.NewDigest(d.Algorithm(), hash); got != d {
		return found.Size(), fmt.Errorf("verify %s: the content is %s: %w", d, got, b.mismatch(d, path, found, "content", got.String()))
	}
	if sumsLength(found.Size()) > 0 && b.loadSums(d, path, found.Size()) == nil {
		b.saveSums(d, path, file, made.sums())
	}
	return found.Size(), nil
}

// mismatch quarantines a file and returns the error for it.
func (b *blobs) mismatch(d cache.Digest, path string, found fs.FileInfo, why ...any) error {
	if b.quarantine(d, path, found, why...) {
		return fmt.Errorf("%w: %w", cache.ErrQuarantined, cache.ErrMismatch)
	}
	return cache.ErrMismatch
}

func readPaced(ctx context.Context, file io.Reader, into io.Writer, size int64, pace func(n int) error) error {
	for left := size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(left, verifyChunk)
		if err := pace(int(n)); err != nil {
			return err
		}
		read, err := io.CopyN(into, file, n)
		left -= read
		if errors.Is(err, io.EOF) {
			return nil // truncated meanwhile: the digest will not match
		}
		if err != nil {
			return err
		}
	}
	return nil
}
