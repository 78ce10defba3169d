package retention

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// PartKind is the kind of a Part.
type PartKind string

// The kinds of parts.
const (
	PartManifest  PartKind = "manifest"
	PartBlob      PartKind = "blob"
	PartReferrers PartKind = "referrers of"
)

// PartState says what there is of a Part.
type PartState string

const (
	// PartKept is content that is cached and may be served for the repository, or
	// an answer about referrers that was complete.
	PartKept PartState = "kept"
	// PartMissing is content that is not cached or may not be served for the
	// repository, or referrers of which nothing is known.
	PartMissing PartState = "missing"
	// PartStale is a complete answer about referrers that may lack some by now.
	PartStale PartState = "stale"
	// PartLeftOut is a blob of a platform that is not wanted, be it here or not.
	PartLeftOut PartState = "left out"
	// PartForeign is a layer with URLs, which clients fetch from elsewhere (W9).
	PartForeign PartState = "foreign"
)

// A Part is one thing that a Selection consists of.
type Part struct {
	Kind PartKind
	// Of is the manifest or the blob, or the subject of the referrers. Its digest
	// is empty if nothing is known of the tag.
	Of    Descriptor
	In    Digest // the manifest that names it; empty for the image itself
	State PartState
	// Referrers are the recorded answer, if the part is one.
	Referrers metadata.Referrers
}

// Walk goes through what is cached of a selection: each manifest and each blob
// once, the image first, then its children, then what refers to them, and last
// the blobs of platforms that are left out. Manifests that are left out are parts
// like others. It goes on until visit returns false, and asks nobody.
//
// It returns a *NoPlatformError if the image has none of the platforms.
func (r *Retention) Walk(ctx context.Context, s Selection, visit func(Part) (more bool)) error {
	d, ok := r.DigestOf(s)
	if !ok {
		visit(Part{Kind: PartManifest, State: PartMissing})
		return nil
	}
	w := walk{Steps: r.Steps(s), ctx: ctx, visit: visit}
	w.manifest(w.Root(Descriptor{Digest: d}))
	for w.more() {
		switch {
		case len(w.wanted) > 0:
			step := w.wanted[0]
			w.wanted = w.wanted[1:]
			w.into(step)
			w.subjects = append(w.subjects, step.Of)
		case len(w.subjects) > 0:
			d := w.subjects[0]
			w.subjects = w.subjects[1:]
			w.referrers(d)
		case len(w.leftOut) > 0:
			step := w.leftOut[0]
			w.leftOut = w.leftOut[1:]
			if !w.wants(step.Of.Digest) {
				w.into(step)
			}
		default:
			return nil
		}
	}
	if w.err == nil {
		w.err = ctx.Err()
	}
	return w.err
}

// DigestOf returns the digest of a selection's image, and false if nothing is
// known of its tag.
func (r *Retention) DigestOf(s Selection) (Digest, bool) {
	if s.At != "" {
		return s.At, true
	}
	if d, err := digest.Parse(s.Image.Ref); err == nil {
		return d, true
	}
	rec, ok := r.ledger.Tag(s.Image.Repository, s.Image.Ref)
	return rec.Descriptor.Digest, ok
}

// IsComplete says whether an image is cached with all its platforms, all their
// blobs, which may be served for its repository, and all known referrers. With needReferrers set, the referrers must be
// known. It makes no requests.
func (r *Retention) IsComplete(ctx context.Context, of Reference, needReferrers bool) bool {
	return r.HasAllOf(ctx, EverythingOf(of), needReferrers)
}

// HasAllOf is IsComplete for a selection.
func (r *Retention) HasAllOf(ctx context.Context, s Selection, needReferrers bool) bool {
	complete := true
	err := r.Walk(ctx, s, func(p Part) bool {
		complete = p.State != PartMissing || p.Kind == PartReferrers && !needReferrers
		return complete
	})
	return complete && err == nil
}

// walk is a Walk under way.
type walk struct {
	*Steps

	ctx             context.Context //nolint:containedctx // it lives as long as one call of Walk
	visit           func(Part) bool
	wanted, leftOut []Step // manifests that are cached, and that were not gone into
	subjects        []Descriptor
	ended           bool
	err             error
}

func (w *walk) more() bool { return !w.ended && w.err == nil && w.ctx.Err() == nil }

func (w *walk) tell(p Part) bool {
	w.ended = w.ended || !w.visit(p)
	return !w.ended
}

func (w *walk) manifest(step Step) {
	d := step.Of.Digest
	state := PartMissing
	if w.r.ledger.HasManifest(w.repo(), d) && w.r.store.Has(w.ctx, d) {
		state = PartKept
	}
	if !step.Again && !w.tell(Part{Kind: PartManifest, Of: step.Of, In: step.In, State: state}) || state == PartMissing {
		return
	}
	if step.LeftOut {
		w.leftOut = append(w.leftOut, step)
	} else {
		w.wanted = append(w.wanted, step)
	}
}

func (w *walk) into(step Step) {
	w.err = w.Into(w.ctx, step, w.manifest, w.tell)
}

