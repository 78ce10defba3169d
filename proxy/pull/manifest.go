package pull

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Manifest returns a manifest by tag or by digest. It waits as long as a client
// does, who may wish for an answer of at most some age.
func (p *Puller) Manifest(ctx context.Context, repo Repository, ref string, wish ...Freshness) (Manifest, error) {
	if m, ok := p.remembered(repo, ref, wish); ok {
		return m, nil
	}
	return duringOutage(ctx, p, func() (Manifest, error) {
		ctx, cancel := p.asClient(ctx)
		defer cancel()
		return p.manifest(ctx, repo, ref, wish)
	})
}

// WaitForManifest does what Manifest does, for whoever is no client: it waits as
// long as the upstream may take. Tags can change and digests cannot, so the two
// have separate code paths.
func (p *Puller) WaitForManifest(ctx context.Context, repo Repository, ref string) (Manifest, error) {
	return p.manifest(ctx, repo, ref, nil)
}

func (p *Puller) manifest(ctx context.Context, repo Repository, ref string, wish []Freshness) (Manifest, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if d, parseErr := digest.Parse(ref); parseErr == nil {
		m, err = p.manifestByDigest(ctx, u, repo, d)
	} else {
		m, err = p.manifestByTag(ctx, u, repo, ref, wish)
	}
	m.parsed = nil                                            // whoever sends it reads nothing of it, and may take long
	if err == nil && m.Outcome != Hit && m.Outcome != Stale { // for those, cachedManifest has recorded the use
		p.ledger.UseManifest(repo, m.Descriptor.Digest)
	}
	return m, err
}

// FetchManifest caches a manifest unless it is cached already.
func (p *Puller) FetchManifest(ctx context.Context, repo Repository, d Digest) error {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return err
	}
	if p.store.Outage() != nil {
		return fmt.Errorf("manifest %s of %s: %w", d, repo, cache.ErrDown) // it may be there
	}
	m, err := p.manifestByDigest(ctx, u, repo, d)
	switch {
	case err != nil:
	case m.uncacheable:
		err = fmt.Errorf("manifest %s of %s: %w: it is not cached", d, repo, upstream.ErrInvalidResponse)
	case !p.store.Has(ctx, d):
		err = fmt.Errorf("manifest %s of %s: %w", d, repo, cache.ErrFull)
	}
	return err
}

// ResolveManifest asks for the descriptor of a manifest after fetching it has
// failed with a rate limit. Some upstreams limit how many manifests are
// fetched, but not HEAD requests (W42). For any other failure it returns
// failed.
func (p *Puller) ResolveManifest(ctx context.Context, repo Repository, ref string, failed error) (Descriptor, error) {
	var limited *upstream.RateLimitedError
	u, err := p.upstreamFor(repo)
	if err != nil || u.Offline || !errors.As(failed, &limited) {
		return Descriptor{}, failed
	}
	if _, isList := referrers.SubjectOf(ref); isList {
		return Descriptor{}, failed // what the upstream has there is not what is answered
	}
	ctx, cancel := p.asClient(ctx)
	defer cancel()
	d, err := shareRequest(ctx, p, p.requests.others, "resolve\x00"+metadata.Key(repo, ref), func(ctx context.Context) (Descriptor, error) {
		return u.Registry.Resolve(ctx, repo.Name, ref)
	})
	if err != nil || d.Digest == "" || d.Size < 0 || d.MediaType == "" {
		return Descriptor{}, failed
	}
	return d, nil
}

func (p *Puller) manifestByDigest(ctx context.Context, u Upstream, repo Repository, d Digest) (Manifest, error) {
	if m, ok := p.cachedManifest(ctx, repo, d); ok {
		return m, nil
	}
	if err := checkVerifiable(d); err != nil {
		return Manifest{}, fmt.Errorf("manifest of %s: %w", repo, err)
	}
	key := manifestKey(repo, d.String())
	if err := p.negative.get(key); err != nil {
		return Manifest{Outcome: Negative}, err
	}
	if u.Offline {
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w", d, repo, ErrOffline)
	}
	return shareRequest(ctx, p, p.requests.fetches, key, func(ctx context.Context) (Manifest, error) {
		return p.confirmOrFetchManifest(ctx, u, repo, d)
	})
}

func manifestKey(repo Repository, ref string) string {
	return "manifest\x00" + metadata.Key(repo, ref)
}

