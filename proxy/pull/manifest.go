package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Manifest returns a manifest by tag or by digest. A tag can change and a
// digest cannot: two different roads.
func (p *Puller) Manifest(ctx context.Context, repo Repository, ref string) (Manifest, error) {
	u, err := p.admit(repo)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if d, parseErr := digest.Parse(ref); parseErr == nil {
		m, err = p.manifestByDigest(ctx, u, repo, d)
	} else {
		m, err = p.manifestByTag(ctx, u, repo, ref)
	}
	if err == nil && m.Outcome != Hit && m.Outcome != Stale { // those are noted where they are found
		p.meta.UseManifest(repo, m.Descriptor.Digest)
	}
	return m, err
}

// ResolveManifest asks for the descriptor of a manifest that could not be had:
// of an upstream that limits how many are fetched, and not how many are asked
// for (W42). Any other failure is its answer.
func (p *Puller) ResolveManifest(ctx context.Context, repo Repository, ref string, failed error) (Descriptor, error) {
	var limited *upstream.RateLimitedError
	u, err := p.admit(repo)
	if err != nil || p.opts.Offline || !errors.As(failed, &limited) {
		return Descriptor{}, failed
	}
	d, err := once(ctx, p, &p.asks, "resolve\x00"+metadata.Key(repo, ref), func(ctx context.Context) (Descriptor, error) {
		return u.Registry.Resolve(ctx, repo.Name, ref)
	})
	if err != nil || d.Digest == "" || d.Size < 0 || d.MediaType == "" {
		return Descriptor{}, failed
	}
	return d, nil
}

func (p *Puller) manifestByDigest(ctx context.Context, u Upstream, repo Repository, d Digest) (Manifest, error) {
	if m, ok := p.keptManifest(ctx, repo, d); ok {
		return m, nil
	}
	key := manifestKey(repo, d.String())
	if err := p.absent.err(key); err != nil {
		return Manifest{Outcome: Negative}, err
	}
	if p.opts.Offline {
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w", d, repo, ErrOffline)
	}
	return once(ctx, p, &p.fetches, key, func(ctx context.Context) (Manifest, error) {
		return p.acquireManifest(ctx, u, repo, d)
	})
}

func manifestKey(repo Repository, ref string) string {
	return "manifest\x00" + metadata.Key(repo, ref)
}

// keptManifest returns a manifest that is kept for repo.
func (p *Puller) keptManifest(ctx context.Context, repo Repository, d Digest) (Manifest, bool) {
	rec, ok := p.meta.Find(repo, d)
	if !ok {
		return Manifest{}, false
	}
	content, ok := p.content(ctx, d)
	if !ok {
		return Manifest{}, false
	}
	m := Manifest{
		Descriptor: Descriptor{MediaType: rec.MediaType, Digest: d, Size: int64(len(content))},
		Bytes:      content,
		Outcome:    Hit,
	}
	if p.unkept.has(d) {
		if err := p.store(ctx, m.Descriptor, content); err != nil {
			tell(p.opts.Events.Bypassed, repo.Upstream)
		} else {
			p.unkept.remove(d) // room has returned
		}
	}
	return m, true
}

// content reads a manifest's bytes from memory, else from the blobs.
func (p *Puller) content(ctx context.Context, d Digest) ([]byte, bool) {
	if content, ok := p.opts.Memory.Get(d); ok {
		return content, true
	}
	file, err := p.opts.Blobs.Open(ctx, d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			p.log.Error("kept manifest cannot be opened", "digest", d.String(), "error", err)
		}
		return nil, false
	}
	defer file.Close()
	if file.Size() > maxManifest {
		return nil, false
	}
	content, err := p.readProven(ctx, d, file)
	if err != nil {
		p.log.Error("kept manifest cannot be read", "digest", d.String(), "error", err)
		return nil, false
	}
	p.opts.Memory.Put(d, content)
	return content, true
}

// acquireManifest has a manifest confirmed or fetched by digest, and keeps it.
func (p *Puller) acquireManifest(ctx context.Context, u Upstream, repo Repository, d Digest) (Manifest, error) {
	if m, ok := p.keptManifest(ctx, repo, d); ok {
		return m, nil // kept since the caller looked
	}
	if content, ok := p.content(ctx, d); ok && isManifest(content) {
		// The bytes are here, by way of another repository or because the
		// records were lost: the upstream's word is enough.
		if desc, err := u.Registry.Resolve(ctx, repo.Name, d.String()); err == nil {
			m, err := p.keepManifest(ctx, repo, desc.MediaType, content, d)
			m.Outcome = Revalidated
			return m, err
		}
	}
	return p.fetchManifest(ctx, u, repo, d.String(), d)
}

