package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

var devcontainerKinds = []kind{
	{name: "Dev Container Features", client: "devcontainers CLI", tool: "devcontainer", push: publishFeatures, take: resolveFeatures},
	{name: "Dev Container Templates", client: "devcontainers CLI", tool: "devcontainer", push: publishTemplates, take: applyTemplate},
}

// localRef is a reference by the one name of a host that the CLI speaks plain
// HTTP to.
func (e *errand) localRef(rest string) string {
	return strings.Replace(e.ref(rest), "127.0.0.1", "localhost", 1)
}

// localRegistry is the registry by that name.
func (e *errand) localRegistry() string { return strings.TrimSuffix(e.localRef(""), "/") }

// devcontainer runs the CLI, and reads what it answers.
func (e *errand) devcontainer(answer any, args ...string) error {
	out, err := e.run("devcontainer", "devcontainer", args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("devcontainer %q says %q: %w", args, out, err)
	}
	return nil
}

// published is what the CLI says of each thing it publishes.
type published map[string]struct {
	PublishedTags []string
	Digest        string
	Version       string
}

// publishFeatures publishes two Features. Neither names the other: such a name is
// the registry's own, whatever the mirror is called.
func publishFeatures(e *errand) error {
	for file, content := range map[string]string{
		"features/base/devcontainer-feature.json":  `{"id": "base", "version": "1.2.3", "name": "Base"}`,
		"features/base/install.sh":                 "#!/bin/sh\necho base\n",
		"features/other/devcontainer-feature.json": `{"id": "other", "version": "2.0.0", "name": "Other"}`,
		"features/other/install.sh":                "#!/bin/sh\necho other\n",
	} {
		if _, err := e.write(file, content); err != nil {
			return err
		}
	}
	var all published
	if err := e.devcontainer(&all, "features", "publish", "features", "--registry", e.localRegistry(), "--namespace", "e2e/features"); err != nil {
		return err
	}
	e.notes["base"], e.notes["other"] = all["base"].Digest, all["other"].Digest
	if e.notes["base"] == "" || e.notes["other"] == "" {
		return fmt.Errorf("what is published is %+v", all)
	}
	return nil
}

// resolveFeatures lists a Feature's tags, reads its manifest, and resolves what
// a dev container with both needs.
func resolveFeatures(e *errand) error {
	var listed struct{ PublishedTags []string }
	if err := e.devcontainer(&listed, "features", "info", "tags", e.localRef("e2e/features/base"), "--output-format", "json"); err != nil {
		return err
	}
	slices.Sort(listed.PublishedTags)
	if !slices.Equal(listed.PublishedTags, []string{"1", "1.2", "1.2.3", "latest"}) {
		return fmt.Errorf("the tags are %q", listed.PublishedTags)
	}
	var info struct{ CanonicalId string }
	if err := e.devcontainer(&info, "features", "info", "manifest", e.localRef("e2e/features/base:1"), "--output-format", "json"); err != nil {
		return err
	}
	if !strings.HasSuffix(info.CanonicalId, "@"+e.notes["base"]) {
		return fmt.Errorf("the Feature is %s, want %s", info.CanonicalId, e.notes["base"])
	}
	workspace := fmt.Sprintf(`{"image": "scratch", "features": {%q: {}, %q: {}}}`, e.localRef("e2e/features/other:2"), e.localRef("e2e/features/base:1"))
	if _, err := e.write("workspace/.devcontainer/devcontainer.json", workspace); err != nil {
		return err
	}
	out, err := e.run("devcontainer", "devcontainer", "features", "resolve-dependencies", "--workspace-folder", "workspace")
	if err != nil {
		return err
	}
	for _, digest := range []string{e.notes["base"], e.notes["other"]} {
		if !strings.Contains(out, digest) {
			err = errors.Join(err, fmt.Errorf("%s is not resolved in %s", digest, out))
		}
	}
	return err
}

var templateFiles = map[string]string{
	".devcontainer/devcontainer.json": "{\"image\": \"registry.example/team/e2e:1\"}\n",
	"README.txt":                      strings.Repeat("a line of a template\n", 4000),
}

func publishTemplates(e *errand) error {
	if _, err := e.write("templates/plain/devcontainer-template.json", `{"id": "plain", "version": "1.0.0", "name": "Plain"}`); err != nil {
		return err
	}
	for file, content := range templateFiles {
		if _, err := e.write(filepath.Join("templates/plain", file), content); err != nil {
			return err
		}
	}
	var all published
	if err := e.devcontainer(&all, "templates", "publish", "templates", "--registry", e.localRegistry(), "--namespace", "e2e/templates"); err != nil {
		return err
	}
	if all["plain"].Digest == "" {
		return fmt.Errorf("what is published is %+v", all)
	}
	return nil
}

// applyTemplate unpacks a Template into a folder.
func applyTemplate(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	var applied struct{ Files []string }
	err = e.devcontainer(&applied, "templates", "apply", "--template-id", e.localRef("e2e/templates/plain:1"), "--workspace-folder", into, "--tmp-dir", e.dir)
	for file, content := range templateFiles {
		err = errors.Join(err, same(filepath.Join(into, file), content))
	}
	return err
}
