package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These have no setting for mirrors, and keep nothing from one question to the
// next: two nodes are as one.

func readyCosign(t *testing.T, s *suite, m *mirror, key *referringKey, _ []*inquiry) question {
	t.Helper()
	dir := s.folder(t)
	public := filepath.Join(dir, "cosign.pub")
	if err := os.WriteFile(public, key.public(t), 0o644); err != nil {
		t.Fatal(err)
	}
	program := s.tool(t, "cosign3").program("cosign")
	args := append([]string{"verify", "--key", public, "--insecure-ignore-tlog"}, anyRegistry...)
	return func(ctx context.Context, _ int, a *inquiry) (verdict, error) {
		_, stderr, err := try(ctx, dir, environment(dir), program, append(args, a.byPrefix(m))...)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return toldSome, nil
		case errors.As(err, &exit) && exit.ExitCode() == 10 && strings.Contains(stderr, "no signatures found"):
			return toldNone, nil
		}
		return untold, fmt.Errorf("%w: %s", err, stderr)
	}
}

func readyOras(t *testing.T, s *suite, m *mirror, _ *referringKey, _ []*inquiry) question {
	t.Helper()
	dir := s.folder(t)
	program := s.tool(t, "oras").program("oras")
	return func(ctx context.Context, _ int, a *inquiry) (verdict, error) {
		stdout, stderr, err := try(ctx, dir, environment(dir), program, "discover", "--plain-http", "--format", "json", "--depth", "1", a.byPrefix(m))
		if err != nil {
			return untold, fmt.Errorf("%w: %s", err, stderr)
		}
		var found struct{ Referrers []struct{ Digest string } }
		err = json.Unmarshal([]byte(stdout), &found)
		return a.holds(err, found.Referrers)
	}
}

func readyRegctl(t *testing.T, s *suite, m *mirror, _ *referringKey, _ []*inquiry) question {
	t.Helper()
	dir := s.folder(t)
	program := s.tool(t, "regctl").program("regctl")
	return func(ctx context.Context, _ int, a *inquiry) (verdict, error) {
		at := a.host()
		if a.way != straight {
			at = m.address
		}
		stdout, stderr, err := try(ctx, dir, environment(dir), program, "artifact", "list", "--format", "{{json .}}", "--host", "reg="+at+",tls=disabled", a.byPrefix(m))
		if err != nil {
			return untold, fmt.Errorf("%w: %s", err, stderr)
		}
		var found struct {
			Descriptors []struct{ Digest string } `json:"descriptors"`
		}
		err = json.Unmarshal([]byte(stdout), &found)
		return a.holds(err, found.Descriptors)
	}
}

// holds is the verdict on a list of what refers to the image, which can be
// nothing but its signature.
func (a *inquiry) holds(err error, found []struct{ Digest string }) (verdict, error) {
	image := a.registry.subjects[0].Digest
	switch {
	case err != nil:
		return untold, err
	case len(found) == 0:
		return toldNone, nil
	case len(found) > 1 || found[0].Digest != a.registry.signatures[image].Digest.String():
		return untold, fmt.Errorf("the list is %v", found)
	}
	return toldSome, nil
}
