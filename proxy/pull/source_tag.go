package pull

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

const (
	indexType      = ocispec.MediaTypeImageIndex
	indexAlgorithm = digest.Canonical
)

// tagSource is the referrers tag of one endpoint (distribution-spec, "Referrers
// Tag Schema").
type tagSource struct {
	p        *Puller
	endpoint upstream.Endpoint
	only     bool // the upstream has no other endpoint
}

func (s tagSource) answer(ctx context.Context, q *question) referrers.Answer {
	all := referrers.Answer{Of: referrers.FromTag, State: referrers.NoSource, At: time.Now()}
	for i, tag := range referrers.TagForms(q.subject) {
		a := s.under(ctx, q, tag)
		if i == 0 {
			all = a
		} else {
			all = joinForms(all, a)
		}
	}
	return all
}

// joinForms joins the answers of two forms of a tag to one of the endpoint.
func joinForms(a, b referrers.Answer) referrers.Answer {
	switch {
	case a.State != referrers.CannotTell && b.State == referrers.CannotTell:
		a.State, a.Err, a.Refused = b.State, b.Err, b.Refused
	case a.State != referrers.CannotTell && b.State > a.State:
		a.State = b.State
	}
	a.List, a.Claims = append(a.List, b.List...), append(a.Claims, b.Claims...)
	a.Unread, a.Warned = a.Unread || b.Unread, a.Warned || b.Warned
	if b.At.Before(a.At) {
		a.At = b.At
	}
	return a
}

// under reads what is listed under one form of the tag.
func (s tagSource) under(ctx context.Context, q *question, tag string) referrers.Answer {
	index, said, err := s.read(ctx, q, tag)
	var refused *upstream.RefusedError
	switch {
	case errors.Is(err, upstream.ErrNotFound):
		return referrers.Answer{Of: referrers.FromTag, State: referrers.None, At: said}
	case errors.As(err, &refused) && refused.Status == http400:
		return referrers.Answer{Of: referrers.FromTag, State: referrers.NoSource, At: time.Now()} // it has rules on tags, and this can be none
	case err != nil:
		return cannotTell(referrers.FromTag, err)
	}
	doc := index.document()
	listed, unusable, err := referrers.ReadIndex(doc)
	switch {
	case errors.Is(err, referrers.ErrNoIndex), isArtifact(index.Descriptor.MediaType, doc):
		return referrers.Answer{Of: referrers.FromTag, State: referrers.NoSource, At: said, Warned: index.Stale} // somebody's own image
	case err != nil:
		return cannotTell(referrers.FromTag, fmt.Errorf("%w: tag %s: %w", upstream.ErrInvalidResponse, tag, err))
	}
	read := s.p.open(ctx, q, listed, func(m Manifest) (Descriptor, error) {
		return referrers.DescribeListed(false, m.Descriptor.MediaType, m.document(), m.Descriptor.Digest, q.subject)
	})
	// A tag that does not contain all of the digest may list others' (W50).
	read.claimed = tag == referrers.TagOf(q.subject) && len(referrers.TagForms(q.subject)) == 1 && isWholeTag(tag, q.subject)
	if unusable > 0 {
		read.missing(fmt.Errorf("%w: %d entries under the tag %s", upstream.ErrInvalidResponse, unusable, tag))
	}
	a := read.answer(referrers.FromTag, said)
	a.Warned = index.Stale
	if a.State == referrers.None && s.p.isImageIndex(q.repo, nil, listed) {
		a.State = referrers.NoSource
	}
	return a
}

// isArtifact says whether an index is somebody's artifact and no list: a list has
// neither a type nor a subject.
func isArtifact(mediaType string, doc *referrers.Document) bool {
	described, err := referrers.Describe(mediaType, doc)
	return err == nil && (described.Descriptor.ArtifactType != "" || described.Subject != nil)
}

func isWholeTag(tag string, subject Digest) bool {
	named, ok := referrers.SubjectOf(tag)
	return ok && named == subject
}

// read returns what the endpoint has under a tag, and when it said so.
func (s tagSource) read(ctx context.Context, q *question, tag string) (Manifest, time.Time, error) {
	if s.only {
		return s.p.checkReferrersTag(ctx, q, tag)
	}
	// The record of a tag is what the upstream as a whole says of it. So what one
	// of several endpoints says is not on record.
	of := q.upstream
	of.Registry = s.endpoint
	ctx, began := s.p.withMaxAge(ctx, q.renew), time.Now()
	desc, err := s.endpoint.Resolve(ctx, q.repo.Name, tag)
	said := earliest(began, saidAt(ctx))
	switch {
	case errors.Is(err, upstream.ErrNotFound) && !s.p.ledger.ListsAny(q.repo, q.subject):
		return Manifest{}, said, err
	case errors.Is(err, upstream.ErrNotFound), errors.Is(err, upstream.ErrUnsupported), errors.Is(err, upstream.ErrStale):
	case err != nil:
		return Manifest{}, said, err
	case desc.Digest != "":
		m, err := s.p.manifestByDigest(ctx, of, q.repo, desc.Digest)
		if err == nil || !isServedByTagOnly(err) {
			return m, said, err
		}
	}
	m, err := s.p.fetchManifest(ctx, of, q.repo, tag, "", desc.Digest)
	return m, earliest(began, saidAt(ctx)), err
}

// checkReferrersTag returns what a tag that carries referrers points at, as the
// upstream says, and when it said so. What it said before will do if the
// question says so. Most of these tags do not exist, and registries count GET
// requests for manifests, so the tag is probed with HEAD. If referrers are on
// record, a HEAD request alone does not discard them (W44).
func (p *Puller) checkReferrersTag(ctx context.Context, q *question, tag string) (Manifest, time.Time, error) {
	if absent := p.negative.said(manifestKey(q.repo, tag)); absent.err != nil && !absent.at.Before(q.oldest) {
		return Manifest{}, absent.at, absent.err
	}
	m, said, joined, err := p.joinCheck(ctx, q, tag)
	if joined && said.Before(q.oldest) {
		// Another one's check took an older answer than this question does.
		m, said, _, err = p.joinCheck(ctx, q, tag)
	}
	return m, said, err
}

// joinCheck has a tag that carries referrers checked, or joins a check that is
// under way.
func (p *Puller) joinCheck(ctx context.Context, q *question, tag string) (m Manifest, said time.Time, joined bool, err error) {
	said = time.Now()
	p.requests.checks.late.Delete(metadata.Key(q.repo, tag)) // it does not say when it was said
	var own atomic.Bool
	m, err = shareRequest(ctx, p, p.requests.checks, metadata.Key(q.repo, tag), func(ctx context.Context) (Manifest, error) {
		own.Store(true)
		return p.checkTag(p.withMaxAge(ctx, q.renew), q.upstream, q.repo, tag, !p.ledger.ListsAny(q.repo, q.subject), renewal{oldest: q.oldest})
	})
	if rec, ok := p.ledger.Tag(q.repo, tag); ok && err == nil && !m.Stale {
		said = earliest(said, rec.CheckedAt) // checked before, or while it was being checked
	}
	var dated *DatedError
	if errors.As(err, &dated) {
		said = earliest(said, dated.At)
	}
	return m, said, !own.Load(), err
}

// http400 is the status of a request that a registry does not understand.
const http400 = 400
