package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// recordAll puts the images on record that are whole. Everything that the bundle
// has is stored.
func (i *importing) recordAll(ctx context.Context) error {
	g := i.has.Graph()
	i.done.Images = []ImportedImage{}
	for _, image := range i.has.Images {
		result := ImportedImage{Name: image.Name(), Digest: image.Manifest.Digest}
		err := i.importImage(ctx, g, image)
		var refused refusal
		switch {
		case errors.As(err, &refused):
			result.Refused = refused.Error()
		case err != nil:
			return err
		}
		i.done.Images = append(i.done.Images, result)
	}
	return i.Transfer.opts.Ledger.Flush(ctx)
}

// A refusal is why one image is not imported.
type refusal string

func (r refusal) Error() string { return string(r) }

// parts are what an image consists of.
type parts struct {
	manifests []bundle.Part
	blobs     []Descriptor
}

func (i *importing) importImage(ctx context.Context, g bundle.Graph, image bundle.Image) error {
	if err := i.checkAge(image); err != nil {
		return err
	}
	all, err := i.collect(ctx, g, image)
	if err != nil {
		return err
	}
	return i.record(ctx, g, image, all)
}

// checkAge refuses an image that would move a tag back.
func (i *importing) checkAge(image bundle.Image) error {
	if image.Tag == "" || i.opts.Force {
		return nil
	}
	here, known := i.Transfer.opts.Ledger.Tag(repositoryOf(image), image.Tag)
	if !known || here.Descriptor.Digest == image.Manifest.Digest {
		return nil
	}
	if at := i.tagAt(image); at.Before(here.CheckedAt) {
		return refusal(fmt.Sprintf("what is here is newer (%s, and the bundle's is of %s): --force moves the tag all the same",
			here.CheckedAt.UTC().Format(time.DateTime), at.UTC().Format(time.DateTime)))
	}
	return nil
}

// tagAt is when the upstream said that the tag points at the image.
func (i *importing) tagAt(image bundle.Image) time.Time {
	at := image.TagAt
	if at.IsZero() {
		at = i.has.Created
	}
	if now := time.Now(); at.After(now) {
		at = now // the clock of the other side was wrong, or this one is
	}
	return at
}

// collect finds what an image consists of, and refuses one of which something is
// not here.
func (i *importing) collect(ctx context.Context, g bundle.Graph, image bundle.Image) (all parts, err error) {
	err = g.Walk(image, func(p bundle.Part) (bundle.Names, error) {
		kind := "blob"
		if p.IsManifest {
			kind = "manifest"
		}
		size, err := i.Transfer.opts.Store.Stat(ctx, p.Digest)
		switch {
		case ctx.Err() != nil:
			return bundle.Names{}, context.Cause(ctx)
		case err != nil:
			return bundle.Names{}, refusal(fmt.Sprintf("%s %s is neither in the bundle nor here", kind, p.Digest))
		case p.Size >= 0 && size != p.Size:
			return bundle.Names{}, refusal(fmt.Sprintf("%s %s has %d bytes, and should have %d", kind, p.Digest, size, p.Size))
		case !p.IsManifest:
			all.blobs = append(all.blobs, Descriptor{Digest: p.Digest, Size: size})
			return bundle.Names{}, nil
		}
		content, ok := i.Transfer.opts.Store.Read(ctx, p.Digest, maxManifest)
		if !ok {
			return bundle.Names{}, refusal(fmt.Sprintf("manifest %s can't be read", p.Digest))
		}
		all.manifests = append(all.manifests, p)
		names, err := bundle.NamesOf(p.MediaType, content)
		if err != nil {
			return names, refusal(fmt.Sprintf("manifest %s: %v", p.Digest, err))
		}
		return names, nil
	})
	return all, err
}

