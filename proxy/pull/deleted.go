package pull

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// tagNotFound answers for a tag that the upstream says does not exist. It drops
// the record of the tag, unless the tag is served even when it is gone.
func (p *Puller) tagNotFound(ctx context.Context, u Upstream, repo Repository, tag string, err error) (Manifest, error) {
	rec, onRecord := p.ledger.Tag(repo, tag)
	if onRecord && p.isServedWhenGone(u, repo, tag, rec) {
		if cached, ok := p.cachedManifest(ctx, repo, rec.Descriptor.Digest); ok {
			if rec, ok = p.ledger.MarkGone(repo, tag, rec); ok {
				return warnIfGone(rec, cached), nil
			}
			return Manifest{}, fmt.Errorf("%w: tag %s moved while it was being checked", upstream.ErrUnavailable, tag) // the next check settles it
		}
	}
	p.ledger.DropTag(repo, tag)
	if !isReferrersTag(tag) {
		p.keepAbsence(repo, tag, time.Now())
		p.negative.put(manifestKey(repo, tag), err)
		return Manifest{}, err
	}
	said := saidAt(ctx)
	p.keepAbsence(repo, tag, said)
	p.negative.putSaid(manifestKey(repo, tag), err, said, p.rules.ReferrersTTL)
	return Manifest{}, &DatedError{err, said}
}

// isServedWhenGone says whether a cached tag is still served after the upstream
// has deleted it, because the configuration says so for the upstream or because
// the image is pinned. Tags that carry referrers are never served then: that
// would keep a withdrawn signature alive.
func (p *Puller) isServedWhenGone(u Upstream, repo Repository, tag string, rec metadata.Tag) bool {
	if isReferrersTag(tag) {
		return false
	}
	return u.ServeDeleted || p.ledger.IsPinned(repo, tag) || p.ledger.IsPinned(repo, rec.Descriptor.Digest.String())
}

// warnIfGone adds a warning to a cached manifest if its tag is gone.
func warnIfGone(t metadata.Tag, cached Manifest) Manifest {
	if since := t.GoneTime(); !since.IsZero() {
		cached.Outcome = Deleted
		cached.Warnings = append(slices.Clip(cached.Warnings), `299 - "the upstream has deleted this tag: gone since `+since.Format(time.RFC3339)+`"`)
	}
	return cached
}
