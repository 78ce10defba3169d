package transfer

import (
	"context"
	"encoding/json"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

// describe says what else than an image a manifest is, or which of its platforms
// those get who read no index.
func (p *planning) describe(ctx context.Context, repo Repository, image *bundle.Image, rec metadata.Manifest) {
	d, isImage := p.platform(repo, image, rec)
	content, ok := p.t.opts.Store.Read(ctx, d, maxManifest)
	if !ok {
		return
	}
	if !isImage {
		described, err := referrers.Describe(rec.MediaType, referrers.Parse(content))
		if err == nil && len(rec.Children) == 0 {
			image.Artifact = described.Descriptor.ArtifactType
		}
		return
	}
	var manifest ocispec.Manifest
	if json.Unmarshal(content, &manifest) != nil || manifest.Config.Digest == "" {
		return // it is of an older kind, which those that read it do not load
	}
	l := bundle.Loadable{Config: manifest.Config.Digest}
	if image.Tag != "" {
		l.Names = []string{image.Name()}
	}
	for _, layer := range manifest.Layers { // one may stand there twice, as in the config
		l.Layers = append(l.Layers, layer.Digest)
	}
	p.loadable = append(p.loadable, l)
}

// platform returns the manifest of the platform that is loaded, which is that of
// the image itself if it is no index; false if there is none.
func (p *planning) platform(repo Repository, image *bundle.Image, rec metadata.Manifest) (Digest, bool) {
	if retention.IsPlatform(rec) {
		return image.Manifest.Digest, true
	}
	first := image.Manifest.Digest
	found := false
	for _, child := range rec.Children {
		of, ok := p.t.opts.Ledger.Manifest(repo, child.Digest)
		if _, attests := referrers.AttestedBy(child); attests || !ok || !retention.IsPlatform(of) || slices.Contains(image.LeftOut, child.Digest) {
			continue
		}
		if isCommon := child.Platform != nil && child.Platform.OS == "linux" && child.Platform.Architecture == "amd64"; isCommon || !found {
			first = child.Digest
			if found = true; isCommon {
				break
			}
		}
	}
	return first, found
}
