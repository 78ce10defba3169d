package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// manifestByTag answers for what can change: the table "A tag" of the design,
// row by row.
func (p *Puller) manifestByTag(ctx context.Context, u Upstream, repo Repository, tag string) (Manifest, error) {
	rec, onRecord := p.meta.Tag(repo, tag)
	var kept Manifest
	if onRecord {
		kept, onRecord = p.keptManifest(ctx, repo, rec.Descriptor.Digest)
		kept = tellGone(rec, kept)
	}
	if onRecord && p.fresh(u, repo, tag, rec) {
		return kept, nil
	}
	if !onRecord {
		if err := p.absent.err(manifestKey(repo, tag)); err != nil {
			m, err := p.madeFromReferrers(ctx, repo, tag, err)
			if err != nil {
				m.Outcome = Negative
			}
			return m, err
		}
	}
	if p.opts.Offline {
		if onRecord {
			return stale(kept), nil
		}
		return p.madeFromReferrers(ctx, repo, tag, fmt.Errorf("tag %s of %s: %w", tag, repo, ErrOffline))
	}

	wait := ctx
	if onRecord {
		// The client waits a moment; the check itself goes on.
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, p.opts.MaxWait, errTooLong)
		defer cancel()
	}
	m, err := once(wait, p, &p.checks, metadata.Key(repo, tag), func(ctx context.Context) (Manifest, error) {
		return p.checkTag(ctx, u, repo, tag, false)
	})
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return Manifest{}, context.Cause(ctx)
	case errors.Is(err, upstream.ErrNotFound), !onRecord && cannotTell(err):
		return p.madeFromReferrers(ctx, repo, tag, fmt.Errorf("tag %s of %s: %w", tag, repo, err))
	case onRecord && cannotTell(err):
		p.log.Debug("tag could not be checked", "upstream", repo.Upstream, "repository", repo.Name, "tag", tag, "error", err)
		return stale(kept), nil
	}
	return Manifest{}, fmt.Errorf("tag %s of %s: %w", tag, repo, err)
}

// errTooLong ends a client's wait for a check, not the check.
var errTooLong = fmt.Errorf("%w: the check takes longer than max_wait", upstream.ErrTimeout)

func stale(m Manifest) Manifest {
	m.Stale, m.Outcome = true, Stale
	return m
}

// cannotTell says that an error is no word of the upstream about the content.
func cannotTell(err error) bool {
	var limited *upstream.RateLimitedError
	return errors.Is(err, upstream.ErrUnavailable) || errors.As(err, &limited)
}

// fresh says whether a tag needs no check. As the upstream's quota runs low,
// freshness stretches, up to tenfold. A check in the future is none: a clock
// was wrong then, or is now.
func (p *Puller) fresh(u Upstream, repo Repository, tag string, rec metadata.Tag) bool {
	if !rec.GoneSince.IsZero() && !p.outlives(u, repo, tag, rec) {
		return false // nobody wants it served any more
	}
	if u.Immutable != nil && u.Immutable(tag) && !isFallbackTag(tag) {
		return true
	}
	ttl := p.opts.TagTTL
	if u.Quota != nil {
		const low = 0.2
		if left := u.Quota(); left < low {
			ttl = time.Duration(float64(ttl) * min(10, low/max(left, low/10)))
		}
	}
	age := time.Since(rec.CheckedAt)
	return age >= 0 && age < ttl
}

// isFallbackTag says whether a tag has the shape of a referrers tag. Those
// move, whatever a pattern says (wire fact W56).
func isFallbackTag(tag string) bool {
	return strings.HasPrefix(tag, "sha256-") || strings.HasPrefix(tag, "sha512-")
}

// checkTag asks the upstream what a tag points at now. A tag that is on record
// is asked for with HEAD first; probe says that another is as well, and that a
// HEAD's word is enough to say that it is not there.
func (p *Puller) checkTag(ctx context.Context, u Upstream, repo Repository, tag string, probe bool) (Manifest, error) {
	rec, onRecord := p.meta.Tag(repo, tag)
	var there Digest // what a HEAD says that the tag points at
	if onRecord || probe {
		kept, ok := p.keptManifest(ctx, repo, rec.Descriptor.Digest)
		if ok && p.fresh(u, repo, tag, rec) {
			return tellGone(rec, kept), nil // checked since the caller looked
		}
		desc, err := u.Registry.Resolve(ctx, repo.Name, tag)
		switch {
		case errors.Is(err, upstream.ErrNotFound) && !onRecord:
			return p.tagGone(ctx, u, repo, tag, err)
		case errors.Is(err, upstream.ErrNotFound), errors.Is(err, upstream.ErrUnsupported):
			// For the word of a HEAD alone nothing that is kept is forgotten (W44),
			// and some know no HEAD: the GET below tells as well.
		case err != nil:
			return Manifest{}, err
		case ok && desc.Digest == rec.Descriptor.Digest:
			p.meta.TouchTag(repo, tag, rec)
			kept.Outcome = Revalidated
			return kept, nil
		case desc.Digest != "":
			m, err := p.manifestByDigest(ctx, u, repo, desc.Digest)
			if err == nil {
				return m, p.pointTag(ctx, repo, tag, m)
			}
			if !errors.Is(err, upstream.ErrNotFound) {
				return Manifest{}, err
			}
			// The tag is there, and what the header says that it points at is
			// not: the header may be wrong.
			there = desc.Digest
		}
	}
	m, err := p.fetchManifest(ctx, u, repo, tag, "")
	switch {
	case errors.Is(err, upstream.ErrNotFound) && there != "":
		// That is no word about the tag, so the cause is told but not wrapped.
		return Manifest{}, fmt.Errorf("%w: tag %s points at %s: %v", upstream.ErrBadAnswer, tag, there, err) //nolint:errorlint // see above
	case errors.Is(err, upstream.ErrNotFound):
		return p.tagGone(ctx, u, repo, tag, err)
	case err != nil:
		return Manifest{}, err
	}
	// The record moves only now, with the manifest kept.
	p.absent.forget(manifestKey(repo, tag))
	return m, p.pointTag(ctx, repo, tag, m)
}

// pointTag notes where a tag points now.
func (p *Puller) pointTag(ctx context.Context, repo Repository, tag string, to Manifest) error {
	if to.passed {
		return nil // nothing that a record could point at
	}
	if subject, ok := referrers.SubjectOf(tag); ok {
		p.meta.DoubtNone(repo, subject) // there is a list now
	}
	p.meta.PutTag(repo, tag, metadata.Tag{Descriptor: to.Descriptor})
	if p.meta.IsPinned(repo, tag) {
		select {
		case p.moved <- struct{}{}:
		default:
		}
	}
	if _, ok := p.meta.Manifest(repo, to.Descriptor.Digest); ok {
		return nil
	}
	// It went in the moment before the tag kept it.
	_, err := p.keepManifest(ctx, repo, to.Descriptor.MediaType, to.Bytes, to.Descriptor.Digest)
	return err
}
