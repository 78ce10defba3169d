package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// manifestByTag answers for a tag.
func (p *Puller) manifestByTag(ctx context.Context, u Upstream, repo Repository, tag string, wish []Freshness) (Manifest, error) {
	if subject, ok := referrers.SubjectOf(tag); ok {
		return p.referrersTag(withBody(ctx), u, repo, tag, subject, wish)
	}
	m, err := p.upstreamTag(ctx, u, repo, tag, wish)
	if err == nil && isReferrersTag(tag) {
		m.At = p.checkedAt(repo, tag, m)
	}
	return m, err
}

// checkedAt is when the upstream said that a tag points at a manifest.
func (p *Puller) checkedAt(repo Repository, tag string, m Manifest) time.Time {
	if rec, ok := p.ledger.Tag(repo, tag); ok && !m.Stale && rec.Descriptor.Digest == m.Descriptor.Digest {
		return rec.CheckedAt
	}
	return time.Time{}
}

// upstreamTag answers with what an upstream has under a tag. It follows the
// table "What a client gets" of the README, row by row.
func (p *Puller) upstreamTag(ctx context.Context, u Upstream, repo Repository, tag string, wish []Freshness) (Manifest, error) {
	rec, onRecord := p.ledger.Tag(repo, tag)
	var cached Manifest
	if onRecord {
		cached, onRecord = p.cachedManifest(ctx, repo, rec.Descriptor.Digest)
		cached = warnIfGone(rec, cached)
	}
	absent, said := p.negative.said(manifestKey(repo, tag)), rec.CheckedAt
	if !onRecord {
		said = absent.at
	}
	renew := p.requests.renewals.wanted(metadata.Key(repo, tag), wish, said)
	switch {
	case onRecord && renew.failed:
		return staleManifest(cached), nil
	case onRecord && p.isFresh(u, repo, tag, rec) && renew.allows(said):
		return cached, nil
	case !onRecord && absent.err != nil && renew.allows(said):
		if isReferrersTag(tag) {
			return Manifest{Outcome: Negative}, &DatedError{absent.err, absent.at}
		}
		return Manifest{Outcome: Negative}, absent.err
	case u.Offline && onRecord && !rec.Imported.At.IsZero():
		return cached, nil
	case u.Offline && onRecord:
		return staleManifest(cached), nil
	case u.Offline:
		return Manifest{Outcome: Negative}, fmt.Errorf("tag %s of %s: %w", tag, repo, p.offlineTag(repo, tag))
	}

	wait := ctx
	if most, cause := p.waitForCheck(tag, onRecord); most > 0 {
		// The client waits for a limited time. The check itself continues.
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, most, cause)
		defer cancel()
	}
	m, err := shareRequest(wait, p, p.requests.checks, metadata.Key(repo, tag), func(ctx context.Context) (Manifest, error) {
		if isReferrersTag(tag) {
			ctx = p.withMaxAge(ctx, renew)
		}
		m, err := p.checkTag(ctx, u, repo, tag, false, renew)
		p.requests.renewals.note(metadata.Key(repo, tag), renew, !m.Stale && !IsInconclusive(err))
		return m, err
	})
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return Manifest{}, context.Cause(ctx)
	case onRecord && IsInconclusive(err):
		p.log.Debug("tag could not be checked", "upstream", repo.Upstream, "repository", repo.Name, "tag", tag, "error", err)
		return staleManifest(cached), nil
	case upstream.IsAway(err) && p.isKeptAbsent(repo, tag):
		return Manifest{Outcome: Negative}, p.keptAbsence(repo, tag)
	}
	return Manifest{}, fmt.Errorf("tag %s of %s: %w", tag, repo, err)
}

