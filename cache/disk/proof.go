package disk

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk/files"
)

const (
	// proofTimeout is how long a reader of a file without checksums waits for
	// the whole file to be verified. After that it gets bytes as they are read,
	// except for the last ones, because clients have timeouts, too.
	proofTimeout = 5 * time.Second
	// proofHoldback is how many bytes at the end are never sent before the file
	// is verified.
	proofHoldback = 4 << 10
)

// proof is one verification of a whole file without checksums: it was stored by
// a version without them, or a crash lost them.
type proof struct {
	done chan struct{}
	err  error // valid once done is closed

	mu       sync.Mutex
	read     int64         // bytes so far
	advanced chan struct{} // closed when more is read; nil if nobody waits
}

// Write records what was read.
func (p *proof) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read += int64(len(b))
	if p.advanced != nil {
		close(p.advanced)
		p.advanced = nil
	}
	return len(b), nil
}

// progress returns how much was read, and a channel that is closed when there
// is more.
func (p *proof) progress() (int64, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.advanced == nil {
		p.advanced = make(chan struct{})
	}
	return p.read, p.advanced
}

// waitForProof waits until the file has checksums, or can't have any. If that
// takes too long, it returns how many of the n bytes at off may be sent before.
func (k *publishedBlob) waitForProof(ctx context.Context, off, n int64) (passes int64, err error) {
	p, err := k.startProof()
	if p == nil {
		return 0, err
	}
	late := k.sentUnproven.Load()
	timer := time.NewTimer(proofTimeout)
	defer timer.Stop()
	for {
		read, moved := p.progress()
		if end := min(read, k.size-proofHoldback, off+n); late && end > off {
			k.sentUnproven.Store(true)
			return end - off, nil
		}
		select {
		case <-p.done:
			return 0, p.err
		case <-moved:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// startProof returns the proof in progress, or starts one if the file needs it.
// The proof is shared, so it does not end with the caller that started it.
func (k *publishedBlob) startProof() (*proof, error) {
	c := k.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.damaged || c.sums != nil || sumsLength(c.size) == 0 || c.proof != nil {
		return c.proof, nil
	}
	file, err := k.reopen()
	if err != nil {
		return nil, err
	}
	p := &proof{done: make(chan struct{})}
	began := k.blobs.proofs.start(k.blobs.ctx, func() {
		defer file.Close()
		p.err = file.verifyAll(k.blobs.ctx, p)
		c.mu.Lock()
		c.proof = nil
		c.mu.Unlock()
		close(p.done)
	})
	if !began {
		return nil, errors.Join(context.Cause(k.blobs.ctx), file.Close())
	}
	c.proof = p
	return p, nil
}

// proofs are those in progress.
type proofs struct {
	mu  sync.Mutex // held while one is added, so that Close waits for all of them
	all sync.WaitGroup
}

// start runs a proof, unless ctx is done.
func (p *proofs) start(ctx context.Context, run func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	p.all.Go(run)
	return true
}

// end calls cancel, which ends the context of proofs.
func (p *proofs) end(cancel context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cancel()
}

// reopen opens the file again, even if its name is gone.
func (k *publishedBlob) reopen() (*publishedBlob, error) {
	file, err := k.file.Reopen()
	if err != nil {
		return nil, err
	}
	own := &publishedBlob{blob: newBlob(file, k.size), blobs: k.blobs, digest: k.digest, path: k.path}
	own.once.Do(func() { own.checks = k.checks })
	return own, nil
}

// verifyAll reads the file, computes its checksums, and quarantines it if the
// digest does not match. It only returns an error if the file could not be
// verified.
func (k *publishedBlob) verifyAll(ctx context.Context, progress io.Writer) error {
	began := time.Now()
	is, err := k.file.Identify()
	if err != nil {
		return err
	}
	var made sumWriter
	hash := k.digest.Algorithm().Hash()
	pace := func(int) error { return k.blobs.faults.inject(k.blobs.faults.read) }
	err = readPaced(ctx, io.NewSectionReader(k.file, 0, k.size), io.MultiWriter(hash, &made, progress), k.size, pace)
	got := digest.NewDigest(k.digest.Algorithm(), hash)
	switch {
	case err != nil && !isReadDamage(err):
		return err
	case err != nil || got != k.digest:
		k.markDamaged(0, err, "content", got.String())
		return nil
	}
	now, err := k.file.Identify()
	k.checks.proven(made.sums(), is, err == nil && now == is && settled(is, began), began)
	k.blobs.saveSums(k.digest, k.path, k.file, made.sums())
	return nil
}

// proven records the checksums of a file, and that all of it is undamaged if
// that is still certain.
func (c *checks) proven(s sums, is files.Identity, sound bool, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sums = s
	if !sound {
		return
	}
	c.identity, c.since = is, began
	for i := range c.checked {
		c.checked[i] = ^uint64(0)
	}
}
