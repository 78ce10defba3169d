package e2e

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	dockerimage "go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"
)

// containersImagePuller does what skopeo, podman and CRI-O do.
type containersImagePuller struct {
	sys    *types.SystemContext
	repo   string
	source types.ImageSource // of the tag that was pulled, as skopeo keeps it for the blobs
}

func openContainersImage(at place) (puller, error) {
	// Nothing of the machine's configuration counts.
	empty := filepath.Join(at.scratch, "registries.conf")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return nil, err
	}
	return &containersImagePuller{repo: "//" + at.host + "/" + at.path(), sys: &types.SystemContext{
		SystemRegistriesConfPath:    empty,
		SystemRegistriesConfDirPath: filepath.Join(at.scratch, "registries.conf.d"),
		UserShortNameAliasConfPath:  filepath.Join(at.scratch, "aliases.conf"),
		RegistriesDirPath:           filepath.Join(at.scratch, "registries.d"),
		DockerPerHostCertDirPath:    filepath.Join(at.scratch, "certs.d"),
		AuthFilePath:                filepath.Join(at.scratch, "auth.json"),
		BigFilesTemporaryDir:        at.scratch,
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
		DockerAuthConfig:            &types.DockerAuthConfig{Username: at.username, Password: at.password},
	}}, nil
}

func (p *containersImagePuller) reference(tag string) (types.ImageReference, error) {
	return dockerimage.ParseReference(p.repo + ":" + tag)
}

func (p *containersImagePuller) Head(ctx context.Context, tag string) (digest.Digest, error) {
	ref, err := p.reference(tag)
	if err != nil {
		return "", err
	}
	return dockerimage.GetDigest(ctx, p.sys, ref)
}

func (p *containersImagePuller) Tagged(ctx context.Context, tag string) (manifestContent, error) {
	p.Close()
	ref, err := p.reference(tag)
	if err != nil {
		return manifestContent{}, err
	}
	if p.source, err = ref.NewImageSource(ctx, p.sys); err != nil {
		p.source = nil
		return manifestContent{}, err
	}
	body, mediaType, err := p.source.GetManifest(ctx, nil)
	return manifestContent{mediaType, body}, err
}

func (p *containersImagePuller) Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error) {
	if p.source == nil {
		return manifestContent{}, errNoCall // Without a tag it has no source.
	}
	body, mediaType, err := p.source.GetManifest(ctx, &d.Digest)
	return manifestContent{mediaType, body}, err
}

func (p *containersImagePuller) HeadBlob(context.Context, ocispec.Descriptor) error { return errNoCall }

func (p *containersImagePuller) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if p.source == nil {
		return nil, errNoCall
	}
	body, _, err := p.source.GetBlob(ctx, types.BlobInfo{Digest: d.Digest, Size: d.Size, URLs: d.URLs, MediaType: d.MediaType}, none.NoCache)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (p *containersImagePuller) Tags(ctx context.Context, _ int) ([]string, error) {
	ref, err := p.reference("any")
	if err != nil {
		return nil, err
	}
	return dockerimage.GetRepositoryTags(ctx, p.sys, ref)
}

func (p *containersImagePuller) Referrers(context.Context, ocispec.Descriptor, string) ([]ocispec.Descriptor, error) {
	return nil, errNoCall
}

func (p *containersImagePuller) Close() {
	if p.source != nil {
		_ = p.source.Close() // Its connections only.
		p.source = nil
	}
}
