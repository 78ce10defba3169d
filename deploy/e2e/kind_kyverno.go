package e2e

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Kyverno's command line takes as long to build as all smaller clients together.
// What it asks go-containerregistry for is asked for here in its order; the rest
// of it reads YAML.
var kyvernoKinds = []kind{
	{name: "Kyverno's policies", client: "go-containerregistry, as Kyverno calls it", tool: ggcr, push: pushPolicies, take: takePolicies},
}

const (
	policyType       = types.MediaType("application/vnd.cncf.kyverno.policy.layer.v1+yaml")
	policyConfigType = types.MediaType("application/vnd.cncf.kyverno.config.v1+json")
)

func policy(name string) string {
	return `apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: ` + name + `
spec:
  rules:
    - name: ` + name + `
      match: {any: [{resources: {kinds: [Pod]}}]}
      validate:
        failureAction: Audit
        message: "` + strings.Repeat("of "+name+" ", 500) + `"
        pattern: {metadata: {name: "?*"}}
`
}

// policies are by their names.
var policies = map[string]string{"require-labels": policy("require-labels"), "require-names": policy("require-names")}

// pushPolicies is "kyverno oci push": a layer for each policy, uncompressed, and
// a config of a type of its own.
func pushPolicies(e *errand) error {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), policyConfigType)
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer([]byte(policies[name]), policyType),
			Annotations: map[string]string{
				"io.kyverno.image.kind": "ClusterPolicy", "io.kyverno.image.name": name, "io.kyverno.image.apiVersion": "kyverno.io/v1",
			},
		})
		if err != nil {
			return err
		}
	}
	_, err := e.pushAs("policies", "1", img)
	return err
}

// takePolicies is "kyverno oci pull".
func takePolicies(e *errand) error {
	ref, err := name.ParseReference(e.ref("policies:1"))
	if err != nil {
		return err
	}
	found, err := remote.Get(ref, remote.WithContext(e.context()))
	if err != nil {
		return err
	}
	img, err := found.Image()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var got []string
	for _, layer := range layers {
		mediaType, err := layer.MediaType()
		if err != nil {
			return err
		}
		if mediaType != policyType {
			return fmt.Errorf("a layer is of the type %s, want %s", mediaType, policyType)
		}
		content, err := read(layer)
		if err != nil {
			return err
		}
		got = append(got, content)
	}
	want := slices.Sorted(maps.Values(policies))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the policies are\n%q, want\n%q", got, want)
	}
	return nil
}

// read reads a layer as it is kept.
func read(layer v1.Layer) (string, error) {
	body, err := layer.Compressed()
	if err != nil {
		return "", err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	return string(content), err
}
