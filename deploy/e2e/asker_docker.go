package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// readyMoby starts two nodes with Docker. Its files say for each registry where
// it is and whether the mirror stands before it.
func readyMoby(t *testing.T, s *suite, m *mirror, _ *referringKey, all []*inquiry) question {
	t.Helper()
	nodes := []*moby{{dir: s.inMemory(t)}, {dir: s.inMemory(t)}}
	for _, d := range nodes {
		for _, a := range all {
			if err := writeHosts(d.hostsDir(), m, a); err != nil {
				t.Fatal(err)
			}
		}
		// A question that nobody answers takes one of the daemon's three places
		// for downloads.
		d.start(t, s, map[string]any{"max-concurrent-downloads": 1000})
	}
	return func(ctx context.Context, node int, a *inquiry) (verdict, error) {
		d := nodes[node]
		if err := d.tryPull(ctx, a.upstream+"/"+referringRepo, "1"); err != nil {
			return untold, err
		}
		_, err := os.Stat(filepath.Join(d.blobs(), a.registry.signatures[a.registry.attestation.Digest].Digest.Encoded()))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return toldNone, nil
		case err != nil:
			return untold, err
		}
		return toldSome, nil
	}
}

func writeHosts(folder string, m *mirror, a *inquiry) error {
	content := fmt.Sprintf("server = %q\n", a.registry.URL())
	through := fmt.Sprintf("server = %q\n", "http://"+m.address)
	switch a.way {
	case alone:
		content = through
	case beside:
		content += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n", "http://"+m.address)
	}
	path := filepath.Join(folder, a.upstream)
	return errors.Join(os.MkdirAll(path, 0o755), os.WriteFile(filepath.Join(path, "hosts.toml"), []byte(content), 0o644))
}
