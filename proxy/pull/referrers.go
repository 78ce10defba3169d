package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/background"
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
	rec, onRecord := p.ledger.Listed(repo, subject)
	var renew renewal
	if len(wish) > 0 { // a key is made only for who wishes anything
		renew = p.requests.renewals.wanted(metadata.Key(repo, subject.String()), wish, rec.At)
	}
	switch {
	case onRecord && renew.failed:
		_, answer, err := p.conclude(repo, subject, []referrers.Answer{cannotTell(referrers.FromAPI, ErrIncomplete)})
		if err != nil {
			return p.lastResort(repo, subject, err)
		}
		return answer, nil
	case onRecord && p.isFreshAnswer(rec.At, rec.WasEmpty) && renew.allows(rec.At):
		return p.listed(ctx, repo, subject, rec)
	case u.Offline && p.isCarried(repo, subject, rec):
		return p.listed(ctx, repo, subject, rec)
	case u.Offline:
		answer, err := p.offlineReferrers(ctx, u, repo, subject)
		if err != nil {
			return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, err))
		}
		return answer, nil
	}
	if answer, ok := p.lookups.incomplete.Get(metadata.Key(repo, subject.String())); ok && renew.oldest.IsZero() {
		return answer, nil
	}
	wait := p.rules.Patience
	if p.ledger.ListsAny(repo, subject) && onRecord || p.recordOf(repo, subject).Stands() {
		wait = min(wait, p.rules.MaxWait)
	}
	answer, err := p.lookUp(ctx, u, repo, subject, renew, wait)
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return Referrers{}, context.Cause(ctx)
	}
	return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, err))
}

// listed is an answer that is on record. A long list is kept in memory as it is
// sent, and counted there like any other content.
func (p *Puller) listed(ctx context.Context, repo Repository, subject Digest, rec metadata.Listed) (Referrers, error) {
	if rec.Digest == "" {
		return Referrers{Manifests: rec.Manifests, List: rec.List, At: rec.At, Outcome: Hit}, nil
	}
	if rec.List.IsZero() {
		if list, ok := p.keptList(rec.Digest); ok {
			return Referrers{List: list, At: rec.At, Outcome: Hit, of: rec.Digest}, nil
		}
		// It was dropped. Those who ask at the same time share what it is encoded
		// to.
		var err error
		rec, err = background.Share(ctx, p.work, &p.lookups.encoding, metadata.Key(repo, subject.String()), func(context.Context) (metadata.Listed, error) {
			again, ok := p.ledger.EncodeReferrers(repo, subject)
			if !ok {
				return metadata.Listed{}, ErrIncomplete // it has just been removed
			}
			if again.Digest != "" {
				p.keepList(again)
			}
			return again, nil
		})
		if err != nil {
			return Referrers{}, err
		}
		return Referrers{Manifests: rec.Manifests, List: rec.List, At: rec.At, Outcome: Hit, of: rec.Digest}, nil
	}
	p.keepList(rec)
	return Referrers{List: rec.List, At: rec.At, Outcome: Hit, of: rec.Digest}, nil
}

// lookUp waits for a lookup. If the one that is under way takes answers that are
// older than a client wishes, it waits for another one.
func (p *Puller) lookUp(ctx context.Context, u Upstream, repo Repository, subject Digest, renew renewal, wait time.Duration) (Referrers, error) {
	var l *lookup
	// A list may be older than any answer that may be believed: it began before
	// this client asked, or a parent kept it.
	rule := renewal{oldest: time.Now().Add(-p.rules.ReferrersTTL)}
	interim := func(answers []referrers.Answer) (Referrers, error) {
		return l.share(func() (Referrers, error) {
			_, answer, err := p.conclude(repo, subject, answers)
			return answer, err
		})
	}
	l = p.joinLookup(u, repo, subject, renew)
	answer, err := l.wait(ctx, wait, interim)
	if !l.isOlder(renew.oldest) {
		if err == nil && !(renew.metBy(answer) && rule.metBy(answer)) {
			answer.Stale, answer.Outcome = true, Stale
		}
		return answer, err
	}
	l = p.joinLookup(u, repo, subject, renew)
	answer, err = l.wait(ctx, wait, interim)
	if err == nil && (l.isOlder(renew.oldest) || !renew.metBy(answer) || !rule.metBy(answer)) {
		answer.Stale, answer.Outcome = true, Stale
	}
	return answer, err
}