// cachedManifest returns a manifest that is cached for repo, and records its
// use.
func (p *Puller) cachedManifest(ctx context.Context, repo Repository, d Digest) (Manifest, bool) {
	mediaType, ok := p.ledger.Find(repo, d)
	if !ok {
		return Manifest{}, false
	}
	if m, ok := p.describeCached(ctx, d, mediaType); ok {
		return m, true
	}
	content, ok := p.store.Read(ctx, d, maxManifest)
	if !ok {
		return Manifest{}, false
	}
	m := Manifest{
		Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))},
		Bytes:      content,
		Outcome:    Hit,
	}
	if err := p.store.Retry(ctx, m.Descriptor, content); err != nil {
		emit(p.events.Bypassed, repo.Upstream)
	}
	return m, true
}

// confirmOrFetchManifest caches a manifest for repo. If the content is here
// already, a HEAD request is enough.
func (p *Puller) confirmOrFetchManifest(ctx context.Context, u Upstream, repo Repository, d Digest) (Manifest, error) {
	if m, ok := p.cachedManifest(ctx, repo, d); ok {
		return m, nil // it was cached in the meantime
	}
	if content, ok := p.store.Read(ctx, d, maxManifest); ok {
		if doc := referrers.Parse(content); isManifest(doc) {
			// The content is here, because another repository has it or because the
			// records were lost. The upstream only has to confirm it.
			if desc, err := u.Registry.Resolve(ctx, repo.Name, d.String()); err == nil {
				m, err := p.storeManifest(ctx, repo, desc.MediaType, doc, d)
				m.Outcome = Revalidated
				return m, err
			}
		}
	}
	return p.fetchManifest(ctx, u, repo, d.String(), d, "")
}

// fetchManifest fetches a manifest by tag or digest from the upstream, verifies
// it, and caches it. want is empty for a tag. head is what HEAD said of the tag,
// if the manifest could not be had by that digest.
func (p *Puller) fetchManifest(ctx context.Context, u Upstream, repo Repository, ref string, want, head Digest) (Manifest, error) {
	c, content, done, err := p.readManifest(ctx, u, repo, ref)
	defer done()
	if err != nil {
		if want != "" && errors.Is(err, upstream.ErrNotFound) {
			p.negative.put(manifestKey(repo, ref), err)
		}
		return Manifest{}, err
	}
	if len(content) > maxManifest {
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w: over %d bytes", ref, repo, errTooLarge, maxManifest)
	}
	doc := referrers.Parse(content)
	if want == "" && !isManifest(doc) {
		// A manifest fetched by digest is verified by its digest. For a tag
		// there is nothing else to check.
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w: the body is not a manifest", ref, repo, upstream.ErrInvalidResponse)
	}
	payload := signedPayload(doc)
	if want == "" {
		want = c.Digest
	}
	if want == "" || !want.Algorithm().Available() {
		want = digest.FromBytes(payload)
	}
	m, err := Manifest{}, error(nil)
	switch by := want.Algorithm(); {
	case by.FromBytes(content) == want:
		m, err = p.storeManifest(ctx, repo, c.MediaType, doc, want)
	case by.FromBytes(payload) == want:
		// The digest of a signed schema 1 manifest is that of its signed
		// payload. The cache verifies content by its own bytes, so this one is
		// not cached.
		m = Manifest{
			Descriptor: Descriptor{MediaType: signedSchema1, Digest: want, Size: int64(len(content))},
			Bytes:      content, uncacheable: true,
		}
	case ref != want.String() && len(payload) == len(content) && !p.isDisproved(repo, ref, head, c.Digest, content):
		done() // it reads another one
		return p.resolveDigestConflict(ctx, u, repo, c, doc)
	default:
		err = fmt.Errorf("manifest %s of %s: %w: %w", ref, repo, upstream.ErrInvalidResponse, cache.ErrMismatch)
	}
	m.Outcome, m.Warnings = Miss, c.Warnings
	if c.Stale && ref != want.String() {
		m.Stale = true // the tag may point at something else by now
	}
	return m, err
}

// errTooLarge means that a manifest is larger than those that are served.
var errTooLarge = fmt.Errorf("%w: it is too large", upstream.ErrInvalidResponse)

