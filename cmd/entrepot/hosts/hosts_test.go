package hosts

import (
	"context"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

// upstream is one of a configuration that has been checked.
func upstream(name string, endpoints ...string) config.Upstream {
	if endpoints == nil {
		endpoints = []string{"https://" + name}
		if name == dockerHub {
			endpoints = []string{"https://" + dockerHubServer}
		}
	}
	return config.Upstream{Name: name, Endpoints: endpoints, Default: name == dockerHub}
}

// mirrorOf is a mirror at http://mirror.lan:5000 before these.
func mirrorOf(t *testing.T, upstreams ...config.Upstream) Mirror {
	t.Helper()
	m, err := NewMirror(upstreams, Settings{Addresses: []*url.URL{{Scheme: "http", Host: "mirror.lan:5000"}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// place is a machine whose system is a folder of the test's own.
type place struct {
	Machine
	t *testing.T
}

func newPlace(t *testing.T, files map[string]string) place {
	t.Helper()
	root := t.TempDir()
	p := place{Machine{Root: root, Home: filepath.Join(root, "home"), Config: filepath.Join(root, "home", ".config"), Output: notInstalled, Running: func(string) [][]string { return nil }}, t}
	for name, content := range files {
		p.put(name, content)
	}
	return p
}

func notInstalled(context.Context, string, ...string) (string, error) { return "", ErrNotInstalled }

func (p place) put(name, content string) {
	p.t.Helper()
	path := p.System(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) get(name string) string {
	p.t.Helper()
	content, err := os.ReadFile(p.System(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(content)
}

// all is every file and folder, with what is in it and its mode.
func (p place) all() map[string]string {
	p.t.Helper()
	found := map[string]string{}
	if err := filepath.WalkDir(p.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(p.Root, path)
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		found[name] = info.Mode().String()
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			found[name] += " " + string(content)
			return err
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	return found
}

func (p place) setting(runtime string, m Mirror, version string) (Runtime, Setting) {
	p.t.Helper()
	r, ok := Find(runtime)
	if !ok {
		p.t.Fatal("there is no " + runtime)
	}
	v, _ := ParseVersion(version)
	s, err := r.NewSetting(m, v, p.Machine, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return r, s
}

// write does what --write does, and wants it to be the same a second time.
func (p place) write(runtime string, m Mirror, version string) Plan {
	p.t.Helper()
	plan := p.once(runtime, m, version)
	before := p.all()
	again := p.once(runtime, m, version)
	if again.Changes() || !maps.Equal(before, p.all()) {
		p.t.Errorf("a second time is not as the first: %q, then %q", before, p.all())
	}
	return plan
}

func (p place) once(runtime string, m Mirror, version string) Plan {
	p.t.Helper()
	r, s := p.setting(runtime, m, version)
	plan, err := r.PlanWrite(s)
	if err == nil {
		err = plan.Apply()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return plan
}

// refused is what --write says where it does nothing.
func (p place) refused(runtime string, m Mirror, version string) string {
	p.t.Helper()
	before := p.all()
	r, s := p.setting(runtime, m, version)
	_, err := r.PlanWrite(s)
	if err == nil {
		p.t.Fatal("it was not refused")
	}
	if !maps.Equal(before, p.all()) {
		p.t.Error("something is changed all the same")
	}
	return strings.ReplaceAll(err.Error(), p.Root, "")
}

func (p place) remove(runtime string, m Mirror, version string) error {
	p.t.Helper()
	r, s := p.setting(runtime, m, version)
	plan, refused := r.PlanRemove(s)
	if err := plan.Apply(); err != nil {
		p.t.Fatal(err)
	}
	return refused
}

// comes is what --check says of each registry.
func (p place) check(runtime string, m Mirror, version string) (bool, string) {
	p.t.Helper()
	r, s := p.setting(runtime, m, version)
	var b strings.Builder
	right, err := r.Check(p.t.Context(), s, &b)
	if err != nil {
		p.t.Fatal(err)
	}
	return right, strings.ReplaceAll(b.String(), p.Root, "")
}