// RenewManifest is WaitForManifest for whoever has to know what a tag points at
// now: where it is to be checked and the upstream can't be asked, it returns the
// reason, whatever is cached.
func (p *Puller) RenewManifest(ctx context.Context, repo Repository, ref string) (Manifest, error) {
	u, err := p.upstreamFor(repo)
	_, isDigest := digest.Parse(ref)
	if err != nil || isDigest == nil || isReferrersTag(ref) || u.Offline {
		return p.WaitForManifest(ctx, repo, ref)
	}
	if rec, ok := p.ledger.Tag(repo, ref); ok && p.isFresh(u, repo, ref, rec) {
		if m, ok := p.cachedManifest(ctx, repo, rec.Descriptor.Digest); ok {
			return warnIfGone(rec, m), nil
		}
	}
	m, err := shareRequest(ctx, p, p.requests.checks, metadata.Key(repo, ref), func(ctx context.Context) (Manifest, error) {
		return p.checkTag(ctx, u, repo, ref, false, renewal{})
	})
	if err != nil {
		return Manifest{}, fmt.Errorf("tag %s of %s: %w", ref, repo, err)
	}
	p.ledger.UseManifest(repo, m.Descriptor.Digest)
	return m, nil
}

// waitForCheck is how much less than its whole wait a client waits for a check:
// there may be something else to answer with.
func (p *Puller) waitForCheck(tag string, onRecord bool) (most time.Duration, cause error) {
	switch {
	case onRecord:
		return p.rules.MaxWait, errTooLong
	case isReferrersTag(tag):
		return max(p.rules.Wait-p.rules.Patience, p.rules.Wait/2), errWaited // there may be a list of its API
	}
	return 0, nil
}

// errTooLong ends a client's wait for a check. It does not end the check.
var errTooLong = fmt.Errorf("%w: the check takes longer than max_wait", upstream.ErrTimeout)

func staleManifest(m Manifest) Manifest {
	m.Stale, m.Outcome = true, Stale
	return m
}

// IsInconclusive says whether an error says nothing about the content itself:
// the upstream could not be asked, or is limiting requests.
func IsInconclusive(err error) bool {
	var limited *upstream.RateLimitedError
	return errors.Is(err, upstream.ErrUnavailable) || errors.As(err, &limited)
}

// IsFresh says whether a tag needs no check, according to its record.
func (p *Puller) IsFresh(repo Repository, tag string, rec metadata.Tag) bool {
	return p.isFresh(p.upstreams[repo.Upstream], repo, tag, rec)
}

// isFresh says whether a tag needs no check. When the upstream's quota runs
// low, tags stay fresh longer, up to ten times. A check in the future does not
// count: the clock was wrong then or is wrong now.
func (p *Puller) isFresh(u Upstream, repo Repository, tag string, rec metadata.Tag) bool {
	if !rec.GoneSince.IsZero() && !p.isServedWhenGone(u, repo, tag, rec) {
		return false // the configuration no longer asks to serve it
	}
	ttl := p.tagTTL(u)
	switch {
	case isReferrersTag(tag):
		ttl = p.rules.ReferrersTTL // whatever is so of other tags (W56)
	case u.Immutable != nil && u.Immutable(tag):
		return true
	}
	age := time.Since(rec.CheckedAt)
	return age >= 0 && age < ttl
}

// tagTTL is for how long what an upstream says of tags is fresh.
func (p *Puller) tagTTL(u Upstream) time.Duration {
	ttl := p.rules.TagTTL
	if p.isQuotaLow(u) {
		ttl = time.Duration(float64(ttl) * min(10, lowQuota/max(u.Quota(), lowQuota/10)))
	}
	return ttl
}

// lowQuota is the share of an upstream's rate limit below which it runs low.
const lowQuota = 0.2

func (p *Puller) isQuotaLow(u Upstream) bool { return u.Quota != nil && u.Quota() < lowQuota }

// isReferrersTag says whether a tag has the form of one that carries referrers:
// a referrers tag, or one of cosign's. They are as fresh as lists of referrers,
// wherever they are asked from, and mutable, whatever a pattern in the
// configuration says (W56).
func isReferrersTag(tag string) bool {
	return strings.HasPrefix(tag, "sha256-") || strings.HasPrefix(tag, "sha512-")
}