// readManifest requests a manifest and reads it. If its body breaks or falls
// silent, it is requested once more.
//
// The caller calls done when it has read what is in it.
func (p *Puller) readManifest(ctx context.Context, u Upstream, repo Repository, ref string) (c upstream.Content, content []byte, done func(), err error) {
	done = func() {}
	for range 2 {
		if c, err = u.Registry.Manifest(ctx, repo.Name, ref); err != nil {
			return c, nil, done, err
		}
		done()
		content, done, err = p.rules.Room.Read(ctx, u.Name, c.Body, c.Size, maxManifest+1)
		c.Body.Close()
		emit2(p.events.Received, u.Name, int64(len(content)))
		if err == nil || ctx.Err() != nil || errors.Is(err, upstream.ErrCrowded) {
			break
		}
		if upstream.IsSlow(err) {
			ctx = upstream.WithPatience(ctx)
		}
	}
	if err != nil {
		err = fmt.Errorf("manifest %s of %s: %w", ref, repo, err)
	}
	return c, content, done, err
}

// isDisproved says whether a tag's body is wrong for certain: HEAD and GET name
// the same digest, and it is not the body's. A body that is cached for the tag
// already was believed once.
func (p *Puller) isDisproved(repo Repository, tag string, head, named Digest, content []byte) bool {
	if head == "" || head != named {
		return false
	}
	rec, ok := p.ledger.Tag(repo, tag)
	return !ok || rec.Descriptor.Digest != digest.FromBytes(content)
}

// resolveDigestConflict handles a tag whose body does not match its
// Docker-Content-Digest header: one of them is wrong. If the upstream has a
// manifest with the digest in the header, the body was wrong; if it does not,
// the header was.
func (p *Puller) resolveDigestConflict(ctx context.Context, u Upstream, repo Repository, c upstream.Content, doc *referrers.Document) (Manifest, error) {
	m, err := p.fetchManifest(ctx, u, repo, c.Digest.String(), c.Digest, "")
	if !errors.Is(err, upstream.ErrNotFound) {
		return m, err
	}
	m, err = p.storeManifest(ctx, repo, c.MediaType, doc, digest.FromBytes(doc.Bytes()))
	m.Outcome, m.Warnings = Miss, c.Warnings
	m.Stale = c.Stale
	return m, err
}

// storeManifest caches a verified document as a manifest of repo, and records
// everything that it references. If it cannot be written to disk, it is served
// anyway.
func (p *Puller) storeManifest(ctx context.Context, repo Repository, mediaType string, doc *referrers.Document, d Digest) (Manifest, error) {
	content := doc.Bytes()
	mediaType = manifestType(mediaType, doc)
	if err := referrers.CheckReading(mediaType, doc); err != nil {
		// What the registry has verified may be something else than what it
		// names to us. It passes through, and says nothing here.
		p.log.Warn("manifest is not cached, because it can be read in two ways", "repository", repo.String(), "digest", d.String(), "error", err)
		return Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}, Bytes: content, uncacheable: true}, nil
	}
	if p.upstreams[repo.Upstream].Credentialed {
		p.ledger.PutPrivate(d)
	}
	rec := metadata.Manifest{MediaType: mediaType, Size: int64(len(content))}
	children, blobs, subject, isWide, err := referrers.FirstNames(mediaType, doc)
	if isWide {
		rec.Wide = true
		rec.Names, err = referrers.ReadNameSet(mediaType, doc)
	}
	if err != nil {
		// We cannot read it, but clients may be able to.
		p.log.Warn("manifest cannot be parsed", "repository", repo.String(), "digest", d.String(), "error", err)
	}
	rec.Children, rec.Blobs = children, blobs
	if subject != nil {
		rec.Subject = subject.Digest
	}
	m := Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: rec.Size}, Bytes: content, parsed: doc}
	p.ledger.Pace(ctx)
	p.store.PutMemory(d, content)
	defer p.ledger.Lease(rec, d)() // before the store is asked whether the content is there
	if err := p.store.Put(ctx, m.Descriptor, content); err != nil {
		emit(p.events.Bypassed, repo.Upstream)
		p.log.Warn("manifest could not be cached", "repository", repo.String(), "digest", d.String(), "error", err)
	}
	p.negative.delete(manifestKey(repo, d.String()))
	p.store.PutNames(d, rec.Names)
	// Of a wide manifest only the first: what else was not found is asked again in
	// a moment anyway.
	for _, b := range blobs {
		p.negative.delete(blobKey(repo, b.Digest)) // the manifest is newer than a remembered "not found"
	}
	for _, c := range children {
		p.negative.delete(manifestKey(repo, c.Digest.String()))
	}
	p.ledger.PutManifest(repo, d, rec)
	p.recordReferrers(repo, m.Descriptor, doc, subject, children)
	if p.events.ManifestStored != nil {
		p.events.ManifestStored(repo, d, rec)
	}
	return m, nil
}
