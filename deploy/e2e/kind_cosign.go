package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// cosigner is a way of signing with cosign: what each command is told besides
// the key and the image.
type cosigner struct {
	tool             string
	env              []string
	sign, attest     []string
	verify, verified []string // of a signature, of an attestation
	sbom             bool     // attaches one as well, by its tag
}

var (
	tags    = cosigner{tool: "cosign2", sbom: true}
	oci11   = cosigner{tool: "cosign2", env: []string{"COSIGN_EXPERIMENTAL=1"}, sign: []string{"--registry-referrers-mode=oci-1-1"}, verify: []string{"--experimental-oci11"}}
	bundles = cosigner{
		tool: "cosign2", sign: []string{"--new-bundle-format"}, attest: []string{"--new-bundle-format"},
		verify: []string{"--new-bundle-format", "--trusted-root=root.json"}, verified: []string{"--new-bundle-format", "--trusted-root=root.json"},
	}
	third = cosigner{tool: "cosign3", sign: []string{"--use-signing-config=false"}, attest: []string{"--use-signing-config=false"}}
)

var cosignKinds = []kind{
	{name: "cosign's tags", client: "cosign 2", tool: "cosign2", push: tags.push, take: tags.take, hangs: true},
	{name: "cosign's signatures as referrers", client: "cosign 2", tool: "cosign2", push: oci11.push, take: oci11.take, hangs: true},
	{name: "Sigstore bundles of cosign 2", client: "cosign 2", tool: "cosign2", push: bundles.push, take: bundles.take, hangs: true},
	{name: "Sigstore bundles of cosign 3", client: "cosign 3", tool: "cosign3", push: third.push, take: third.take, hangs: true},
}

func (s cosigner) cosign(e *errand, words []string, more ...string) (string, error) {
	here := *e
	here.env = slices.Concat(e.env, s.env, []string{"COSIGN_PASSWORD=entrepot", "COSIGN_YES=true"})
	return here.run(s.tool, "cosign", slices.Concat(words, more)...)
}

// anyRegistry lets cosign speak plain HTTP to a loopback address.
var anyRegistry = []string{"--allow-http-registry", "--allow-insecure-registry"}

// push signs an image with a key made here, attests where it was made, and
// attaches an SBOM.
func (s cosigner) push(e *errand) error {
	image, err := e.pushImage("signed", "1", "signed")
	if err != nil {
		return err
	}
	if _, err := s.cosign(e, []string{"generate-key-pair"}); err != nil {
		return err
	}
	// A key needs no root, but cosign 2 asks for one before it looks.
	if _, err := e.write("root.json", `{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`); err != nil {
		return err
	}
	if _, err := e.write("provenance.json", `{"builder": {"id": "entrepot/e2e"}}`); err != nil {
		return err
	}
	key := slices.Concat([]string{"--key", "cosign.key", "--tlog-upload=false"}, anyRegistry)
	if _, err := s.cosign(e, []string{"sign"}, slices.Concat(key, s.sign, []string{e.ref("signed@" + image)})...); err != nil {
		return err
	}
	attest := slices.Concat(key, []string{"--type", "custom", "--predicate", "provenance.json"}, s.attest, []string{e.ref("signed@" + image)})
	if _, err := s.cosign(e, []string{"attest"}, attest...); err != nil || !s.sbom {
		return err
	}
	if _, err := e.write("sbom.spdx", "SPDXVersion: SPDX-2.3\n"); err != nil {
		return err
	}
	_, err = s.cosign(e, []string{"attach", "sbom"}, append(slices.Clone(anyRegistry), "--sbom", "sbom.spdx", e.ref("signed@"+image))...)
	return err
}

// take verifies all of that with the public key.
func (s cosigner) take(e *errand) error {
	key := slices.Concat([]string{"--key", "cosign.pub", "--insecure-ignore-tlog"}, anyRegistry)
	out, err := s.cosign(e, []string{"verify"}, slices.Concat(key, s.verify, []string{e.ref("signed:1")})...)
	if err == nil && !strings.Contains(out, e.digest("signed")) {
		err = fmt.Errorf("what is verified is not %s but %s", e.digest("signed"), out)
	}
	if err != nil {
		return err
	}
	attestation := slices.Concat(key, []string{"--type", "custom"}, s.verified, []string{e.ref("signed:1")})
	if _, err := s.cosign(e, []string{"verify-attestation"}, attestation...); err != nil || !s.sbom {
		return err
	}
	out, err = s.cosign(e, []string{"download", "sbom"}, append(slices.Clone(anyRegistry), e.ref("signed:1"))...)
	if err == nil && !strings.Contains(out, "SPDX-2.3") {
		err = fmt.Errorf("the SBOM is %q", out)
	}
	return err
}