// record puts an image on record that is whole: what it consists of first, and
// its name last, so that a crash in between leaves no half image.
func (i *importing) record(ctx context.Context, g bundle.Graph, image bundle.Image, all parts) error {
	repo, ledger := repositoryOf(image), i.Transfer.opts.Ledger
	for _, d := range all.blobs {
		ledger.Pace(ctx)
		ledger.PutHeld(repo, d.Digest, metadata.Member{Size: d.Size})
		ledger.UseBlob(d.Digest)
	}
	answers := i.knownAnswers(repo, all.manifests) // before the manifests say more
	for n := len(all.manifests) - 1; n >= 0; n-- {
		part := all.manifests[n]
		content, ok := i.Transfer.opts.Store.Read(ctx, part.Digest, maxManifest)
		if !ok {
			return fmt.Errorf("manifest %s of %s can't be read", part.Digest, repo)
		}
		if err := i.Transfer.opts.Puller.Adopt(ctx, repo, part.MediaType, part.Digest, content); err != nil {
			return err
		}
	}
	attached := i.attachedBy(repo, all.manifests)
	for _, part := range all.manifests {
		if answer, ok := g.Answer(image, part.Digest); ok && answer.Complete && image.Referrers {
			i.recordAnswer(repo, answer, answers[part.Digest], attached[part.Digest])
		}
	}
	name := Reference{Repository: repo, Ref: image.Manifest.Digest.String()}
	if image.Tag != "" {
		name.Ref = image.Tag
		rec, _ := ledger.Manifest(repo, image.Manifest.Digest)
		i.Transfer.opts.Puller.AdoptTag(repo, image.Tag, metadata.Tag{
			Descriptor: Descriptor{MediaType: rec.MediaType, Digest: image.Manifest.Digest, Size: rec.Size},
			CheckedAt:  i.tagAt(image),
			Imported:   metadata.Import{At: time.Now()},
		})
	}
	if !i.opts.NoPin {
		ledger.PutPinOf(name, metadata.PinScope{Platforms: image.Platforms, NoReferrers: !image.Referrers}) // or completing it would ask for what was left out
	}
	return nil
}

// knownAnswer is what is here about the referrers of a manifest before an image
// is put on record.
type knownAnswer struct {
	metadata.Referrers
	isKnown  bool
	attached []Descriptor // by the indexes that are here
}

func (i *importing) knownAnswers(repo Repository, manifests []bundle.Part) map[metadata.Digest]knownAnswer {
	all := make(map[metadata.Digest]knownAnswer)
	for _, part := range manifests {
		here, known := i.Transfer.opts.Ledger.Referrers(repo, part.Digest)
		all[part.Digest] = knownAnswer{here, known, i.Transfer.opts.Ledger.Attached(repo, part.Digest)}
	}
	return all
}

// attachedBy is what the indexes among manifests attach, by subject: the answers
// that came with them take it into account.
func (i *importing) attachedBy(repo Repository, manifests []bundle.Part) map[metadata.Digest][]Descriptor {
	all := make(map[metadata.Digest][]Descriptor)
	for _, part := range manifests {
		rec, _ := i.Transfer.opts.Ledger.Manifest(repo, part.Digest)
		for _, a := range referrers.AttestationsAmong(rec.Children) {
			all[a.Subject] = append(all[a.Subject], a.Entry)
		}
	}
	return all
}

// recordAnswer puts a complete answer about referrers on record, unless a newer
// one is here. It was complete where it came from. If there is anything here that
// it may not know of, it is not complete here: then a lookup is due.
func (i *importing) recordAnswer(repo Repository, answer bundle.Answer, here knownAnswer, attached []Descriptor) {
	r := metadata.Referrers{Manifests: answer.Manifests, At: answer.At, Imported: true}
	if r.At.IsZero() {
		r.At = i.has.Created
	}
	if here.isKnown && here.At.After(r.At) && !here.At.After(time.Now()) {
		return // one of the future is no newer: a clock was wrong
	}
	listed := digestsOf(answer.Manifests)
	switch {
	case !here.isKnown:
	case !here.At.IsZero(): // it was complete with what it does not list
		known := digestsOf(here.Manifests)
		for _, d := range here.attached {
			if !known[d.Digest] {
				attached = append(attached, d)
			}
		}
	case slices.ContainsFunc(here.Manifests, func(d Descriptor) bool { return !listed[d.Digest] }):
		r.Manifests, r.At = referrers.Merge(answer.Manifests, here.Manifests), time.Time{} // whichever is newer
	}
	i.Transfer.opts.Ledger.RecordReferrers(repo, answer.Subject, r, attached)
}

func digestsOf(list []Descriptor) map[metadata.Digest]bool {
	all := make(map[metadata.Digest]bool)
	for _, d := range list {
		all[d.Digest] = true
	}
	return all
}
