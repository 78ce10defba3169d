package pull

import (
	"context"
	"slices"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// largeManifest is the size in bytes above which a manifest that is not in memory
// is not read to describe it: whoever asks with HEAD may have it already. Smaller
// ones are brought into memory, for the GET that mostly follows.
const largeManifest = 64 << 10

type headOnly struct{}

// DescribeFor is ManifestFor for a client that does not want the bytes. The
// answer may be without them. Its size is right in any case.
func (p *Puller) DescribeFor(ctx context.Context, repo Repository, ref string, types []string, wish ...Freshness) (Manifest, error) {
	if m, ok := p.remembered(repo, ref, wish); ok && (len(types) == 0 || slices.Contains(types, m.Descriptor.MediaType)) {
		return m, nil
	}
	return p.ManifestFor(context.WithValue(ctx, headOnly{}, true), repo, ref, types, wish...)
}

// withBody is the context of a request for a manifest that is read here.
func withBody(ctx context.Context) context.Context { return context.WithValue(ctx, headOnly{}, false) }

// describeCached describes a large manifest that is stored, and not in memory, if
// its bytes are not wanted.
func (p *Puller) describeCached(ctx context.Context, d Digest, mediaType string) (Manifest, bool) {
	if only, _ := ctx.Value(headOnly{}).(bool); !only {
		return Manifest{}, false
	}
	if _, inMemory := p.store.ReadMemory(d); inMemory {
		return Manifest{}, false
	}
	size, err := p.store.Stat(ctx, d)
	if err != nil || size <= largeManifest || size > maxManifest {
		return Manifest{}, false
	}
	return Manifest{Descriptor: metadata.Descriptor{MediaType: mediaType, Digest: d, Size: size}, Outcome: Hit}, true
}
