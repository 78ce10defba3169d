package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// pieceSize is the largest number of bytes written to a client at once. It is
// small enough to notice that a slow client still makes progress.
const pieceSize = 256 << 10

// Span is a part of a blob, from one offset up to another.
type Span = cache.Span

// Want is what a client wants to read of a blob. The zero value is all of it.
type Want struct {
	// Parts returns the parts that are read, in order, of a blob of size bytes.
	// If size is -1, it returns what does not depend on it, or nil. If Parts is
	// nil, everything is wanted.
	Parts func(size int64) []Span
	// ToEnd means that there is one part, which has all the rest of the blob.
	ToEnd bool
}

// options describe it to a download, as far as it is known for a blob of size
// bytes, or of unknown size if that is -1.
func (w Want) options(size int64) flight.ReadOptions {
	if w.Parts == nil {
		return flight.ReadOptions{}
	}
	parts := w.Parts(size)
	if len(parts) == 0 {
		parts = []Span{{From: 0, To: 1}} // they are outside of it, or depend on its size: that has to be found out
	}
	return flight.ReadOptions{Parts: parts, ToEnd: w.ToEnd}
}

// isAllInParts says whether several parts are all of a blob of size bytes, in
// any order. Such an answer has to be proven like one that has all in one part.
func (w Want) isAllInParts(size int64) bool {
	if w.Parts == nil || size < 0 {
		return false
	}
	var all cache.Spans
	for _, part := range w.Parts(size) {
		all.Add(part)
	}
	return all.End(0) >= size
}

// ResolveBlob says whether a repository has a blob (HEAD). It never downloads
// the blob. If the upstream does not say so in time, what is on record is said,
// and the outcome is Stale.
func (p *Puller) ResolveBlob(ctx context.Context, repo Repository, d Digest) (Descriptor, Outcome, error) {
	type resolved struct {
		Descriptor
		Outcome
	}
	r, err := duringOutage(ctx, p, func() (resolved, error) {
		desc, outcome, err := p.resolveBlob(ctx, repo, d)
		return resolved{desc, outcome}, err
	})
	return r.Descriptor, r.Outcome, err
}

func (p *Puller) resolveBlob(ctx context.Context, repo Repository, d Digest) (Descriptor, Outcome, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Descriptor{}, "", err
	}
	ctx, cancel := p.asClient(ctx)
	defer cancel()
	member, holds := p.holds(ctx, repo, d)
	if holds {
		if size, err := p.store.Stat(ctx, d); err == nil {
			return Descriptor{Digest: d, Size: size}, Hit, nil
		}
		if f := p.flights.Get(d); f != nil {
			if size, ok := f.KnownSize(); ok {
				return Descriptor{Digest: d, Size: size}, Joined, nil
			}
		}
		if kept, ok := p.store.Kept(d); ok && kept.Size >= 0 {
			return Descriptor{Digest: d, Size: kept.Size}, Hit, nil
		}
	}
	wait := ctx
	onRecord := holds && member.Size >= 0
	if onRecord && p.rules.MaxWait > 0 {
		// As for a tag on record: the question goes on, and what it finds is
		// for the next client.
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, p.rules.MaxWait, errTooLong)
		defer cancel()
	}
	desc, err := p.resolveUpstreamBlob(wait, u, repo, d)
	if onRecord && err != nil && wait.Err() != nil && ctx.Err() == nil {
		return Descriptor{Digest: d, Size: member.Size}, Stale, nil
	}
	return desc, Miss, err
}

func blobKey(repo Repository, d Digest) string {
	return "blob\x00" + metadata.Key(repo, d.String())
}

// resolveUpstreamBlob asks the upstream whether repo has d, and records the
// answer.
func (p *Puller) resolveUpstreamBlob(ctx context.Context, u Upstream, repo Repository, d Digest) (Descriptor, error) {
	key := blobKey(repo, d)
	if err := p.negative.get(key); err != nil {
		return Descriptor{}, err
	}
	if u.Offline {
		return Descriptor{}, fmt.Errorf("blob %s of %s: %w", d, repo, ErrOffline)
	}
	return shareRequest(ctx, p, p.requests.others, key, func(ctx context.Context) (Descriptor, error) {
		desc, err := u.Registry.ResolveBlob(ctx, repo.Name, d)
		switch {
		case err == nil:
			p.putHeld(u, repo, d, desc.Size)
		case errors.Is(err, upstream.ErrNotFound):
			p.negative.put(key, err)
		}
		return desc, err
	})
}

// Blob opens a blob of a repository: from the cache, from a download that is
// under way, or from a new download. For a new download it waits for the
// upstream's answer, because only that tells the size. If that takes too long,
// the download goes on without this client.
func (p *Puller) Blob(ctx context.Context, repo Repository, d Digest, want Want) (Blob, error) {
	if b, ok := p.rememberedBlob(repo, d); ok {
		return b, nil
	}
	b, err := duringOutage(ctx, p, func() (Blob, error) {
		ctx, cancel := p.asClient(ctx)
		defer cancel()
		return p.openBlob(ctx, repo, d, want)
	})
	if err == nil {
		p.ledger.UseBlob(d) // only if it exists, or requests for unknown digests would fill the records
	}
	return b, err
}

