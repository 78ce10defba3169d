package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
)

var gatorKinds = []kind{
	{name: "Gatekeeper's policies", client: "gator", tool: "gator", push: pushConstraint, take: testConstraint},
}

// verdict is what the policy says of an object that it denies.
var verdict = "this has no owner" + strings.Repeat(", and nobody to ask", 500)

var template = `apiVersion: templates.gatekeeper.sh/v1
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
          msg := "` + verdict + `"
        }
`

const constraint = `apiVersion: constraints.gatekeeper.sh/v1beta1
kind: MustBeOwned
metadata: {name: everything-is-owned}
spec: {match: {kinds: [{apiGroups: [""], kinds: [ConfigMap]}]}}
`

// pushConstraint pushes what gator reads. It has no push of its own.
func pushConstraint(e *errand) error {
	for file, content := range map[string]string{
		"template.yaml":   template,
		"constraint.yaml": constraint,
		"owned.yaml":      "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned, labels: {owner: alice}}\n",
		"disowned.yaml":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: disowned}\n",
	} {
		if _, err := e.write(file, content); err != nil {
			return err
		}
	}
	_, err := e.run("oras", "oras", "push", "--plain-http", e.ref("gatekeeper/owners:1"), "template.yaml:application/yaml", "constraint.yaml:application/yaml")
	return err
}

// testConstraint lets the policy judge an object that it denies beside one that
// it does not.
func testConstraint(e *errand) error {
	judge := []string{"test", "--image", e.ref("gatekeeper/owners:1"), "--output", "json", "--filename", "owned.yaml"}
	out, err := e.run("gator", "gator", judge...)
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) != "null" {
		return fmt.Errorf("what has an owner is denied: %s", out)
	}
	out, err = e.run("gator", "gator", append(judge, "--filename", "disowned.yaml")...)
	if err == nil {
		return fmt.Errorf("what has no owner is not denied: %s", out)
	}
	var denied []struct {
		Msg             string
		ViolatingObject struct{ Metadata struct{ Name string } }
	}
	if problem := json.Unmarshal([]byte(out), &denied); problem != nil {
		return fmt.Errorf("gator says no verdict but %w", err)
	}
	if len(denied) != 1 || denied[0].Msg != verdict || denied[0].ViolatingObject.Metadata.Name != "disowned" {
		return fmt.Errorf("what is denied is %s", out)
	}
	return nil
}
