package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

var composeKinds = []kind{
	{name: "Compose applications", client: "Docker Compose", tool: "compose", push: publishCompose, take: takeCompose},
}

// application is what is published, with what overrides it.
const (
	application = `name: application
services:
  web:
    image: registry.example/team/e2e:1
    environment:
      GREETING: ${GREETING}
`
	override = "services:\n  web:\n    labels:\n      of: override\n"
)

func (e *errand) compose(args ...string) (string, error) {
	here := *e
	here.env = append(e.env[:len(e.env):len(e.env)], "XDG_CACHE_HOME="+filepath.Join(e.dir, "cache"), "GREETING=hello")
	return here.run("compose", "docker-compose", args...)
}

func publishCompose(e *errand) error {
	for file, content := range map[string]string{"compose.yaml": application, "override.yaml": override} {
		if _, err := e.write(filepath.Join("application", file), content); err != nil {
			return err
		}
	}
	_, err := e.compose("--file", "application/compose.yaml", "--file", "application/override.yaml",
		"publish", "--yes", "--insecure-registry", e.ref("compose/application:1"))
	return err
}

// takeCompose reads the application with nothing in Compose's own cache.
func takeCompose(e *errand) error {
	cache, err := e.empty("cache")
	if err != nil {
		return err
	}
	out, err := e.compose("--insecure-registry", e.host, "--file", "oci://"+e.ref("compose/application:1"), "config")
	if err != nil {
		return err
	}
	for _, wanted := range []string{"image: registry.example/team/e2e:1", "GREETING: hello", "of: override"} {
		if !strings.Contains(out, wanted) {
			err = errors.Join(err, fmt.Errorf("%q is not in the application\n%s", wanted, out))
		}
	}
	// What is fetched is kept as one file of several documents.
	fetched, problem := filepath.Glob(filepath.Join(cache, "docker-compose", "*", "compose.yaml"))
	if len(fetched) != 1 {
		return errors.Join(err, problem, fmt.Errorf("what is fetched is %q", fetched))
	}
	return errors.Join(err, same(fetched[0], application+"\n---\n"+override))
}
