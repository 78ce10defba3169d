package e2e

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"github.com/regclient/regclient/scheme"
	"github.com/regclient/regclient/scheme/reg"
	"github.com/regclient/regclient/types/descriptor"
	"github.com/regclient/regclient/types/ref"
)

// regclientPuller does what regctl and regsync do.
type regclientPuller struct {
	client    *regclient.RegClient
	repo      ref.Ref
	transport *http.Transport
}

func openRegclient(at place) (puller, error) {
	repo, err := ref.New(at.host + "/" + at.path())
	if err != nil {
		return nil, err
	}
	host := config.HostNewName(at.host)
	host.TLS = config.TLSDisabled
	host.User, host.Pass = at.username, at.password
	p := &regclientPuller{repo: repo, transport: newTransport()}
	p.client = regclient.New(
		regclient.WithConfigHost(*host),
		regclient.WithRegOpts(reg.WithTransport(p.transport), reg.WithDelay(50*time.Millisecond, time.Second)),
	)
	return p, nil
}

func (p *regclientPuller) Head(ctx context.Context, tag string) (digest.Digest, error) {
	m, err := p.client.ManifestHead(ctx, p.repo.SetTag(tag), regclient.WithManifestRequireDigest())
	if err != nil {
		return "", err
	}
	return m.GetDescriptor().Digest, nil
}

func (p *regclientPuller) Tagged(ctx context.Context, tag string) (manifestContent, error) {
	return p.get(ctx, p.repo.SetTag(tag))
}

func (p *regclientPuller) Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error) {
	return p.get(ctx, p.repo.SetDigest(d.Digest.String()), regclient.WithManifestDesc(descriptorOf(d)))
}

func (p *regclientPuller) get(ctx context.Context, at ref.Ref, opts ...regclient.ManifestOpts) (manifestContent, error) {
	m, err := p.client.ManifestGet(ctx, at, opts...)
	if err != nil {
		return manifestContent{}, err
	}
	body, err := m.RawBody()
	return manifestContent{m.GetDescriptor().MediaType, body}, err
}

func (p *regclientPuller) HeadBlob(ctx context.Context, d ocispec.Descriptor) error {
	b, err := p.client.BlobHead(ctx, p.repo, descriptorOf(d))
	if err == nil {
		err = b.Close()
	}
	return err
}

func (p *regclientPuller) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	b, err := p.client.BlobGet(ctx, p.repo, descriptorOf(d))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

func (p *regclientPuller) Tags(ctx context.Context, n int) ([]string, error) {
	var opts []scheme.TagOpts
	if n > 0 {
		opts = append(opts, scheme.WithTagLimit(n))
	}
	list, err := p.client.TagList(ctx, p.repo, opts...)
	if err != nil {
		return nil, err
	}
	return list.GetTags()
}

func (p *regclientPuller) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	var opts []scheme.ReferrerOpts
	if artifactType != "" {
		opts = append(opts, scheme.WithReferrerMatchOpt(descriptor.MatchOpt{ArtifactType: artifactType}))
	}
	list, err := p.client.ReferrerList(ctx, p.repo.SetDigest(subject.Digest.String()), opts...)
	if err != nil {
		return nil, err
	}
	var all []ocispec.Descriptor
	for _, d := range list.Descriptors {
		all = append(all, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
	}
	return all, nil
}

func descriptorOf(d ocispec.Descriptor) descriptor.Descriptor {
	return descriptor.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs}
}

func (p *regclientPuller) Close() {
	_ = p.client.Close(context.Background(), p.repo) // It only forgets what it knew.
	p.transport.CloseIdleConnections()
}
