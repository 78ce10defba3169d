package pull

import (
	"context"
	"errors"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// evict frees at least want bytes, if there is that much to take: images and
// blobs of no image, least recently pulled first. What it frees is told as it
// goes: a pass over a full disk takes a while.
func (p *Puller) evict(ctx context.Context, want int64) (freed int64, err error) {
	p.evictor.sweeping.Lock()
	defer p.evictor.sweeping.Unlock()
	w, done, err := p.picture(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	images, strays := w.images(), w.strays()
	for freed < want && ctx.Err() == nil && len(images)+len(strays) > 0 {
		if len(strays) > 0 && (len(images) == 0 || strays[0].use <= images[0].use) {
			n := p.discard(ctx, []Digest{strays[0].digest}, w)
			tell(p.opts.Events.Evicted, n)
			freed += n
			strays = strays[1:]
			continue
		}
		image := images[0]
		images = images[1:]
		c, gone := p.letGo(w, image)
		if !gone {
			continue
		}
		n, err := p.clear(ctx, w, c)
		tell(p.opts.Events.Evicted, n)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, ctx.Err()
}

// letGo takes an image off the records, unless others keep it, or somebody has
// come for it since the picture was taken. Whoever finds a manifest on record
// from then on finds its blobs: both is one step to keptManifest, which notes
// the use, and to keepManifest, which calls keep.
func (p *Puller) letGo(w *warehouse, image image) (c cut, gone bool) {
	root := image.root
	if root.gone || root.kept() || root.pinned || w.lastUse(root) != image.use {
		return cut{}, false
	}
	all := make(map[*keptNode]bool)
	root.reach(all)
	var names []metadata.Named
	for n := range all {
		names = append(names, metadata.Named{Repository: n.repo, Digest: n.digest})
	}
	gone = w.watch.Forget(names, func(from metadata.Removal) bool {
		if p.pinned(root) {
			return false
		}
		c = w.cut(root)
		forget(w, c, from)
		return true
	})
	return c, gone
}

// remove takes away what was cut out of the picture, whoever uses it, and
// returns the bytes that became free.
func (p *Puller) remove(ctx context.Context, w *warehouse, c cut) (int64, error) {
	w.watch.ForgetAnyway(func(from metadata.Removal) { forget(w, c, from) })
	return p.clear(ctx, w, c)
}

// forget takes manifests off the records, with what only they made known. What
// a manifest that came meanwhile names stays known.
func forget(w *warehouse, c cut, from metadata.Removal) {
	for _, n := range c.manifests {
		for _, tag := range n.tags {
			from.TagAt(n.repo, tag, n.digest)
		}
		from.Manifest(n.repo, n.digest, w.marks[n.key()] == 0)
		unmark(w, n, from)
		for _, b := range n.rec.Blobs {
			if w.held[metadata.Key(n.repo, b.Digest.String())] == 0 {
				from.Member(n.repo, b.Digest)
			}
		}
	}
}

// unmark forgets what an index attached, as far as no other attaches it. What
// it attached stays known for as long as it is kept, whether that is or not.
func unmark(w *warehouse, n *keptNode, from metadata.Removal) {
	for _, a := range referrers.AttestationsAmong(n.rec.Children) {
		if w.marks[metadata.AttachedKey(n.repo, a.Subject, a.Entry.Digest)] == 0 {
			from.Attached(n.repo, a.Subject, a.Entry.Digest)
		}
		if w.marks[metadata.Key(n.repo, a.Entry.Digest.String())] == 0 {
			from.Attestation(n.repo, a.Entry.Digest)
		}
	}
}

// clear deletes the content of what is off the records, and returns the bytes
// that became free. The records are made durable before: a crash between
// leaves blobs that nobody names, never a manifest without its blobs.
func (p *Puller) clear(ctx context.Context, w *warehouse, c cut) (int64, error) {
	err := p.opts.Records.Flush(ctx)
	if err != nil && !errors.Is(err, cache.ErrFull) {
		return 0, err
	}
	freed := p.discard(ctx, c.content, w)
	if err != nil {
		// There was no room even to write that down, and now there is. Had
		// the power been cut between, the manifests would be on record again,
		// but without content, which went first: so they would not be served.
		err = p.opts.Records.Flush(ctx)
	}
	return freed, err
}

// discard deletes blobs that nobody has come to name since the picture.
func (p *Puller) discard(ctx context.Context, digests []Digest, w *warehouse) (freed int64) {
	for _, d := range digests {
		size, onDisk := w.sizes[d]
		if !onDisk || !p.deleteUnnamed(ctx, w, d) {
			continue
		}
		delete(w.sizes, d)
		p.opts.Memory.Delete(d) // or it would be served, and not be fetched and kept again
		p.meta.DropBlobUse(d)
		p.evictor.shrank(size)
		freed += p.opts.Blobs.Weight(size)
	}
	return freed
}

// deleteUnnamed deletes a blob unless a manifest has named it meanwhile, or it
// is just being published; neither can happen while it is deleted.
func (p *Puller) deleteUnnamed(ctx context.Context, w *warehouse, d Digest) bool {
	return w.watch.Remove(d, func() bool {
		if !p.evictor.beginDelete(d) {
			return false
		}
		defer p.evictor.endDelete(d)
		if err := p.opts.Blobs.Delete(ctx, d); err != nil {
			p.log.Error("blob cannot be removed", "digest", d.String(), "error", err)
			return false
		}
		return true
	})
}
