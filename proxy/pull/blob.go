package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// piece is the most that goes to a client between two looks at it, in
	// bytes: small enough that a slow client shows that it still reads.
	piece = 256 << 10
	// farAhead is how far a range may lie before a flight, in bytes, and still
	// be worth waiting for.
	farAhead = 4 << 20
	// smallBlob is the size in bytes up to which blobs are kept in memory too:
	// configs and the empty descriptor, not layers.
	smallBlob = 64 << 10
)

// ResolveBlob says whether a repository has a blob (HEAD). It never downloads.
func (p *Puller) ResolveBlob(ctx context.Context, repo Repository, d Digest) (Descriptor, Outcome, error) {
	u, err := p.admit(repo)
	if err != nil {
		return Descriptor{}, "", err
	}
	if _, known := p.meta.Member(repo, d); known {
		if size, err := p.opts.Blobs.Stat(ctx, d); err == nil {
			return Descriptor{Digest: d, Size: size}, Hit, nil
		}
		if size, ok := p.flights.get(d).flowingSize(); ok {
			return Descriptor{Digest: d, Size: size}, Joined, nil
		}
	}
	desc, err := p.askBlob(ctx, u, repo, d)
	return desc, Miss, err
}

func blobKey(repo Repository, d Digest) string {
	return "blob\x00" + metadata.Key(repo, d.String())
}

// askBlob asks the upstream whether repo has d, and remembers that it does.
func (p *Puller) askBlob(ctx context.Context, u Upstream, repo Repository, d Digest) (Descriptor, error) {
	key := blobKey(repo, d)
	if err := p.absent.err(key); err != nil {
		return Descriptor{}, err
	}
	if p.opts.Offline {
		return Descriptor{}, fmt.Errorf("blob %s of %s: %w", d, repo, ErrOffline)
	}
	return once(ctx, p, &p.asks, key, func(ctx context.Context) (Descriptor, error) {
		desc, err := u.Registry.ResolveBlob(ctx, repo.Name, d)
		switch {
		case err == nil:
			p.meta.PutMember(repo, d, metadata.Member{Size: desc.Size})
		case errors.Is(err, upstream.ErrNotFound):
			p.absent.remember(key, err)
		}
		return desc, err
	})
}

// Blob opens a blob of a repository: from what is kept, from the flight that is
// under way, or with a flight of its own, once its upstream has answered: only
// the answer tells its size.
func (p *Puller) Blob(ctx context.Context, repo Repository, d Digest) (Blob, error) {
	b, err := p.openBlob(ctx, repo, d)
	if err == nil {
		p.meta.UseBlob(d) // not of what is not there: whoever asks for that would fill the records
	}
	return b, err
}

func (p *Puller) openBlob(ctx context.Context, repo Repository, d Digest) (Blob, error) {
	u, err := p.admit(repo)
	if err != nil {
		return nil, err
	}
	member, known := p.meta.Member(repo, d)
	if !known && p.holdsForOthers(ctx, repo, d) {
		// The bytes are here, by way of another repository. That this one has
		// them too only its upstream can say.
		desc, err := p.askBlob(ctx, u, repo, d)
		if err != nil {
			return nil, err
		}
		member.Size, known = desc.Size, true
	}
	anew := false
	if known {
		b, err := p.openKept(ctx, u, repo, d)
		if err == nil {
			return b, nil
		}
		anew = !errors.Is(err, cache.ErrNotFound) // it is there and can't be read
	} else {
		member.Size = -1
	}
	return p.openFlight(ctx, u, repo, Descriptor{Digest: d, Size: member.Size}, known, anew)
}

// holdsForOthers says whether the bytes of d are here, or on their way, by way
// of another repository than repo.
func (p *Puller) holdsForOthers(ctx context.Context, repo Repository, d Digest) bool {
	if f := p.flights.get(d); f != nil {
		return f.repo != repo
	}
	_, err := p.opts.Blobs.Stat(ctx, d)
	return err == nil
}

func (p *Puller) openKept(ctx context.Context, u Upstream, repo Repository, d Digest) (Blob, error) {
	if content, ok := p.opts.Memory.Get(d); ok {
		return inMemory{d, content}, nil
	}
	file, err := p.opts.Blobs.Open(ctx, d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			p.log.Error("kept blob cannot be read", "digest", d.String(), "error", err)
		}
		return nil, err
	}
	if file.Size() > smallBlob {
		return newOnDisk(p, u, repo, d, file), nil
	}
	defer file.Close()
	content, err := p.readProven(ctx, d, file)
	if err != nil {
		p.log.Error("kept blob cannot be read", "digest", d.String(), "error", err)
		return nil, err
	}
	p.opts.Memory.Put(d, content)
	return inMemory{d, content}, nil
}

// readProven reads content that is small enough to be proven each time it
// comes from disk. What is damaged is set aside, so that what is fetched
// instead is kept.
func (p *Puller) readProven(ctx context.Context, d Digest, file cache.Blob) ([]byte, error) {
	content, err := io.ReadAll(file)
	if err == nil && d.Algorithm().FromBytes(content) == d {
		return content, nil
	}
	size, verifyErr := p.opts.Blobs.Verify(ctx, d, func(int) error { return nil })
	p.noteAside(verifyErr, size)
	return nil, fmt.Errorf("read %s: %w", d, errors.Join(cache.ErrMismatch, err, verifyErr))
}

// openFlight joins or starts the flight for a blob; anew says, whatever is kept.
func (p *Puller) openFlight(ctx context.Context, u Upstream, repo Repository, want Descriptor, known, anew bool) (Blob, error) {
	if err := p.absent.err(blobKey(repo, want.Digest)); err != nil {
		return nil, err
	}
	if p.opts.Offline {
		return nil, fmt.Errorf("blob %s of %s: %w", want.Digest, repo, ErrOffline)
	}
	f, started, err := p.fly(u, repo, want, anew, nil)
	if err != nil {
		return nil, err
	}
	if f == nil { // landed since we looked
		return p.openBlob(ctx, repo, want.Digest)
	}
	b := &inFlight{p: p, u: u, repo: repo, f: f, started: started, mends: p.sent.to(want.Digest)}
	another := !started && f.repo != repo
	size, err := f.known(ctx)
	switch {
	case err == nil:
		b.size = size
	case another:
		// Another's flight failed; that says nothing about this repository.
		b.Close()
		return p.openBlob(ctx, repo, want.Digest)
	default:
		b.Close()
		return nil, err
	}
	if another && !known {
		if _, err := p.askBlob(ctx, u, repo, want.Digest); err != nil {
			b.Close()
			return nil, err
		}
	}
	return b, nil
}

// inMemory is a small blob.
type inMemory struct {
	digest  Digest
	content []byte
}

func (b inMemory) Digest() Digest   { return b.digest }
func (b inMemory) Size() int64      { return int64(len(b.content)) }
func (b inMemory) Outcome() Outcome { return Hit }
func (b inMemory) Close() error     { return nil }

func (b inMemory) WriteRange(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	rest := b.content[min(off, b.Size()):]
	if n >= 0 {
		rest = rest[:min(n, int64(len(rest)))]
	}
	written, err := w.Write(rest)
	return int64(written), err
}
