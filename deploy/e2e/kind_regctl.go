package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
)

var regctlKinds = []kind{
	{name: "a tree of artifacts", client: "regctl", tool: "regctl", push: growTree, take: walkTree, hangs: true},
}

// growTree hangs an SBOM on an image, and a note on the SBOM.
func growTree(e *errand) error {
	image, err := e.pushImage("tree", "1", "a tree")
	if err != nil {
		return err
	}
	if e.notes["sbom"], err = e.hang(image, "application/spdx+json", "sbom.json"); err != nil {
		return err
	}
	e.notes["note"], err = e.hang(e.notes["sbom"], "application/vnd.example.note", "note.txt")
	return err
}

func (e *errand) hang(subject, artifactType, file string) (string, error) {
	if _, err := e.write(file, "the content of "+file); err != nil {
		return "", err
	}
	out, err := e.regctl("artifact", "put", "--artifact-type", artifactType, "--subject", e.ref("tree@"+subject), "--file", file, "--format", "{{.Manifest.GetDescriptor.Digest}}")
	return strings.TrimSpace(out), err
}

func (e *errand) regctl(args ...string) (string, error) {
	return e.run("regctl", "regctl", append(args, "--host", "reg="+e.host+",tls=disabled")...)
}

func walkTree(e *errand) error {
	out, err := e.regctl("artifact", "tree", e.ref("tree:1"))
	if err != nil {
		return err
	}
	for _, wanted := range []string{e.notes["sbom"], e.notes["note"], "application/spdx+json"} {
		if !strings.Contains(out, wanted) {
			return fmt.Errorf("%s is not in the tree\n%s", wanted, out)
		}
	}
	out, err = e.regctl("artifact", "list", "--format", "{{json .}}", "--filter-artifact-type", "application/spdx+json", e.ref("tree:1"))
	if err != nil {
		return err
	}
	var listed struct {
		Descriptors []struct{ Digest string } `json:"descriptors"`
	}
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		return err
	}
	if len(listed.Descriptors) != 1 || listed.Descriptors[0].Digest != e.notes["sbom"] {
		return fmt.Errorf("the SBOMs are %s, want %s", out, e.notes["sbom"])
	}
	out, err = e.regctl("artifact", "get", "--subject", e.ref("tree:1"), "--filter-artifact-type", "application/spdx+json")
	if err == nil && out != "the content of sbom.json" {
		err = fmt.Errorf("the SBOM is %q", out)
	}
	return err
}
