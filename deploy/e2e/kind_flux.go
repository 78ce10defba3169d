package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fluxcd/pkg/oci"
	"github.com/google/go-containerregistry/pkg/crane"
)

var fluxKinds = []kind{
	{name: "Flux's artifacts", client: "Flux's library", tool: "github.com/fluxcd/pkg/oci", push: pushFlux, take: takeFlux},
}

// manifests are what Flux would apply to a cluster.
var manifests = map[string]string{
	"deploy/kustomization.yaml": "resources: [app.yaml]\n",
	"deploy/app.yaml":           "kind: ConfigMap\n" + strings.Repeat("# a line that a cluster never sees\n", 5000),
}

func pushFlux(e *errand) error {
	for file, content := range manifests {
		if _, err := e.write(filepath.Join("manifests", file), content); err != nil {
			return err
		}
	}
	client := oci.NewClient(oci.DefaultOptions())
	pushed, err := client.Push(e.context(), e.ref("flux/manifests:1"), filepath.Join(e.dir, "manifests"), oci.WithPushMetadata(oci.Metadata{
		Source: "https://example.org/manifests", Revision: "main@sha1:0f98d91a",
	}))
	_, e.notes["digest"], _ = strings.Cut(pushed, "@")
	return err
}

// takeFlux asks for the tag's digest and pulls by it, as Flux's controller does.
func takeFlux(e *errand) error {
	digest, err := crane.Digest(e.ref("flux/manifests:1"), crane.WithContext(e.context()))
	if err != nil {
		return err
	}
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	client := oci.NewClient(oci.DefaultOptions())
	meta, err := client.Pull(e.context(), e.ref("flux/manifests@"+digest), into)
	if err != nil {
		return err
	}
	if digest != e.notes["digest"] || meta.Revision != "main@sha1:0f98d91a" {
		err = fmt.Errorf("what is pulled is %s, %+v, want %s", digest, meta, e.notes["digest"])
	}
	for file, content := range manifests {
		err = errors.Join(err, same(filepath.Join(into, file), content))
	}
	return err
}
