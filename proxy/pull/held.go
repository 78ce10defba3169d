package pull

import (
	"context"
	"errors"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
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
	switch {
	case m.Confirmed:
		return m, true
	case m.IsOld():
		return m, p.holdsOld(ctx, repo, d)
	}
	return m, !p.isPrivate(d)
}

// holdsOld says whether what is here of a blob may be served for a repository
// that has it according to an older version of the program, which believed
// manifests, too. If the upstream has credentials, or the blob may be private, it
// is asked once. Where it can't be asked, the old record is believed: it was
// served before, and a cache that is updated while it is offline must not lose
// its images.
func (p *Puller) holdsOld(ctx context.Context, repo Repository, d Digest) bool {
	u := p.upstreams[repo.Upstream]
	if !u.Credentialed && !p.isPrivate(d) || !p.isHeldForOthers(ctx, repo, d) {
		return true
	}
	if p.rules.MaxWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.rules.MaxWait, errTooLong)
		defer cancel()
	}
	_, err := p.resolveUpstreamBlob(ctx, u, repo, d)
	if errors.Is(err, upstream.ErrNotFound) {
		p.ledger.DropOldMember(repo, d)
	}
	return err == nil || IsInconclusive(err) || ctx.Err() != nil
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
	case source.repo == repo, known && m.Confirmed:
		return nil
	case known && !source.u.Credentialed && !p.ledger.IsPrivate(d):
		return nil
	}
	_, err := p.resolveUpstreamBlob(ctx, u, repo, d)
	return err
}
