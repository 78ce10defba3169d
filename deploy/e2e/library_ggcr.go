package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ggcrPuller does what crane and those that are made of it do.
type ggcrPuller struct {
	repo      name.Repository
	auth      authn.Authenticator
	transport *http.Transport
}

func openGGCR(at place) (puller, error) {
	repo, err := name.NewRepository(at.host+"/"+at.path(), name.Insecure)
	if err != nil {
		return nil, err
	}
	p := &ggcrPuller{repo: repo, auth: authn.Anonymous, transport: newTransport()}
	if at.username != "" {
		p.auth = &authn.Basic{Username: at.username, Password: at.password}
	}
	return p, nil
}

func (p *ggcrPuller) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(p.auth), remote.WithTransport(p.transport),
		remote.WithRetryBackoff(remote.Backoff{Duration: 100 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	}
}

func (p *ggcrPuller) Head(ctx context.Context, tag string) (digest.Digest, error) {
	d, err := remote.Head(p.repo.Tag(tag), p.options(ctx)...)
	if err != nil {
		return "", err
	}
	return digest.Digest(d.Digest.String()), nil
}

func (p *ggcrPuller) Tagged(ctx context.Context, tag string) (manifestContent, error) {
	return p.get(ctx, p.repo.Tag(tag))
}

func (p *ggcrPuller) Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error) {
	return p.get(ctx, p.repo.Digest(d.Digest.String()))
}

func (p *ggcrPuller) get(ctx context.Context, ref name.Reference) (manifestContent, error) {
	d, err := remote.Get(ref, p.options(ctx)...)
	if err != nil {
		return manifestContent{}, err
	}
	return manifestContent{string(d.MediaType), d.Manifest}, nil
}

func (p *ggcrPuller) HeadBlob(ctx context.Context, d ocispec.Descriptor) error {
	layer, err := remote.Layer(p.repo.Digest(d.Digest.String()), p.options(ctx)...)
	if err == nil {
		_, err = layer.Size()
	}
	return err
}

func (p *ggcrPuller) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	layer, err := remote.Layer(p.repo.Digest(d.Digest.String()), p.options(ctx)...)
	if err != nil {
		return nil, err
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (p *ggcrPuller) Tags(ctx context.Context, n int) ([]string, error) {
	options := p.options(ctx)
	if n > 0 {
		options = append(options, remote.WithPageSize(n))
	}
	return remote.List(p.repo, options...)
}

func (p *ggcrPuller) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	options := p.options(ctx)
	if artifactType != "" {
		options = append(options, remote.WithFilter("artifactType", artifactType))
	}
	found, err := remote.Referrers(p.repo.Digest(subject.Digest.String()), options...)
	if err != nil {
		return nil, err
	}
	raw, err := found.RawManifest()
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	return index.Manifests, nil
}

func (p *ggcrPuller) Close() { p.transport.CloseIdleConnections() }
