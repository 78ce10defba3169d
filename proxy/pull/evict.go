package pull

import (
	"context"
)

// evict frees at least want bytes, if there is that much to take: images and
// blobs of no image, least recently pulled first.
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
			freed += p.discard(ctx, []Digest{strays[0].digest}, w)
			strays = strays[1:]
			continue
		}
		image := images[0]
		images = images[1:]
		if image.root.gone || image.root.kept() || image.root.pinned || w.lastUse(image.root) != image.use {
			continue // kept by others, pinned, or pulled since the picture was taken
		}
		n, err := p.remove(ctx, w, w.cut(image.root))
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, ctx.Err()
}

// remove takes away what was cut out of the picture, and returns the bytes that
// became free. The records go first, and durably: a crash between leaves blobs
// that nobody names, never a manifest without its blobs.
func (p *Puller) remove(ctx context.Context, w *warehouse, c cut) (int64, error) {
	for _, n := range c.manifests {
		for _, tag := range n.tags {
			p.ledger.dropTag(n.repo, tag)
		}
		p.ledger.dropManifest(n.repo, n.digest)
		p.uses.forget(n.key())
		for _, b := range n.rec.Blobs {
			if w.held[recordKey(n.repo, b.Digest.String())] == 0 {
				p.ledger.dropMember(n.repo, b.Digest)
			}
		}
	}
	if err := p.opts.Records.Flush(ctx); err != nil {
		return 0, err
	}
	return p.discard(ctx, c.content, w), nil
}

// discard deletes blobs that nobody has come to name since the picture.
func (p *Puller) discard(ctx context.Context, digests []Digest, w *warehouse) (freed int64) {
	for _, d := range digests {
		size, onDisk := w.sizes[d]
		if !onDisk || !p.deleteUnnamed(ctx, d) {
			continue
		}
		delete(w.sizes, d)
		p.uses.forget(d.String())
		p.evictor.grew(-size)
		freed += size
	}
	return freed
}

// deleteUnnamed deletes a blob unless a manifest has named it meanwhile; no
// manifest can do so while it is deleted.
func (p *Puller) deleteUnnamed(ctx context.Context, d Digest) bool {
	p.evictor.mu.Lock()
	defer p.evictor.mu.Unlock()
	if p.evictor.since[d] {
		return false
	}
	if err := p.opts.Blobs.Delete(ctx, d); err != nil {
		p.log.Error("blob cannot be removed", "digest", d.String(), "error", err)
		return false
	}
	return true
}
