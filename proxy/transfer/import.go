package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// ImportOptions say what becomes of what a bundle has.
type ImportOptions struct {
	NoPin bool // images are not pinned
	Force bool // a tag is moved although what is here is newer
}

// ImportProgress says how far an import is.
type ImportProgress struct {
	Bytes   int64 `json:"bytes"`   // of the blobs that were read
	Total   int64 `json:"total"`   // of all that the bundle has
	Written int64 `json:"written"` // of those that were not here
}

// Imported is the result of an import.
type Imported struct {
	ImportProgress

	Images []ImportedImage `json:"images"`
}

// ImportedImage says what became of an image. It was imported unless there is a
// reason why not.
type ImportedImage struct {
	Name    string `json:"name"`
	Digest  Digest `json:"digest"`
	Refused string `json:"refused,omitempty"`
}

// An importing is an import under way.
type importing struct {
	*Transfer

	opts    ImportOptions
	in      *bundle.Reader
	has     *bundle.Contents
	written []Digest // that were not here before
	done    Imported
	tell    func(ImportProgress)
	cut     bool // whoever sends the bundle has stopped
}

// Import puts the images of a bundle into the mirror, and pins them by name: they
// cannot be fetched again. An image goes in as a whole, or is refused by name; if
// any is, the error is ErrRefused beside the result. progress is called now and
// then; it may be nil.
//
// It returns bundle.ErrNotBundle, bundle.ErrDamaged, bundle.ErrHostile or
// bundle.ErrNewer for a file that is none, upstream.ErrNameUnknown for a name that
// is not configured, ErrPins, or cache.ErrFull. Then nothing was imported. If ctx
// ends, or in breaks off, the blobs that have arrived stay: the next import does
// not write them again.
func (t *Transfer) Import(ctx context.Context, in io.Reader, opts ImportOptions, progress func(ImportProgress)) (Imported, error) {
	i := &importing{Transfer: t, opts: opts, in: bundle.NewReader(in), tell: progress}
	if i.tell == nil {
		i.tell = func(ImportProgress) {}
	}
	release, err := i.prepare(ctx)
	if err != nil {
		return Imported{}, err
	}
	err = i.run(ctx)
	release() // or nothing could be dropped
	switch {
	case err != nil && (i.cut || ctx.Err() != nil):
		return i.done, fmt.Errorf("import: %w", err)
	case err != nil:
		i.done = Imported{}
	}
	// Those of images that were refused, or all.
	if _, dropErr := t.opts.Retention.DropUnreferenced(context.WithoutCancel(ctx), i.written); dropErr != nil {
		t.log.Warn("what an import has left cannot be removed", "error", dropErr)
	}
	if err == nil && slices.ContainsFunc(i.done.Images, func(image ImportedImage) bool { return image.Refused != "" }) {
		err = ErrRefused
	}
	if err != nil {
		return i.done, fmt.Errorf("import: %w", err)
	}
	return i.done, nil
}

// prepare reads what a bundle says of itself and refuses what can't be imported.
// Nothing that it names is evicted before release.
func (i *importing) prepare(ctx context.Context) (release func(), err error) {
	if i.has, err = i.in.Contents(); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if i.has == nil {
		return nil, fmt.Errorf("import: %w: it has no entrepot.json before its blobs; what another tool has written has to be a file, and not a pipe", bundle.ErrNotBundle)
	}
	for _, image := range i.has.Images {
		if err := i.Transfer.opts.Puller.Check(repositoryOf(image)); err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
	}
	if err := i.checkPins(ctx); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	i.done.Total = i.has.Bytes()
	var all metadata.Manifest
	for _, content := range slices.Concat(i.has.Content, i.has.Assumed) {
		all.Blobs = append(all.Blobs, Descriptor{Digest: content.Digest})
	}
	return i.Transfer.opts.Ledger.Lease(all, ""), nil
}

// checkPins returns ErrPins if what is pinned would be more than the cache may
// hold.
func (i *importing) checkPins(ctx context.Context) error {
	most := i.Transfer.opts.Store.MaxBytes()
	if i.opts.NoPin || most == 0 {
		return nil
	}
	pinned, err := i.Transfer.opts.Retention.PinnedContent(ctx)
	if err != nil {
		return err
	}
	for _, content := range i.has.Content {
		pinned[content.Digest] = content.Size
	}
	var total int64
	for _, size := range pinned {
		if total += i.Transfer.opts.Store.Weight(size); total < 0 || total > most {
			return fmt.Errorf("%w: they have more than the %d bytes of max_size: make that larger, or import with --no-pin", ErrPins, most)
		}
	}
	return nil
}

func (i *importing) run(ctx context.Context) error {
	manifests := make(map[Digest]bool)
	private := make(map[Digest]bool)
	for _, content := range i.has.Content {
		manifests[content.Digest], private[content.Digest] = content.MediaType != "", content.Private
	}
	for {
		b, err := i.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			i.cut = !isOfFile(err)
			return err
		case manifests[b.Digest] && b.Size > maxManifest:
			return fmt.Errorf("%s: %w: a manifest of %d bytes", b.Digest, bundle.ErrHostile, b.Size)
		}
		if private[b.Digest] {
			i.Transfer.opts.Ledger.PutPrivate(b.Digest)
		}
		if err := i.take(ctx, b); err != nil {
			return err
		}
		i.done.Bytes += b.Size
		i.tell(i.done.ImportProgress)
	}
	return i.recordAll(ctx)
}

// isOfFile says whether an error says what a file is like. Others say that it
// could not be read.
func isOfFile(err error) bool {
	return errors.Is(err, bundle.ErrDamaged) || errors.Is(err, bundle.ErrHostile) || errors.Is(err, bundle.ErrNotBundle) || errors.Is(err, bundle.ErrNewer)
}

// take stores a blob, or proves it if it is here already.
func (i *importing) take(ctx context.Context, b *bundle.Blob) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if i.Transfer.opts.Store.Has(ctx, b.Digest) {
		err := b.Prove(io.Discard)
		i.cut = err != nil && !isOfFile(err)
		return err
	}
	want := Descriptor{Digest: b.Digest, Size: b.Size}
	draft, err := i.Transfer.opts.Store.Create(ctx, want)
	if err != nil {
		return err
	}
	defer draft.Close()
	if err := i.Transfer.opts.Store.Reserve(draft, want); err != nil {
		return err
	}
	if err := i.copy(ctx, draft, b); err != nil {
		return err
	}
	i.written = append(i.written, b.Digest)
	i.done.Written += b.Size
	err = i.Transfer.opts.Store.Publish(ctx, b.Digest, b.Size, draft)
	if errors.Is(err, cache.ErrMismatch) {
		err = fmt.Errorf("%s: %w: its bytes are something else", b.Digest, bundle.ErrDamaged)
	}
	return err
}

// copyBuffer is how many bytes are copied at once.
const copyBuffer = 256 << 10

// copy copies a blob to a draft, which proves it.
func (i *importing) copy(ctx context.Context, draft cache.Draft, b *bundle.Blob) error {
	buffer := make([]byte, min(copyBuffer, b.Size+1))
	for ctx.Err() == nil {
		n, err := b.Read(buffer)
		if n > 0 {
			if _, writeErr := draft.Write(buffer[:n]); writeErr != nil {
				return writeErr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if err := draft.Verify(); err != nil {
				return fmt.Errorf("%s: %w: its bytes are something else", b.Digest, bundle.ErrDamaged)
			}
			return nil
		case err != nil:
			i.cut = !isOfFile(err)
			return err
		}
	}
	return context.Cause(ctx)
}
