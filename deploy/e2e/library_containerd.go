package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes"
	dockerremote "github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdPuller resolves and fetches as containerd does, with a hosts.toml
// that names the mirror.
type containerdPuller struct {
	resolver remotes.Resolver
	name     string
	client   *http.Client
}

func openContainerd(at place) (puller, error) {
	p := &containerdPuller{client: &http.Client{Transport: newTransport()}}
	host := dockerremote.RegistryHost{
		Client: p.client, Host: at.host, Scheme: "http", Path: "/v2",
		Capabilities: dockerremote.HostCapabilityPull | dockerremote.HostCapabilityResolve | dockerremote.HostCapabilityReferrers,
		Authorizer: dockerremote.NewDockerAuthorizer(dockerremote.WithAuthClient(p.client), dockerremote.WithAuthCreds(func(string) (string, string, error) {
			return at.username, at.password, nil
		})),
	}
	p.resolver = dockerremote.NewResolver(dockerremote.ResolverOptions{
		Hosts: func(string) ([]dockerremote.RegistryHost, error) { return []dockerremote.RegistryHost{host}, nil },
	})
	p.name = at.host + "/" + at.repository
	if at.upstream != "" {
		p.name = at.upstream + "/" + at.repository
	}
	return p, nil
}

func (p *containerdPuller) Head(ctx context.Context, tag string) (digest.Digest, error) {
	_, d, err := p.resolver.Resolve(ctx, p.name+":"+tag)
	return d.Digest, err
}

func (p *containerdPuller) Tagged(ctx context.Context, tag string) (manifestContent, error) {
	_, d, err := p.resolver.Resolve(ctx, p.name+":"+tag)
	if err != nil {
		return manifestContent{}, err
	}
	return p.Manifest(ctx, d)
}

func (p *containerdPuller) Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error) {
	body, err := p.Blob(ctx, d)
	if err == nil && d.Digest.Algorithm().FromBytes(body) != d.Digest {
		err = fmt.Errorf("unexpected commit digest, expected %s", d.Digest) // its content store
	}
	return manifestContent{d.MediaType, body}, err
}

func (p *containerdPuller) HeadBlob(context.Context, ocispec.Descriptor) error { return errNoCall }

func (p *containerdPuller) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	fetcher, err := p.resolver.Fetcher(ctx, p.name+"@"+d.Digest.String())
	if err != nil {
		return nil, err
	}
	body, err := fetcher.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	all, err := io.ReadAll(body)
	if err == nil && d.Size > 0 && d.Size != int64(len(all)) {
		err = fmt.Errorf("failed size validation: %d != %d", len(all), d.Size) // its content store
	}
	return all, err
}

func (p *containerdPuller) Tags(context.Context, int) ([]string, error) { return nil, errNoCall }

func (p *containerdPuller) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error) {
	fetcher, err := p.resolver.Fetcher(ctx, p.name+"@"+subject.Digest.String())
	if err != nil {
		return nil, err
	}
	var opts []remotes.FetchReferrersOpt
	if artifactType != "" {
		opts = append(opts, remotes.WithReferrerArtifactTypes(artifactType))
	}
	return fetcher.(remotes.ReferrersFetcher).FetchReferrers(ctx, subject.Digest, opts...)
}

func (p *containerdPuller) Close() { p.client.CloseIdleConnections() }
