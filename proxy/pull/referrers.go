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

// Referrers returns everything that is known to have subject as its subject.
// The answer is known; or stale, where a source could not be asked and an
// earlier whole answer is kept, or another source has a list; or else an error.
func (p *Puller) Referrers(ctx context.Context, repo Repository, subject Digest) (Referrers, error) {
	u, err := p.admit(repo)
	if err != nil {
		return Referrers{}, err
	}
	rec, onRecord := p.meta.Referrers(repo, subject)
	if onRecord && p.freshReferrers(rec) {
		return Referrers{Manifests: rec.Manifests, Outcome: Hit}, nil
	}
	if p.opts.Offline {
		if onRecord {
			return staleList(rec), nil
		}
		if passed := p.meta.Seen(repo, subject); len(passed) > 0 {
			return partial(passed), nil
		}
		return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, ErrOffline))
	}
	wait := p.opts.Patience
	if onRecord {
		wait = min(wait, p.opts.MaxWait)
	}
	answer, err := p.lookUp(u, repo, subject).wait(ctx, wait, func(f finding) (Referrers, error) { return p.soFar(repo, subject, f) })
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return Referrers{}, context.Cause(ctx)
	}
	return p.lastResort(repo, subject, fmt.Errorf("referrers of %s in %s: %w", subject, repo, err))
}

// lastResort is the one exception to the rule that unknown is not none. Docker
// asks at every pull for what refers to the attestations of the image (W58),
// and fails a pull that is complete where nobody answers. About a manifest that
// a kept index marks as BuildKit's attestation, and about nothing else, the
// answer is then an empty list, marked as stale. Not where somebody lists what
// cannot be read, or did so when the tag was asked for: then there is something.
func (p *Puller) lastResort(repo Repository, subject Digest, err error) (Referrers, error) {
	rec, _ := p.meta.Manifest(repo, subject)
	if cannotTell(err) && !errors.Is(err, errUnread) && p.meta.IsAttestation(repo, subject) && !isImage(rec) && !p.tagKept(repo, subject) {
		return Referrers{Stale: true, Outcome: Stale}, nil
	}
	return Referrers{}, err
}

// isImage says of a manifest that it is what somebody runs, whatever an index
// marks it as: it has other manifests, or layers of a file system.
func isImage(m metadata.Manifest) bool {
	return len(m.Children) > 0 || slices.ContainsFunc(m.Blobs, func(b Descriptor) bool {
		return strings.HasPrefix(b.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(b.MediaType, "application/vnd.docker.image.rootfs.")
	})
}

// tagKept says whether a referrers tag of subject is on record.
func (p *Puller) tagKept(repo Repository, subject Digest) bool {
	return slices.ContainsFunc(referrers.TagForms(subject), func(tag string) bool {
		_, ok := p.meta.Tag(repo, tag)
		return ok
	})
}

// partial is what is found where not all could be asked.
func partial(lists ...[]Descriptor) Referrers {
	return Referrers{Manifests: referrers.Merge(lists...), Stale: true, Partial: true, Outcome: Stale}
}

// freshReferrers says whether an answer needs no look-up. That nothing refers is
// an absence, and believed no longer than any other.
func (p *Puller) freshReferrers(rec metadata.Referrers) bool {
	ttl := p.opts.ReferrersTTL
	if len(rec.Manifests) == 0 {
		ttl = min(ttl, p.opts.NegativeTTL)
	}
	age := time.Since(rec.At)
	return age >= 0 && age < ttl // a time in the future is no time
}

// soFar is the answer while a lookup is under way.
func (p *Puller) soFar(repo Repository, subject Digest, f finding) (Referrers, error) {
	answer, err := p.conclude(repo, subject, f)
	if err != nil || answer.Stale {
		return answer, err
	}
	// All sources have answered, and it is being asked whether what passed
	// through, and nobody lists, is still there. Until then it counts.
	listed := len(answer.Manifests)
	answer.Manifests = referrers.Merge(answer.Manifests, p.meta.Seen(repo, subject))
	if len(answer.Manifests) > listed {
		answer.Stale, answer.Outcome = true, Stale
	}
	return answer, nil
}

// conclude makes an answer of what the sources have said, all of them or not.
func (p *Puller) conclude(repo Repository, subject Digest, f finding) (Referrers, error) {
	found := referrers.Merge(f.lists...)
	err := f.err()
	switch {
	case err == nil:
		return Referrers{Manifests: found, Outcome: Miss}, nil
	case !cannotTell(err):
		return Referrers{}, err
	}
	// That nothing refers is no answer any more where something is listed now.
	if rec, ok := p.meta.Referrers(repo, subject); ok && (len(rec.Manifests) > 0 || !f.unread()) {
		answer := staleList(rec)
		answer.Manifests = referrers.Merge(rec.Manifests, found)
		return answer, nil
	}
	switch {
	case errors.Is(err, errUnread):
		return Referrers{}, err
	case f.unread():
		return Referrers{}, fmt.Errorf("%w: %w", errUnread, err)
	}
	// What one source lists, and what passed through, is proof in itself; that
	// there is no more nobody says.
	if passed := p.meta.Seen(repo, subject); f.anyWhole() || len(passed) > 0 {
		return partial(found, passed), nil
	}
	return Referrers{}, err
}

// worst chooses the error that an answer is made of: a refusal before a
// failure, which kept answers may stand in for.
func worst(errs []error) error {
	var failed error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if failed == nil || !cannotTell(err) && cannotTell(failed) {
			failed = err
		}
	}
	return failed
}

