package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

var kyvernoKinds = []kind{
	{name: "Kyverno's policies", client: "Kyverno's CLI", tool: "kyverno", push: pushPolicies, take: takePolicies},
}

// kyverno runs the CLI, which must be told that this is an experiment.
func (e *errand) kyverno(args ...string) error {
	here := *e
	here.env = append(e.env[:len(e.env):len(e.env)], "KYVERNO_EXPERIMENTAL=true")
	_, err := here.run("kyverno", "kubectl-kyverno", args...)
	return err
}

var policyNames = []string{"require-labels", "require-names"}

// pushPolicies pushes a folder of policies. The CLI writes them anew, so that
// what it takes from the upstream itself is what has to come.
func pushPolicies(e *errand) error {
	for _, name := range policyNames {
		if _, err := e.write(filepath.Join("policies", name+".yaml"), `apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: `+name+`
spec:
  rules:
    - name: `+name+`
      match: {any: [{resources: {kinds: [Pod]}}]}
      validate:
        failureAction: Audit
        message: "`+strings.Repeat("of "+name+" ", 500)+`"
        pattern: {metadata: {name: "?*"}}
`); err != nil {
			return err
		}
	}
	if err := e.kyverno("oci", "push", "policies", "--image", e.ref("policies:1")); err != nil {
		return err
	}
	if err := e.kyverno("oci", "pull", "straight", "--image", e.ref("policies:1")); err != nil {
		return err
	}
	for _, name := range policyNames {
		content, err := os.ReadFile(filepath.Join(e.dir, "straight", name+".yaml"))
		if err != nil {
			return err
		}
		if !strings.Contains(string(content), "of "+name) {
			return fmt.Errorf("the policy %s is %s", name, content)
		}
		e.notes[name] = string(content)
	}
	return nil
}

func takePolicies(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	err = e.kyverno("oci", "pull", "taken", "--image", e.ref("policies:1"))
	for _, name := range policyNames {
		err = errors.Join(err, same(filepath.Join(into, name+".yaml"), e.notes[name]))
	}
	return err
}
