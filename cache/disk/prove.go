package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// proof is one reading of a whole file that has no checksums: of before there
// were any, or because a crash took them.
type proof struct {
	over chan struct{}
	err  error // once it is over
}

// prove waits until the file has checksums, or can have none. The proof is everyone's:
// it goes on when the one who began it leaves.
func (k *kept) prove(ctx context.Context) error {
	c := k.checks
	c.mu.Lock()
	if c.gone || c.sums != nil || sumsLength(c.size) == 0 {
		c.mu.Unlock()
		return nil
	}
	p := c.proof
	if p == nil {
		own, err := k.again()
		if err != nil {
			c.mu.Unlock()
			return err
		}
		p = &proof{over: make(chan struct{})}
		c.proof = p
		k.blobs.proofs.Go(func() {
			defer own.Close()
			p.err = own.proveWhole(k.blobs.open)
			c.mu.Lock()
			c.proof = nil
			c.mu.Unlock()
			close(p.over)
		})
	}
	c.mu.Unlock()
	select {
	case <-p.over:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// again opens the file once more, whatever has become of its name.
func (k *kept) again() (*kept, error) {
	fd, err := unix.FcntlInt(k.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open again: %w", err)
	}
	own := &kept{blob: &blob{os.NewFile(uintptr(fd), k.path), k.size}, blobs: k.blobs, digest: k.digest, path: k.path}
	own.once.Do(func() { own.checks = k.checks })
	return own, nil
}

// proveWhole reads the file, makes its checksums, and sets it aside where it
// does not have its digest. Its error says only that this could not be done.
func (k *kept) proveWhole(ctx context.Context) error {
	began := time.Now()
	is, err := identify(k.file)
	if err != nil {
		return err
	}
	var made summing
	hash := k.digest.Algorithm().Hash()
	err = k.blobs.faults.refuse(k.blobs.faults.read)
	if err == nil {
		err = readPaced(ctx, io.NewSectionReader(k.file, 0, k.size), io.MultiWriter(hash, &made), k.size, func(int) error { return nil })
	}
	got := digest.NewDigest(k.digest.Algorithm(), hash)
	switch {
	case err != nil && !unreadable(err):
		return err
	case err != nil || got != k.digest:
		k.spoil(0, "content", got.String(), "error", err)
		return nil
	}
	now, err := identify(k.file)
	k.checks.proven(made.sums(), is, err == nil && now == is && is.settled(began), began)
	k.blobs.saveSums(k.digest, k.path, k.file, made.sums())
	return nil
}

// proven notes the checksums of a file, and that all of it was found sound
// where that still holds.
func (c *checks) proven(s sums, is identity, sound bool, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sums = s
	if !sound {
		return
	}
	c.of, c.since = is, began
	for i := range c.sound {
		c.sound[i] = ^uint64(0)
	}
}