// fetchManifest gets a manifest by tag or digest from the upstream, proves it,
// and keeps it. want is empty for a tag.
func (p *Puller) fetchManifest(ctx context.Context, u Upstream, repo Repository, ref string, want Digest) (Manifest, error) {
	c, err := u.Registry.Manifest(ctx, repo.Name, ref)
	if err != nil {
		if want != "" && errors.Is(err, upstream.ErrNotFound) {
			p.absent.remember(manifestKey(repo, ref), err)
		}
		return Manifest{}, err
	}
	defer c.Body.Close()
	content, err := io.ReadAll(io.LimitReader(c.Body, maxManifest+1))
	tell2(p.opts.Events.Received, u.Name, int64(len(content)))
	switch {
	case err != nil:
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w", ref, repo, err)
	case len(content) > maxManifest:
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w: over %d bytes", ref, repo, upstream.ErrBadAnswer, maxManifest)
	case want == "" && !isManifest(content):
		// By digest the digest decides; a tag has nothing else to be held against.
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w: the body is no manifest", ref, repo, upstream.ErrBadAnswer)
	}
	payload := signedPayload(content)
	if want == "" {
		want = c.Digest
	}
	if want == "" || !want.Algorithm().Available() {
		want = digest.FromBytes(payload)
	}
	m, err := Manifest{}, error(nil)
	switch by := want.Algorithm(); {
	case by.FromBytes(content) == want:
		m, err = p.keepManifest(ctx, repo, c.MediaType, content, want)
	case by.FromBytes(payload) == want:
		// A signed manifest of schema 1 has the digest of what is signed. What
		// is kept is proven by its own bytes, so this is passed through.
		m = Manifest{
			Descriptor: Descriptor{MediaType: signedSchema1, Digest: want, Size: int64(len(content))},
			Bytes:      content, passed: true,
		}
	case ref != want.String() && len(payload) == len(content):
		return p.fetchDoubted(ctx, u, repo, c, content)
	default:
		err = fmt.Errorf("manifest %s of %s: %w: %w", ref, repo, upstream.ErrBadAnswer, cache.ErrMismatch)
	}
	m.Outcome, m.Warnings = Miss, c.Warnings
	return m, err
}

// fetchDoubted decides about a tag whose manifest is not what its header says:
// either of them is wrong. Where the upstream has what the header names, the
// body was; where it has not, the header names nothing.
func (p *Puller) fetchDoubted(ctx context.Context, u Upstream, repo Repository, c upstream.Content, content []byte) (Manifest, error) {
	m, err := p.fetchManifest(ctx, u, repo, c.Digest.String(), c.Digest)
	if !errors.Is(err, upstream.ErrNotFound) {
		return m, err
	}
	m, err = p.keepManifest(ctx, repo, c.MediaType, content, digest.FromBytes(content))
	m.Outcome, m.Warnings = Miss, c.Warnings
	return m, err
}

// keepManifest keeps proven content as a manifest of repo, with everything it
// names. What can't be written is served all the same.
func (p *Puller) keepManifest(ctx context.Context, repo Repository, mediaType string, content []byte, d Digest) (Manifest, error) {
	mediaType = manifestType(mediaType, content)
	rec := metadata.Manifest{MediaType: mediaType, Size: int64(len(content))}
	children, blobs, subject, err := referrers.Names(mediaType, content)
	if err != nil {
		// Opaque to us, not to the client: it passes through.
		p.log.Warn("manifest names nothing that is understood", "repository", repo.String(), "digest", d.String(), "error", err)
	}
	rec.Children, rec.Blobs = children, blobs
	if subject != nil {
		rec.Subject = subject.Digest
	}
	m := Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: rec.Size}, Bytes: content}
	p.opts.Memory.Put(d, content)
	defer p.meta.Lease(rec, d)() // from before it is looked whether the bytes are there
	if err := p.store(ctx, m.Descriptor, content); err != nil {
		tell(p.opts.Events.Bypassed, repo.Upstream)
		p.evictor.rouse()
		p.unkept.add(d)
		p.log.Warn("manifest is not kept", "repository", repo.String(), "digest", d.String(), "error", err)
	}
	p.absent.forget(manifestKey(repo, d.String()))
	for _, b := range blobs {
		p.absent.forget(blobKey(repo, b.Digest)) // newer word than an absence that is remembered
	}
	for _, c := range children {
		p.absent.forget(manifestKey(repo, c.Digest.String()))
	}
	p.meta.PutManifest(repo, d, rec)
	p.indexReferrers(repo, m, subject)
	if p.hasMore(repo, d, rec) {
		p.learners[repo.Upstream].look(repo)
	}
	return m, nil
}

// store publishes content in the blobs, where it is not there yet: once at a
// time for one digest, so that it is counted once.
func (p *Puller) store(ctx context.Context, desc Descriptor, content []byte) error {
	_, err, _ := p.stores.Do(desc.Digest.String(), func() (any, error) {
		if _, err := p.opts.Blobs.Stat(ctx, desc.Digest); err == nil {
			return nil, nil
		}
		return nil, p.write(ctx, desc, content)
	})
	return err
}

func (p *Puller) write(ctx context.Context, desc Descriptor, content []byte) error {
	draft, err := p.opts.Blobs.Create(ctx, desc)
	if err != nil {
		return err
	}
	defer draft.Close()
	if _, err := draft.Write(content); err != nil {
		return err
	}
	p.evictor.squeeze(desc.Digest, desc.Size)
	err = draft.Commit()
	p.evictor.settle(desc.Digest, err == nil)
	return err
}