func (p *Puller) openBlob(ctx context.Context, repo Repository, d Digest, want Want) (Blob, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return nil, err
	}
	member, holds := p.holds(ctx, repo, d)
	if !holds && p.isHeldForOthers(ctx, repo, d) {
		// The content is here because another repository has it. Only the
		// upstream can say whether this repository has it too.
		desc, err := p.resolveUpstreamBlob(ctx, u, repo, d)
		if err != nil {
			return nil, err
		}
		member.Size, holds = desc.Size, true
	}
	refetch := false
	if holds {
		b, err := p.openCached(ctx, u, repo, d)
		if err == nil {
			return b, nil
		}
		refetch = !errors.Is(err, cache.ErrNotFound) // it is there but cannot be read
	}
	return p.openDownload(ctx, u, repo, Descriptor{Digest: d, Size: member.Size}, downloadOptions{want, refetch})
}

// isHeldForOthers says whether the content of d is cached or being downloaded
// on behalf of a repository other than repo.
func (p *Puller) isHeldForOthers(ctx context.Context, repo Repository, d Digest) bool {
	if f := p.flights.Get(d); f != nil {
		return startedFor(f) != repo
	}
	if kept, ok := p.store.Kept(d); ok {
		of, err := flight.OriginOf(kept.Note)
		return err != nil || of != originOf(repo)
	}
	_, err := p.store.Stat(ctx, d)
	return err == nil
}

func (p *Puller) openCached(ctx context.Context, u Upstream, repo Repository, d Digest) (Blob, error) {
	content, file, err := p.store.Open(ctx, d)
	switch {
	case err != nil:
		return nil, err
	case file != nil:
		return newDiskBlob(p, u, repo, d, file), nil
	}
	return memoryBlob{d, content}, nil
}

// downloadOptions say how a blob is downloaded.
type downloadOptions struct {
	want    Want
	refetch bool // download it even if it is cached
}

// openDownload joins or starts the download of a blob.
func (p *Puller) openDownload(ctx context.Context, u Upstream, repo Repository, blob Descriptor, opts downloadOptions) (Blob, error) {
	if err := checkVerifiable(blob.Digest); err != nil {
		return nil, fmt.Errorf("blob of %s: %w", repo, err)
	}
	if err := p.negative.get(blobKey(repo, blob.Digest)); err != nil {
		return nil, err
	}
	if late, ok := p.requests.others.late.Get(downloadKey(repo, blob.Digest)); ok {
		return nil, late.err
	}
	if u.Offline && !p.hasPieces(blob.Digest, opts.want) {
		return nil, fmt.Errorf("blob %s of %s: %w", blob.Digest, repo, ErrOffline)
	}
	hint := p.sizeHint(blob)
	source := p.newBlobSource(u, repo, blob.Digest)
	start := source.startOptions()
	start.Refetch = opts.refetch
	start.Look = opts.want.Parts != nil
	f, started, err := p.flights.Join(blob, start)
	switch {
	case errors.Is(err, ErrBusy):
		// The client is no worse off than without a mirror.
		start.Look = false
		f, started = p.flights.StartPrivate(blob, start), true
		source.NotCached()
	case err != nil:
		return nil, err
	case f == nil: // it was completed in the meantime
		return p.openBlob(ctx, repo, blob.Digest, opts.want)
	}
	if startedFor(f).Upstream != repo.Upstream {
		// Nobody gets what another upstream sends before it is verified, nor waits
		// for it.
		b, inOrder, err := p.openElsewhere(ctx, f, source, opts.want)
		if b != nil || err != nil {
			return b, err
		}
		if inOrder {
			f.Release()
			start.Look = false
			f, started = p.flights.JoinBeside(blob, start), false
		}
	}
	foreign := !started && startedFor(f) != repo
	b := &flightBlob{source: source, f: f, started: started, want: opts.want, repairs: p.diskReaders.any(blob.Digest)}
	b.read(opts.want.options(hint))
	size, err := f.Size(ctx)
	if remains, ok := f.Remains(); ok && opts.want.Parts != nil {
		size, err = remains, nil // what is wanted may be among it
	}
	switch {
	case err == nil:
		b.size = size
		b.status, _ = ctx.Deadline()
		b.holdIfAll()
	case ctx.Err() != nil:
		if errors.Is(err, errWaited) {
			p.awaitReturn(f)
		}
		b.Close()
		return nil, err // the download goes on
	case foreign:
		// The download of another repository failed. That says nothing about
		// this repository.
		b.Close()
		return p.openBlob(ctx, repo, blob.Digest, opts.want)
	default:
		b.Close()
		return nil, err
	}
	if err := p.confirmJoined(ctx, f, u, repo, blob.Digest); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// hasPieces says whether there may be pieces of a blob for a client that asks for
// ranges.
func (p *Puller) hasPieces(d Digest, want Want) bool {
	_, kept := p.store.Kept(d)
	return want.Parts != nil && (kept || p.flights.Get(d) != nil)
}

// sizeHint is the size of a blob of which ranges are wanted, as far as it is
// known, or -1.
func (p *Puller) sizeHint(blob Descriptor) int64 {
	if f := p.flights.Get(blob.Digest); f != nil {
		if size, ok := f.KnownSize(); ok {
			return size
		}
	}
	if kept, ok := p.store.Kept(blob.Digest); ok && kept.Size >= 0 {
		return kept.Size
	}
	return blob.Size
}

// memoryBlob is a small blob that is held in memory.
type memoryBlob struct {
	digest  Digest
	content []byte
}

func (b memoryBlob) Digest() Digest   { return b.digest }
func (b memoryBlob) Size() int64      { return int64(len(b.content)) }
func (b memoryBlob) Outcome() Outcome { return Hit }
func (b memoryBlob) Close() error     { return nil }

func (b memoryBlob) WriteRange(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	rest := b.content[min(off, b.Size()):]
	if n >= 0 {
		rest = rest[:min(n, int64(len(rest)))]
	}
	written, err := w.Write(rest)
	return int64(written), err
}
