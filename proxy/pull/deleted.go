package pull

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// tagGone answers for a tag that the upstream says is not there. One that is on
// record is forgotten, unless it outlives that.
func (p *Puller) tagGone(ctx context.Context, u Upstream, repo Repository, tag string, err error) (Manifest, error) {
	rec, onRecord := p.meta.Tag(repo, tag)
	if onRecord && p.outlives(u, repo, tag, rec) {
		if kept, ok := p.keptManifest(ctx, repo, rec.Descriptor.Digest); ok {
			if rec, ok = p.meta.MarkGone(repo, tag, rec); ok {
				return tellGone(rec, kept), nil
			}
			return Manifest{}, fmt.Errorf("%w: tag %s has moved while it was asked for", upstream.ErrUnavailable, tag) // the next check tells
		}
	}
	p.meta.DropTag(repo, tag)
	p.absent.remember(manifestKey(repo, tag), err)
	return Manifest{}, err
}

// outlives says whether a kept tag goes on being served after the upstream has
// deleted it: because the configuration says so of the upstream, or somebody
// has pinned the image. A tag that carries referrers never does: a signature
// that was withdrawn would live on.
func (p *Puller) outlives(u Upstream, repo Repository, tag string, rec metadata.Tag) bool {
	if isFallbackTag(tag) {
		return false
	}
	return u.ServeDeleted || p.meta.IsPinned(repo, tag) || p.meta.IsPinned(repo, rec.Descriptor.Digest.String())
}

// tell says of a kept manifest that its tag is gone, where it is.
func tellGone(t metadata.Tag, kept Manifest) Manifest {
	if since := goneSince(t); !since.IsZero() {
		kept.Outcome = Deleted
		kept.Warnings = append(slices.Clip(kept.Warnings), `299 - "the upstream has deleted this tag: gone since `+since.Format(time.RFC3339)+`"`)
	}
	return kept
}

// goneSince is zero for a tag that is there. A time in the future is no time:
// then it is known to be gone now.
func goneSince(t metadata.Tag) time.Time {
	if now := time.Now(); t.GoneSince.After(now) {
		return now.UTC().Truncate(time.Second)
	}
	return t.GoneSince
}