// offlineReferrers is what is kept and was seen. Nothing says that it is still
// all.
func (p *Puller) offlineReferrers(ctx context.Context, u Upstream, repo Repository, subject Digest) (Referrers, error) {
	q := &question{upstream: u, repo: repo, subject: subject, began: time.Now(), attached: p.ledger.Attached(repo, subject), budget: newBudget(maxOpened)}
	_, answer, err := p.conclude(repo, subject, []referrers.Answer{
		cannotTell(referrers.FromAPI, ErrOfflineUnknown), cannotTell(referrers.FromTag, ErrOfflineUnknown), buildKitSource{p}.answer(ctx, q),
	})
	return answer, err
}

// recordOf returns the last complete answer.
func (p *Puller) recordOf(repo Repository, subject Digest) referrers.Record {
	rec, onRecord := p.ledger.Referrers(repo, subject)
	isKept := p.ledger.HasManifest(repo, subject)
	return referrers.Record{Known: onRecord, List: rec.Manifests, At: rec.At, Needed: onRecord && (isKept || p.isFreshAnswer(rec.At, rec.WasEmpty))}
}

// answerOf is a verdict as it is told to a client.
func answerOf(v referrers.Verdict) (Referrers, error) {
	switch v.Conclusion {
	case referrers.Known:
		return Referrers{Manifests: v.List, At: v.At, Outcome: Miss}, nil
	case referrers.Stale:
		return Referrers{Manifests: v.List, Stale: true, Partial: v.Partial, Outcome: Stale}, nil
	case referrers.Refused:
		return Referrers{}, v.Err
	}
	err := v.Err
	switch {
	case isRefusal(err):
		// One of several ways is refused, and nobody could be asked for all: that
		// is no refusal of what was asked for.
		err = fmt.Errorf("%w: it refuses one of several ways to ask: %w", upstream.ErrInvalidResponse, errors.New(err.Error()))
	case errors.Is(err, referrers.ErrNoSource):
		err = fmt.Errorf("%w: %w", upstream.ErrInvalidResponse, err)
	}
	if v.Unread && !errors.Is(err, errUnreadable) {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return Referrers{}, err
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

// isFreshAnswer says whether a recorded answer needs no lookup. An empty answer
// expires like any other "not found".
func (p *Puller) isFreshAnswer(at time.Time, wasEmpty bool) bool {
	ttl := p.rules.ReferrersTTL
	if wasEmpty {
		ttl = min(ttl, p.rules.NegativeTTL)
	}
	age := time.Since(at)
	return age >= 0 && age < ttl // a time in the future is not valid
}

// recordReferrers records what a manifest that is being cached says about other
// manifests: its own subject, and the BuildKit attestations of an index with these
// children.
func (p *Puller) recordReferrers(repo Repository, own Descriptor, doc *referrers.Document, subject *Descriptor, children []Descriptor) {
	if subject != nil {
		described, err := referrers.Verify(own.MediaType, doc, own.Digest, subject.Digest)
		if err == nil {
			p.ledger.PutSeen(repo, subject.Digest, described.Descriptor)
		}
	}
	if isAttestation(own.MediaType, doc) {
		p.ledger.PutAttestation(repo, own.Digest)
	}
	for _, a := range referrers.AttestationsAmong(children) {
		p.ledger.PutAttached(repo, a.Subject, a.Entry)
		p.ledger.PutAttestation(repo, a.Entry.Digest)
	}
}

// isAttestation says whether a manifest declares itself a BuildKit attestation.
func isAttestation(mediaType string, doc *referrers.Document) bool {
	if !bytes.Contains(doc.Bytes(), []byte(referrers.AttestationType)) {
		return false // nearly all manifests: no need to describe them
	}
	described, err := referrers.Describe(mediaType, doc)
	return err == nil && described.Descriptor.ArtifactType == referrers.AttestationType
}
