package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	buildkitd "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// readyBuildKit starts two nodes with BuildKit. Its file says which registries
// the mirror stands before; it knows each by its host.
func readyBuildKit(t *testing.T, s *suite, m *mirror, _ *referringKey, all []*inquiry) question {
	t.Helper()
	var config strings.Builder
	for _, a := range all {
		if a.way != straight {
			fmt.Fprintf(&config, "[registry.%q]\n  http = true\n  mirrors = [%q]\n", buildkitHost(a), m.address+"/"+a.upstream)
		}
	}
	file := filepath.Join(s.folder(t), "buildkitd.toml")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	nodes := []gateway.Client{frontend(t, s.startBuildKit(t, file)), frontend(t, s.startBuildKit(t, file))}
	return func(ctx context.Context, node int, a *inquiry) (verdict, error) {
		source := &pb.SourceOp{Identifier: "docker-image://" + buildkitHost(a) + "/" + referringRepo + ":1"}
		found, err := nodes[node].ResolveSourceMetadata(ctx, source, sourceresolver.Opt{
			ImageOpt: &sourceresolver.ResolveImageOpt{NoConfig: true, AttestationChain: true},
		})
		if err != nil {
			return untold, err
		}
		chain := found.Image.AttestationChain
		switch {
		case chain == nil || chain.AttestationManifest != a.registry.attestation.Digest:
			return untold, fmt.Errorf("the chain is %+v", chain)
		case len(chain.SignatureManifests) == 0:
			return toldNone, nil
		case chain.SignatureManifests[0] != a.registry.signatures[a.registry.attestation.Digest].Digest:
			return untold, fmt.Errorf("the signatures are %v", chain.SignatureManifests)
		}
		return toldSome, nil
	}
}

// buildkitHost is the registry's own. It can always be asked where a mirror
// can't, so that alone means a host that refuses.
func buildkitHost(a *inquiry) string {
	if a.way != alone {
		return a.host()
	}
	_, port, _ := strings.Cut(a.host(), ":")
	return "127.9.9.9:" + port
}

// frontend begins a build that lasts as long as the test, and does nothing but
// what a frontend asks of BuildKit.
func frontend(t *testing.T, b *buildkit) gateway.Client {
	t.Helper()
	c, err := buildkitd.New(t.Context(), b.address())
	if err != nil {
		t.Fatal(err)
	}
	begun, end, ended := make(chan gateway.Client), make(chan struct{}), make(chan error, 1)
	ctx := context.WithoutCancel(t.Context()) // Its end is a success, before the test's.
	go func() {
		_, err := c.Build(ctx, buildkitd.SolveOpt{}, "", func(_ context.Context, f gateway.Client) (*gateway.Result, error) {
			begun <- f
			<-end
			return gateway.NewResult(), nil
		}, nil)
		ended <- errors.Join(err, c.Close())
	}()
	select {
	case f := <-begun:
		t.Cleanup(func() {
			close(end)
			if err := <-ended; err != nil {
				t.Errorf("the build: %v", err)
			}
		})
		return f
	case err := <-ended:
		t.Fatalf("the build ends before it begins: %v", err)
		return nil
	}
}
