package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
)

// looker is a client that attaches something to an image, and looks for it.
type looker struct {
	name, tool string
	repository string
	attach     func(*errand) error
	// look says what it finds at an image, by its own word. An error comes with
	// what is untold, and says why.
	look func(context.Context, *errand) (verdict, error)
	// blind says that its word for none is also its word for "could not ask"
	// (F24).
	blind bool
}

var lookers = []*looker{
	{name: "cosign verify", tool: "cosign3", repository: "signed", attach: cosignSign, look: cosignLook, blind: true},
	{name: "notation-go", tool: "github.com/notaryproject/notation-go", repository: "notarised", attach: notationSign, look: notationLook},
	{name: "oras discover", tool: "oras", repository: "reported", attach: orasAttach, look: orasLook},
	{name: "regctl artifact list", tool: "regctl", repository: "tree", attach: regctlAttach, look: regctlLook},
}

func cosignSign(e *errand) error {
	image, err := e.pushImage("signed", "1", "signed")
	if err != nil {
		return err
	}
	if _, err := third.cosign(e, []string{"generate-key-pair"}); err != nil {
		return err
	}
	key := slices.Concat([]string{"--key", "cosign.key", "--tlog-upload=false"}, anyRegistry, third.sign)
	_, err = third.cosign(e, []string{"sign"}, append(key, e.ref("signed@"+image))...)
	return err
}

func cosignLook(ctx context.Context, e *errand) (verdict, error) {
	args := slices.Concat([]string{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog"}, anyRegistry, []string{e.ref("signed:1")})
	_, stderr, err := try(ctx, e.dir, e.env, e.suite.tool(e.t, "cosign3").program("cosign"), args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return toldSome, nil
	case errors.As(err, &exit) && exit.ExitCode() == 10 && strings.Contains(stderr, "no signatures found"):
		return toldNone, nil
	}
	return untold, fmt.Errorf("%w: %s", err, stderr)
}

func notationLook(ctx context.Context, e *errand) (verdict, error) {
	policy := &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name: "e2e", RegistryScopes: []string{"*"}, TrustStores: []string{"ca:e2e"}, TrustedIdentities: []string{"*"},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
	}}}
	verifies, err := verifier.New(policy, truststore.NewX509TrustStore(dir.NewSysFS(e.dir)), nil)
	if err != nil {
		return untold, err
	}
	repo, err := e.repository("notarised")
	if err != nil {
		return untold, err
	}
	found, _, err := notation.Verify(ctx, verifies, repo, notation.VerifyOptions{
		ArtifactReference: e.ref("notarised@" + e.digest("notarised")), MaxSignatureAttempts: 5,
	})
	switch {
	case err != nil && strings.Contains(err.Error(), "no signature is associated"):
		return toldNone, nil
	case err == nil && found.Digest.String() != e.digest("notarised"):
		return untold, fmt.Errorf("what is verified is %s, not %s", found.Digest, e.digest("notarised"))
	case err != nil:
		return untold, err
	}
	return toldSome, nil
}

func orasAttach(e *errand) error {
	image, err := e.pushImage("reported", "1", "reported")
	if err != nil {
		return err
	}
	e.notes["report"], err = e.attach(image, reportType, "report.json")
	return err
}

func orasLook(ctx context.Context, e *errand) (verdict, error) {
	stdout, stderr, err := try(ctx, e.dir, e.env, e.suite.tool(e.t, "oras").program("oras"),
		"discover", "--plain-http", "--format", "json", "--depth", "1", "--artifact-type", reportType, e.ref("reported:1"))
	if err != nil {
		return untold, fmt.Errorf("%w: %s", err, stderr)
	}
	var found struct{ Referrers []struct{ Digest string } }
	err = json.Unmarshal([]byte(stdout), &found)
	return onlyOne(err, found.Referrers, e.notes["report"])
}

func regctlAttach(e *errand) error {
	image, err := e.pushImage("tree", "1", "a tree")
	if err != nil {
		return err
	}
	e.notes["sbom"], err = e.hang(image, "application/spdx+json", "sbom.json")
	return err
}

func regctlLook(ctx context.Context, e *errand) (verdict, error) {
	stdout, stderr, err := try(ctx, e.dir, e.env, e.suite.tool(e.t, "regctl").program("regctl"),
		"artifact", "list", "--format", "{{json .}}", "--filter-artifact-type", "application/spdx+json", "--host", "reg="+e.host+",tls=disabled", e.ref("tree:1"))
	if err != nil {
		return untold, fmt.Errorf("%w: %s", err, stderr)
	}
	var found struct {
		Descriptors []struct{ Digest string } `json:"descriptors"`
	}
	err = json.Unmarshal([]byte(stdout), &found)
	return onlyOne(err, found.Descriptors, e.notes["sbom"])
}

// onlyOne is the verdict on a list that can hold nothing but one digest.
func onlyOne(err error, found []struct{ Digest string }, want string) (verdict, error) {
	switch {
	case err != nil:
		return untold, err
	case len(found) == 0:
		return toldNone, nil
	case len(found) > 1 || found[0].Digest != want:
		return untold, fmt.Errorf("the list is %v", found)
	}
	return toldSome, nil
}
