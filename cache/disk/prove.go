package disk

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// provePatience is how long whoever wants a piece of a file without
	// checksums waits for the whole to be proven. After that bytes pass as
	// they are read, but for the last: a client's own time runs out, too.
	provePatience = 5 * time.Second
	// proveHolds is how many bytes at the end never pass before the proof.
	proveHolds = 4 << 10
)

// proof is one reading of a whole file that has no checksums: of before there
// were any, or because a crash took them.
type proof struct {
	over chan struct{}
	err  error // once it is over

	mu    sync.Mutex
	read  int64         // so far
	moved chan struct{} // closed when more is read; nil while nobody waits
}

// Write notes what was read.
func (p *proof) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read += int64(len(b))
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
	return len(b), nil
}

// progress is how much was read, and a channel that is closed when more is.
func (p *proof) progress() (int64, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return p.read, p.moved
}

// prove waits until the file has checksums, or can have none. Where that takes
// too long it returns how many of the n bytes at off pass before.
func (k *kept) prove(ctx context.Context, off, n int64) (passes int64, err error) {
	p, err := k.proof()
	if p == nil {
		return 0, err
	}
	late := k.ahead.Load()
	patience := time.NewTimer(provePatience)
	defer patience.Stop()
	for {
		read, moved := p.progress()
		if end := min(read, k.size-proveHolds, off+n); late && end > off {
			k.ahead.Store(true)
			return end - off, nil
		}
		select {
		case <-p.over:
			return 0, p.err
		case <-moved:
		case <-patience.C:
			late = true
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// proof is the one that is under way, or is begun, where the file needs one. It
// is everyone's: it goes on when the one who began it leaves.
func (k *kept) proof() (*proof, error) {
	c := k.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.sums != nil || sumsLength(c.size) == 0 || c.proof != nil {
		return c.proof, nil
	}
	own, err := k.again()
	if err != nil {
		return nil, err
	}
	p := &proof{over: make(chan struct{})}
	c.proof = p
	k.blobs.proofs.Go(func() {
		defer own.Close()
		p.err = own.proveWhole(k.blobs.open, p)
		c.mu.Lock()
		c.proof = nil
		c.mu.Unlock()
		close(p.over)
	})
	return p, nil
}

// again opens the file once more, whatever has become of its name.
func (k *kept) again() (*kept, error) {
	file, err := again(k.file)
	if err != nil {
		return nil, err
	}
	own := &kept{blob: newBlob(file, k.size), blobs: k.blobs, digest: k.digest, path: k.path}
	own.once.Do(func() { own.checks = k.checks })
	return own, nil
}

// proveWhole reads the file, makes its checksums, and sets it aside where it
// does not have its digest. Its error says only that this could not be done.
func (k *kept) proveWhole(ctx context.Context, told io.Writer) error {
	began := time.Now()
	is, err := identify(k.file)
	if err != nil {
		return err
	}
	var made summing
	hash := k.digest.Algorithm().Hash()
	pace := func(int) error { return k.blobs.faults.refuse(k.blobs.faults.read) }
	err = readPaced(ctx, io.NewSectionReader(k.file, 0, k.size), io.MultiWriter(hash, &made, told), k.size, pace)
	got := digest.NewDigest(k.digest.Algorithm(), hash)
	switch {
	case err != nil && !unreadable(err):
		return err
	case err != nil || got != k.digest:
		k.spoil(0, err, "content", got.String())
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
