package e2e

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/oci"
)

// gator itself is not built: "gator test --image" is this one call, and what
// follows it asks no registry.
var gatorKinds = []kind{
	{name: "Gatekeeper's policies", client: "gator's library", tool: "github.com/open-policy-agent/gatekeeper/v3", push: pushConstraint, take: pullConstraint},
}

// constraints are the files of a policy.
var constraints = map[string]string{
	"template.yaml": `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: mustbeowned}
spec:
  crd: {spec: {names: {kind: MustBeOwned}}}
  targets:
    - target: admission.k8s.gatekeeper.sh
      rego: |
        package mustbeowned
        violation[{"msg": msg}] {
          not input.review.object.metadata.labels.owner
          msg := "this has no owner` + strings.Repeat(", and nobody to ask", 500) + `"
        }
`,
	"constraint.yaml": `apiVersion: constraints.gatekeeper.sh/v1beta1
kind: MustBeOwned
metadata: {name: everything-is-owned}
spec: {match: {kinds: [{apiGroups: [""], kinds: [ConfigMap]}]}}
`,
}

// pushConstraint pushes what gator reads. It has no push of its own.
func pushConstraint(e *errand) error {
	for file, content := range constraints {
		if _, err := e.write(file, content); err != nil {
			return err
		}
	}
	_, err := e.run("oras", "oras", "push", "--plain-http", e.ref("gatekeeper/owners:1"), "template.yaml:application/yaml", "constraint.yaml:application/yaml")
	return err
}

func pullConstraint(e *errand) error {
	into, clean, err := oci.PullImage(e.ref("gatekeeper/owners:1"), e.dir)
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return err
	}
	for file, content := range constraints {
		err = errors.Join(err, same(filepath.Join(into, file), content))
	}
	return err
}
