package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// Bytes are shared between repositories, and permission to read them is not. A
// blob is served for a repository that its upstream has said to have it. Where
// only a manifest says so, that is enough for what anyone can read, and not for
// what was fetched with credentials: the upstream is asked once, and its answer
// is remembered.

// holds returns what is known of a blob of a repository, and whether what is
// here of it may be served for that repository.
func (p *Puller) holds(ctx context.Context, repo Repository, d Digest) (metadata.Member, bool) {
	m, known := p.member(ctx, repo, d)
	if !known {
		return metadata.Member{Size: -1}, false
	}
	return m, !m.Named || !p.isPrivate(d)
}

// isPrivate says whether what is here of a blob, be it whole or not, may be
// private to a repository.
func (p *Puller) isPrivate(d Digest) bool {
	if p.ledger.IsPrivate(d) {
		return true
	}
	if f := p.flights.Get(d); f != nil {
		return f.Source().(*blobSource).u.Credentialed
	}
	if kept, ok := p.store.Kept(d); ok {
		of, err := flight.OriginOf(kept.Note)
		u, configured := p.upstreams[of.Upstream]
		return err != nil || !configured || u.Credentialed
	}
	return false
}

// putHeld records that an upstream has said that a repository has a blob.
func (p *Puller) putHeld(u Upstream, repo Repository, d Digest, size int64) {
	if m := (metadata.Member{Size: size}); u.Credentialed || p.ledger.IsPrivate(d) {
		p.ledger.PutHeld(repo, d, m)
	} else {
		p.ledger.PutMember(repo, d, m)
	}
}

// confirm asks the upstream whether a repository has a blob, unless what is here
// of it may be served for it already.
func (p *Puller) confirm(ctx context.Context, u Upstream, repo Repository, d Digest) error {
	if _, ok := p.holds(ctx, repo, d); ok {
		return nil
	}
	_, err := p.resolveUpstreamBlob(ctx, u, repo, d)
	return err
}

// confirmJoined does that for a download that was joined.
func (p *Puller) confirmJoined(ctx context.Context, f *flight.Flight, u Upstream, repo Repository, d Digest) error {
	source := f.Source().(*blobSource)
	m, known := p.member(ctx, repo, d)
	switch {
	case source.repo == repo, known && !m.Named:
		return nil
	case known && !source.u.Credentialed && !p.ledger.IsPrivate(d):
		return nil
	}
	_, err := p.resolveUpstreamBlob(ctx, u, repo, d)
	return err
}
