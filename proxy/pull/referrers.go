package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Referrers returns every known manifest with that subject. The answer is
// complete, or it is stale because a source could not be asked and an earlier
// complete answer is recorded or another source has a list. Otherwise it
// returns an error. A client may wish for an answer of at most some age.
func (p *Puller) Referrers(ctx context.Context, repo Repository, subject Digest, wish ...Freshness) (Referrers, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Referrers{}, err
	}
	rec, onRecord := p.ledger.Referrers(repo, subject)
	renew := p.requests.renewals.wanted(metadata.Key(repo, subject.String()), wish, rec.At)
	switch {
	case onRecord && renew.failed:
		return staleAnswer(rec), nil
	case onRecord && p.isFreshAnswer(rec) && renew.allows(rec.At):
		return Referrers{Manifests: rec.Manifests, Outcome: Hit}, nil
	}
	if p.rules.Offline {
		if onRecord {
			return staleAnswer(rec), nil
		}
		if seen := p.ledger.Seen(repo, subject); len(seen) > 0 {
			return partialAnswer(seen), nil
		}
		return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, ErrOffline))
	}
	wait := p.rules.Patience
	if onRecord {
		wait = min(wait, p.rules.MaxWait)
	}
	answer, err := p.joinLookup(u, repo, subject, renew).wait(ctx, wait, func(f sourceResults) (Referrers, error) { return p.interimAnswer(repo, subject, f) })
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return Referrers{}, context.Cause(ctx)
	}
	return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, err))
}

// lastResort is the one exception to the rule that "unknown" is not "none".
// Docker asks at every pull for the referrers of the image's attestations
// (W58), and fails an otherwise complete pull if it gets an error. For a
// manifest that a cached index marks as a BuildKit attestation, and for nothing
// else, the answer is then an empty list that is marked as stale. This does not
// apply if a source lists a manifest that cannot be read, or if the referrers
// tag is on record: in these cases referrers do exist.
func (p *Puller) lastResort(repo Repository, subject Digest, err error) (Referrers, error) {
	rec, _ := p.ledger.Manifest(repo, subject)
	if IsInconclusive(err) && !errors.Is(err, errUnreadable) && p.ledger.IsAttestation(repo, subject) && !isImage(rec) && !p.hasReferrersTag(repo, subject) {
		return Referrers{Stale: true, Outcome: Stale}, nil
	}
	return Referrers{}, err
}

