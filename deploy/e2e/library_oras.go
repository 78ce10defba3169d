package e2e

import (
	"context"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// orasPuller does what oras, notation and falcoctl do.
type orasPuller struct {
	repo      *remote.Repository
	transport *http.Transport
}

func openOras(at place) (puller, error) {
	repo, err := remote.NewRepository(at.host + "/" + at.path())
	if err != nil {
		return nil, err
	}
	p := &orasPuller{repo: repo, transport: newTransport()}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{
		Client: &http.Client{Transport: retry.NewTransport(p.transport)},
		Cache:  auth.NewCache(),
		Credential: func(context.Context, string) (auth.Credential, error) {
			return auth.Credential{Username: at.username, Password: at.password}, nil
		},
	}
	return p, nil
}

func (p *orasPuller) Head(ctx context.Context, tag string) (digest.Digest, error) {
	d, err := p.repo.Resolve(ctx, tag)
	return d.Digest, err
}

func (p *orasPuller) Tagged(ctx context.Context, tag string) (manifestContent, error) {
	d, err := p.repo.Resolve(ctx, tag)
	if err != nil {
		return manifestContent{}, err
	}
	return p.Manifest(ctx, d)
}

func (p *orasPuller) Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error) {
	body, err := p.repo.Manifests().Fetch(ctx, d)
	if err != nil {
		return manifestContent{}, err
	}
	defer body.Close()
	all, err := io.ReadAll(body)
	return manifestContent{d.MediaType, all}, err
}

func (p *orasPuller) HeadBlob(ctx context.Context, d ocispec.Descriptor) error {
	_, err := p.repo.Blobs().Resolve(ctx, d.Digest.String())
	return err
}

func (p *orasPuller) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	body, err := p.repo.Blobs().Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (p *orasPuller) Tags(ctx context.Context, n int) ([]string, error) {
	p.repo.TagListPageSize = n
	var all []string
	err := p.repo.Tags(ctx, "", func(tags []string) error {
		all = append(all, tags...)
		return nil
	})
	return all, err
}

func (p *orasPuller) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	err := p.repo.Referrers(ctx, subject, artifactType, func(referrers []ocispec.Descriptor) error {
		all = append(all, referrers...)
		return nil
	})
	return all, err
}

func (p *orasPuller) Close() { p.transport.CloseIdleConnections() }