// checkTag asks the upstream what a tag points at now. If the tag is on record,
// it sends a HEAD request first. With probe set it also does so for other tags,
// and a HEAD request is then enough to conclude that the tag does not exist. A
// check that was made meanwhile will do if renew allows it.
func (p *Puller) checkTag(ctx context.Context, u Upstream, repo Repository, tag string, probe bool, renew renewal) (Manifest, error) {
	rec, onRecord := p.ledger.Tag(repo, tag)
	var headDigest Digest // what the tag points at according to HEAD
	if onRecord || probe {
		cached, ok := p.cachedManifest(ctx, repo, rec.Descriptor.Digest)
		if ok && p.isFresh(u, repo, tag, rec) && renew.allows(rec.CheckedAt) {
			return warnIfGone(rec, cached), nil // it was checked in the meantime
		}
		desc, err := u.Registry.Resolve(ctx, repo.Name, tag)
		switch {
		case errors.Is(err, upstream.ErrNotFound) && !onRecord:
			return p.tagNotFound(ctx, u, repo, tag, err)
		case errors.Is(err, upstream.ErrStale) && !ok:
			// A mirror that could not ask its own upstream. What it remembers is
			// better than nothing.
		case errors.Is(err, upstream.ErrNotFound), errors.Is(err, upstream.ErrUnsupported):
			// A HEAD request alone does not make us forget a cached tag (W44),
			// and some registries do not support HEAD. The GET request below
			// decides.
		case err != nil:
			return Manifest{}, err
		case ok && desc.Digest == rec.Descriptor.Digest:
			p.ledger.TouchTag(repo, tag, rec, saidAt(ctx))
			cached.Outcome = Revalidated
			return cached, nil
		case desc.Digest != "":
			m, err := p.manifestByDigest(ctx, u, repo, desc.Digest)
			if err == nil {
				return m, p.recordTag(ctx, repo, tag, m)
			}
			if !isServedByTagOnly(err) {
				return Manifest{}, err
			}
			// The tag exists, but the manifest named in the header does not:
			// the header may be wrong, or the registry has it by its tag alone.
			headDigest = desc.Digest
		}
	}
	m, err := p.fetchManifest(ctx, u, repo, tag, "", headDigest)
	switch {
	case errors.Is(err, upstream.ErrNotFound) && headDigest != "":
		// This error is not about the tag, so it is shown but not wrapped.
		return Manifest{}, fmt.Errorf("%w: tag %s points at %s: %v", upstream.ErrInvalidResponse, tag, headDigest, err) //nolint:errorlint // see above
	case errors.Is(err, upstream.ErrNotFound):
		return p.tagNotFound(ctx, u, repo, tag, err)
	case err != nil:
		return Manifest{}, err
	}
	if m.Stale {
		if !m.uncacheable {
			p.ledger.PutStaleTag(repo, tag, metadata.Tag{Descriptor: m.Descriptor})
		}
		return m, nil
	}
	// The record changes only now that the manifest is cached.
	p.negative.delete(manifestKey(repo, tag))
	return m, p.recordTag(ctx, repo, tag, m)
}

// isServedByTagOnly says whether a failure by digest is a reason to ask for the
// manifest by its tag: the upstream has answered, and did not refuse access.
func isServedByTagOnly(err error) bool {
	return errors.Is(err, upstream.ErrNotFound) || errors.Is(err, upstream.ErrInvalidResponse) || errors.Is(err, upstream.ErrUnsupported)
}

// recordTag records what a tag points at now.
func (p *Puller) recordTag(ctx context.Context, repo Repository, tag string, to Manifest) error {
	if to.uncacheable {
		return nil // a record must point at a cached manifest
	}
	if subject, ok := referrers.SubjectOf(tag); ok {
		p.ledger.DropEmptyReferrers(repo, subject) // there is a list now
	}
	p.ledger.PutTag(repo, tag, metadata.Tag{Descriptor: to.Descriptor, CheckedAt: saidAt(ctx)})
	p.negative.delete(tagListKey(repo)) // there is something to list
	if p.events.TagMoved != nil {
		p.events.TagMoved(repo, tag)
	}
	if p.ledger.HasManifest(repo, to.Descriptor.Digest) {
		return nil
	}
	// It was evicted in the moment before the tag protected it.
	_, err := p.storeManifest(ctx, repo, to.Descriptor.MediaType, to.document(), to.Descriptor.Digest)
	return err
}