// isImage says whether a manifest is a runnable image, whatever an index marks
// it as: it has child manifests or filesystem layers.
func isImage(m metadata.Manifest) bool {
	return len(m.Children) > 0 || slices.ContainsFunc(m.Blobs, func(b Descriptor) bool {
		return strings.HasPrefix(b.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(b.MediaType, "application/vnd.docker.image.rootfs.")
	})
}

// hasReferrersTag says whether a referrers tag of subject is on record.
func (p *Puller) hasReferrersTag(repo Repository, subject Digest) bool {
	return slices.ContainsFunc(referrers.TagForms(subject), func(tag string) bool {
		_, ok := p.ledger.Tag(repo, tag)
		return ok
	})
}

// partialAnswer is an answer from some of the sources.
func partialAnswer(lists ...[]Descriptor) Referrers {
	return Referrers{Manifests: referrers.Merge(lists...), Stale: true, Partial: true, Outcome: Stale}
}

// isFreshAnswer says whether a recorded answer needs no lookup. An empty answer
// expires like any other "not found".
func (p *Puller) isFreshAnswer(rec metadata.Referrers) bool {
	ttl := p.rules.ReferrersTTL
	if len(rec.Manifests) == 0 {
		ttl = min(ttl, p.rules.NegativeTTL)
	}
	age := time.Since(rec.At)
	return age >= 0 && age < ttl // a time in the future is not valid
}

// interimAnswer is the answer while a lookup is still under way.
func (p *Puller) interimAnswer(repo Repository, subject Digest, f sourceResults) (Referrers, error) {
	answer, err := p.combine(repo, subject, f)
	if err != nil || answer.Stale {
		return answer, err
	}
	// All sources have answered. The lookup is still checking whether manifests
	// that were seen, and that no source lists, still exist. Until that is
	// known they are listed.
	listed := len(answer.Manifests)
	answer.Manifests = referrers.Merge(answer.Manifests, p.ledger.Seen(repo, subject))
	if len(answer.Manifests) > listed {
		answer.Stale, answer.Outcome = true, Stale
	}
	return answer, nil
}

// combine makes an answer of the sources' results, whether all of them have
// answered or not.
func (p *Puller) combine(repo Repository, subject Digest, f sourceResults) (Referrers, error) {
	found := referrers.Merge(f.lists...)
	err := f.err()
	switch {
	case err == nil:
		return Referrers{Manifests: found, Outcome: Miss}, nil
	case !IsInconclusive(err):
		return Referrers{}, err
	}
	// A recorded empty answer is no longer valid if a source lists something
	// now.
	if rec, ok := p.ledger.Referrers(repo, subject); ok && (len(rec.Manifests) > 0 || !f.hasUnreadable()) {
		answer := staleAnswer(rec)
		answer.Manifests = referrers.Merge(rec.Manifests, found)
		return answer, nil
	}
	switch {
	case errors.Is(err, errUnreadable):
		return Referrers{}, err
	case f.hasUnreadable():
		return Referrers{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	// What one source lists, and what was seen in manifests, is certain.
	// Whether there is more is not known.
	if seen := p.ledger.Seen(repo, subject); f.hasCompleteList() || len(seen) > 0 {
		return partialAnswer(found, seen), nil
	}
	return Referrers{}, err
}

// decisiveError chooses the error that decides the answer. A refusal takes
// precedence over a failure, because a cached answer may stand in for a
// failure.
func decisiveError(errs []error) error {
	var failed error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if failed == nil || !IsInconclusive(err) && IsInconclusive(failed) {
			failed = err
		}
	}
	return failed
}

func staleAnswer(r metadata.Referrers) Referrers {
	return Referrers{Manifests: r.Manifests, Stale: true, Outcome: Stale}
}

// recordReferrers records what a manifest that is being cached says about other
// manifests: its own subject, and the BuildKit attestations of an index.
func (p *Puller) recordReferrers(repo Repository, m Manifest, subject *Descriptor) {
	if subject != nil {
		described, err := referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject.Digest)
		if err == nil {
			p.ledger.PutSeen(repo, subject.Digest, described.Descriptor)
		}
	}
	if isAttestation(m) {
		p.ledger.PutAttestation(repo, m.Descriptor.Digest)
	}
	attached, err := referrers.Attestations(m.Bytes)
	if err != nil {
		return // not an index
	}
	for _, a := range attached {
		p.ledger.PutAttached(repo, a.Subject, a.Entry)
		p.ledger.PutAttestation(repo, a.Entry.Digest)
	}
}

// isAttestation says whether a manifest declares itself a BuildKit attestation.
func isAttestation(m Manifest) bool {
	if !bytes.Contains(m.Bytes, []byte(referrers.AttestationType)) {
		return false // nearly all manifests: no need to decode them
	}
	described, err := referrers.Describe(m.Descriptor.MediaType, m.Bytes)
	return err == nil && described.Descriptor.ArtifactType == referrers.AttestationType
}

// buildReferrersTag answers for a referrers tag that the upstream does not
// have, with an index built from the referrers of its subject (wire fact W57).
// gone is the upstream's answer about the tag itself.
func (p *Puller) buildReferrersTag(ctx context.Context, repo Repository, tag string, gone error, wish []Freshness) (Manifest, error) {
	subject, ok := referrers.SubjectOf(tag)
	if !ok {
		return Manifest{}, gone
	}
	list, err := p.Referrers(ctx, repo, subject, wish...)
	switch {
	case errors.Is(err, upstream.ErrNotFound):
		return Manifest{}, gone
	case err != nil && errors.Is(gone, upstream.ErrNotFound):
		// The upstream says that the tag does not exist. A pull matters more
		// than an answer about referrers, so this is a 404 with a warning; the
		// Referrers API itself returns an error.
		return Manifest{}, &WarnedError{gone, "the Referrers API could not be asked: the referrers of this manifest are not known"}
	case err != nil:
		return Manifest{}, err
	case len(list.Manifests) > 0:
	case list.Stale:
		// The last known list is empty. The Referrers API says the same.
		if !errors.Is(gone, upstream.ErrNotFound) {
			gone = fmt.Errorf("%w: %s had no referrers when the upstream could last be asked", upstream.ErrNotFound, subject)
		}
		return Manifest{}, &StaleError{gone}
	default:
		return Manifest{}, gone
	}
	content, err := referrers.Encode(list.Manifests)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", upstream.ErrInvalidResponse, err)
	}
	m, err := p.storeManifest(ctx, repo, indexType, content, indexAlgorithm.FromBytes(content))
	m.Outcome, m.Stale = list.Outcome, list.Stale
	return m, err
}
