package transfer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/platforms"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
)

// A Plan is what a bundle will have. Nothing of it is evicted before Close.
type Plan struct {
	Contents bundle.Contents
	loadable []bundle.Loadable
	t        *Transfer
	release  []func()
}

// Close lets what the plan has be evicted again.
func (p *Plan) Close() {
	for _, release := range p.release {
		release()
	}
	p.release = nil
}

// planning is a Plan that is being made.
type planning struct {
	*Plan

	have     bundle.Have
	listed   map[Digest]bool
	blobs    []bundle.Content
	answered map[string]bool // by repository and subject
}

// Plan finds out what a bundle of these images has to have. What the other side
// has is left out. asked is what was asked for, as it was written. It returns
// ErrIncomplete, with what is missing, if something is not cached, and what
// retention.Retention.Walk returns.
func (t *Transfer) Plan(ctx context.Context, all []retention.Selection, have bundle.Have, asked []string) (*Plan, error) {
	p := &planning{
		Plan: &Plan{t: t, Contents: bundle.Contents{Created: time.Now().UTC().Truncate(time.Second), Asked: asked}},
		have: have, listed: make(map[Digest]bool), answered: make(map[string]bool),
	}
	for _, s := range all {
		if err := p.add(ctx, s); err != nil {
			p.Close()
			return nil, fmt.Errorf("%s: %w", s.Image, err)
		}
	}
	p.Contents.Content = append(p.Contents.Content, p.blobs...)
	return p.Plan, nil
}

// add adds an image to the plan.
func (p *planning) add(ctx context.Context, s retention.Selection) error {
	image := bundle.Image{Upstream: s.Image.Repository.Upstream, Repository: s.Image.Repository.Name, Referrers: s.Referrers}
	for _, platform := range s.Platforms {
		image.Platforms = append(image.Platforms, platforms.FormatAll(platform))
	}
	root, ok := p.t.opts.Retention.DigestOf(s)
	if !ok {
		return fmt.Errorf("%w: it is not cached", ErrIncomplete)
	}
	if s.Image.Ref != root.String() {
		rec, known := p.t.opts.Ledger.Tag(s.Image.Repository, s.Image.Ref)
		if known && rec.Descriptor.Digest == root { // else it is carried by its digest alone
			image.Tag, image.TagAt = s.Image.Ref, rec.CheckedAt.UTC()
		}
	}
	var failed error
	leftOut := make(map[Digest]bool)
	walkErr := p.t.opts.Retention.Walk(ctx, s, func(part retention.Part) bool {
		switch {
		case part.Kind == retention.PartReferrers:
			p.answer(s.Image.Repository, part)
		case part.State == retention.PartForeign:
		case part.State == retention.PartLeftOut:
			if !leftOut[part.In] {
				leftOut[part.In] = true
				image.LeftOut = append(image.LeftOut, part.In)
			}
		case part.State == retention.PartMissing:
			failed = fmt.Errorf("%w: %s %s is not cached", ErrIncomplete, part.Kind, cmp.Or(part.Of.Digest, root))
		default:
			failed = p.content(ctx, s.Image.Repository, part)
		}
		return failed == nil
	})
	if err := errors.Join(failed, walkErr); err != nil {
		return err
	}
	rec, ok := p.t.opts.Ledger.Manifest(s.Image.Repository, root)
	if !ok {
		return fmt.Errorf("%w: it was evicted meanwhile", ErrIncomplete)
	}
	image.Manifest = Descriptor{MediaType: rec.MediaType, Digest: root, Size: rec.Size}
	p.describe(ctx, s.Image.Repository, &image, rec)
	p.Contents.Images = append(p.Contents.Images, image)
	return nil
}

// content adds a manifest or a blob.
func (p *planning) content(ctx context.Context, repo Repository, part retention.Part) error {
	d := part.Of.Digest
	if p.listed[d] {
		return nil
	}
	p.release = append(p.release, p.t.opts.Ledger.Lease(metadata.Manifest{}, d))
	size, err := p.t.opts.Store.Stat(ctx, d)
	if err != nil {
		return fmt.Errorf("%w: %s %s: %w", ErrIncomplete, part.Kind, d, err)
	}
	p.listed[d] = true
	content := bundle.Content{Digest: d, Size: size, Private: p.t.opts.Ledger.IsPrivate(d)}
	if part.Kind == retention.PartManifest {
		rec, _ := p.t.opts.Ledger.Manifest(repo, d)
		content.MediaType = rec.MediaType
	}
	switch {
	case p.have[d]:
		p.Contents.Assumed = append(p.Contents.Assumed, content)
	case content.MediaType != "": // so that a reader knows all of an image before its blobs come
		p.Contents.Content = append(p.Contents.Content, content)
	default:
		p.blobs = append(p.blobs, content)
	}
	return nil
}

// answer adds what is known of the referrers of a manifest.
func (p *planning) answer(repo Repository, part retention.Part) {
	key := metadata.Key(repo, part.Of.Digest.String())
	if p.answered[key] {
		return
	}
	p.answered[key] = true
	p.Contents.Referrers = append(p.Contents.Referrers, bundle.Answer{
		Upstream: repo.Upstream, Repository: repo.Name, Subject: part.Of.Digest,
		Complete: part.State == retention.PartKept, At: part.Referrers.At.UTC(), Manifests: part.Referrers.Manifests,
	})
}

// Write writes the bundle. If something turns out to be damaged, it is
// quarantined, and the error is bundle.ErrDamaged; what was written is no bundle.
func (p *Plan) Write(ctx context.Context, to io.Writer) error {
	w, err := bundle.NewWriter(to, p.Contents, p.loadable)
	if err != nil {
		return err
	}
	for {
		next, more := w.Next()
		if !more {
			return w.Close()
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := p.copy(ctx, w, next); err != nil {
			return err
		}
	}
}

func (p *Plan) copy(ctx context.Context, w *bundle.Writer, next bundle.Content) error {
	content, file, err := p.t.opts.Store.Open(ctx, next.Digest)
	switch {
	case err != nil:
		return err
	case file == nil:
		return w.WriteBlob(bytes.NewReader(content))
	}
	defer file.Close()
	// The writer proves it: it need not be checked piece by piece before.
	err = w.WriteBlob(interruptible{ctx, file})
	if errors.Is(err, bundle.ErrDamaged) {
		err = errors.Join(err, p.t.opts.Store.Verify(ctx, next.Digest, next.Size, func(int) error { return ctx.Err() }))
	}
	return err
}

// interruptible ends a read when ctx does.
type interruptible struct {
	ctx  context.Context //nolint:containedctx // it lives as long as one blob is written
	from io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}