func staleList(r metadata.Referrers) Referrers {
	return Referrers{Manifests: r.Manifests, Stale: true, Outcome: Stale}
}

// indexReferrers notes what a manifest that is being kept says about others:
// its own subject, and BuildKit's attestations of an index.
func (p *Puller) indexReferrers(repo Repository, m Manifest, subject *Descriptor) {
	if subject != nil {
		described, err := referrers.Verify(m.Descriptor.MediaType, m.Bytes, m.Descriptor.Digest, subject.Digest)
		if err == nil {
			p.meta.PutSeen(repo, subject.Digest, described.Descriptor)
		}
	}
	if isAttestation(m) {
		p.meta.PutAttestation(repo, m.Descriptor.Digest)
	}
	attached, err := referrers.Attestations(m.Bytes)
	if err != nil {
		return // no index
	}
	for _, a := range attached {
		p.meta.PutAttached(repo, a.Subject, a.Entry)
		p.meta.PutAttestation(repo, a.Entry.Digest)
	}
}

// isAttestation says whether a manifest calls itself an attestation of
// BuildKit's.
func isAttestation(m Manifest) bool {
	if !bytes.Contains(m.Bytes, []byte(referrers.AttestationType)) {
		return false // as nearly all: nothing to decode
	}
	described, err := referrers.Describe(m.Descriptor.MediaType, m.Bytes)
	return err == nil && described.Descriptor.ArtifactType == referrers.AttestationType
}

// madeFromReferrers answers for a referrers tag that the upstream does not
// have with the index made from what refers to its subject (wire fact W57).
// gone is the upstream's answer about the tag itself.
func (p *Puller) madeFromReferrers(ctx context.Context, repo Repository, tag string, gone error) (Manifest, error) {
	subject, ok := referrers.SubjectOf(tag)
	if !ok {
		return Manifest{}, gone
	}
	list, err := p.Referrers(ctx, repo, subject)
	switch {
	case errors.Is(err, upstream.ErrNotFound):
		return Manifest{}, gone
	case err != nil && errors.Is(gone, upstream.ErrNotFound):
		// The tag itself is not there, says the upstream, and a pull goes before
		// an answer about referrers: on the API's own route this is an error.
		return Manifest{}, &WarnedError{gone, "the Referrers API could not be asked: what refers to this manifest is not known"}
	case err != nil:
		return Manifest{}, err
	case len(list.Manifests) > 0:
	case list.Stale:
		// Nothing is all that was ever listed, and the API's route says the same.
		if !errors.Is(gone, upstream.ErrNotFound) {
			gone = fmt.Errorf("%w: when the upstream could be asked, nothing referred to %s", upstream.ErrNotFound, subject)
		}
		return Manifest{}, &StaleError{gone}
	default:
		return Manifest{}, gone
	}
	content, err := referrers.Encode(list.Manifests)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", upstream.ErrBadAnswer, err)
	}
	m, err := p.keepManifest(ctx, repo, indexType, content, indexAlgorithm.FromBytes(content))
	m.Outcome, m.Stale = list.Outcome, list.Stale
	return m, err
}