func (w *walk) referrers(subject Descriptor) {
	if !w.of.Referrers {
		return
	}
	part := Part{Kind: PartReferrers, Of: subject, In: subject.Digest, State: PartMissing}
	answer, known := w.r.ledger.Referrers(w.repo(), subject.Digest)
	switch {
	case known && answer.At.IsZero():
		part.State = PartStale
	case known:
		part.State = PartKept
	default:
		answer.Manifests = w.r.ledger.Seen(w.repo(), subject.Digest)
	}
	part.Referrers = answer
	if w.tell(part) {
		w.Refer(subject.Digest, answer.Manifests, w.manifest)
	}
}

// Steps are the steps of a walk through a selection, for whoever gets its
// manifests while it walks. All methods are safe for concurrent use.
type Steps struct {
	r  *Retention
	of Selection

	mu        sync.Mutex
	manifests map[Digest]bool // that were seen; true if they are wanted whole
	blobs     map[Digest]bool
}

// A Step goes into one manifest.
type Step struct {
	Of      Descriptor
	In      Digest // the manifest that lists it; empty for the image itself
	LeftOut bool   // it is wanted alone, without its blobs
	Again   bool   // it was left out where it was met before
	Depth   int    // how many manifests are above it
}

// Steps returns the steps of a walk that has not begun.
func (r *Retention) Steps(s Selection) *Steps {
	return &Steps{r: r, of: s, manifests: map[Digest]bool{}, blobs: map[Digest]bool{}}
}

func (s *Steps) repo() Repository { return s.of.Image.Repository }

// Root returns the first step.
func (s *Steps) Root(image Descriptor) Step {
	step := Step{Of: image}
	s.add(s.manifests, &step)
	return step
}

// wants says whether a manifest that was met is wanted whole.
func (s *Steps) wants(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifests[d]
}

// add says whether a step leads to anything that was not met yet.
func (s *Steps) add(seen map[Digest]bool, step *Step) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, met := seen[step.Of.Digest]
	if met && (wanted || step.LeftOut) {
		return false
	}
	step.Again = met
	seen[step.Of.Digest] = !step.LeftOut
	return true
}

// Into goes into a manifest that is cached. It calls manifest for what the
// manifest lists, and blob for the blobs that it names until that returns false,
// as far as they were not met yet. A blob that is met first where it is left out
// is met again where it is wanted.
//
// It returns ErrNotCached if the manifest is not there, and a *NoPlatformError
// if it is the image and has none of the platforms.
func (s *Steps) Into(ctx context.Context, step Step, manifest func(Step), blob func(Part) (more bool)) error {
	d := step.Of.Digest
	rec, ok := s.r.ledger.Manifest(s.repo(), d)
	if !ok {
		return fmt.Errorf("manifest %s of %s: %w", d, s.repo(), ErrNotCached)
	}
	choose := newChooser(s.of.Platforms)
	if len(choose.matchers) > 0 {
		s.eachName(ctx, rec, d, func(named Descriptor, isManifest bool) bool {
			if isManifest {
				choose.see(named)
			}
			return ctx.Err() == nil
		})
	}
	if step.In == "" && choose.hasNone() {
		return &NoPlatformError{Image: s.of.Image, Wanted: FormatPlatforms(s.of.Platforms), Available: choose.available()}
	}
	holds := func(d Digest) bool { return s.r.ledger.Holds(s.repo(), d) }
	if rec.Wide {
		holds = s.r.holdsOf(s.repo(), rec)
	}
	if !s.eachName(ctx, rec, d, func(named Descriptor, isManifest bool) bool {
		next := Step{Of: named, In: d, LeftOut: step.LeftOut || isManifest && !choose.wants(named), Depth: step.Depth + 1}
		switch {
		case isManifest:
			if s.add(s.manifests, &next) {
				manifest(next)
			}
		case s.add(s.blobs, &next):
			return blob(Part{Kind: PartBlob, Of: named, In: d, State: s.stateOf(ctx, next, holds)}) && ctx.Err() == nil
		}
		return ctx.Err() == nil
	}) {
		return fmt.Errorf("manifest %s of %s: %w", d, s.repo(), ErrNotCached)
	}
	return nil
}

func (s *Steps) stateOf(ctx context.Context, blob Step, holds func(Digest) bool) PartState {
	switch {
	case len(blob.Of.URLs) > 0:
		return PartForeign
	case blob.LeftOut:
		return PartLeftOut
	case s.r.store.Has(ctx, blob.Of.Digest) && holds(blob.Of.Digest):
		return PartKept
	}
	return PartMissing
}

// eachName calls fn for what a manifest names, its manifests first where the
// record has all. It returns false if that cannot be read.
func (s *Steps) eachName(ctx context.Context, rec metadata.Manifest, d Digest, fn func(d Descriptor, isManifest bool) bool) bool {
	if rec.Wide {
		return s.r.store.EachName(ctx, rec.MediaType, d, fn)
	}
	as := func(isManifest bool) func(Descriptor) bool {
		return func(d Descriptor) bool { return !fn(d, isManifest) }
	}
	_ = slices.ContainsFunc(rec.Children, as(true)) || slices.ContainsFunc(rec.Blobs, as(false))
	return true
}

// Refer calls manifest for what refers to a subject, as far as it was not met
// yet.
func (s *Steps) Refer(subject Digest, all []Descriptor, manifest func(Step)) {
	if !s.of.Referrers {
		return
	}
	for _, d := range all {
		if next := (Step{Of: d, In: subject}); s.add(s.manifests, &next) {
			manifest(next)
		}
	}
}
