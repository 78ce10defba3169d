package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// weatherClient pulls with a real program, which may fail.
type weatherClient struct {
	name, slug, tool string
	archs            []string // of the platforms that it pulls
	// tries is how often it asks for what is answered 504.
	tries int
	start func(t *testing.T, s *suite, m *mirror, own []*cell) weatherPuller
}

// weatherPuller is such a client that is ready.
type weatherPuller struct {
	pull  func(context.Context, *cell) error
	check func(*testing.T, *cell)
}

var weatherClients = []weatherClient{
	{"containerd", "containerd", "containerd", architectures[:1], 1, startWeatherContainerd},
	{"Docker", "docker", "moby", architectures[:1], 1, startWeatherDocker},
	{"crane", "crane", "crane", architectures, 3, startWeatherCrane},
	{"skopeo", "skopeo", "skopeo", architectures, 1, startWeatherSkopeo},
}

// hostsOf writes a runtime's configuration for each cell into a folder: each goes
// its own way to entrepot. The runtime has them in a folder below.
func hostsOf(t *testing.T, s *suite, m *mirror, own []*cell, folder, runtime, below string, flags ...string) {
	t.Helper()
	made := map[string]string{} // by the way
	for _, c := range own {
		if made[c.way] == "" {
			made[c.way] = s.folder(t)
			m.hosts(t, runtime, made[c.way], append(flags, "--address", "http://"+c.way)...)
		}
		if err := os.CopyFS(filepath.Join(folder, c.name), os.DirFS(filepath.Join(made[c.way], below, c.name))); err != nil {
			t.Fatal(err)
		}
	}
}

// tryAll is try, with the end of what was written in the error.
func tryAll(ctx context.Context, env []string, program string, args ...string) error {
	stdout, stderr, err := try(ctx, "", env, program, args...)
	if err != nil {
		const end = 1 << 10 // A client that shows its progress writes much.
		return fmt.Errorf("%w\n%s%s", err, stdout[max(0, len(stdout)-end):], stderr[max(0, len(stderr)-end):])
	}
	return nil
}

func startWeatherContainerd(t *testing.T, s *suite, m *mirror, own []*cell) weatherPuller {
	t.Helper()
	d := s.containerdIn(t, s.inMemory(t), "containerd")
	hostsOf(t, s, m, own, d.hostsDir, "containerd", "", "--containerd-version", d.tool.version)
	d.start(t, containerdConfig(d.tool.version, d.dir))
	pull := func(ctx context.Context, c *cell) error {
		return tryAll(ctx, d.env, d.tool.program("ctr"), "--address", d.socket(), "--namespace", d.namespace,
			"images", "pull", "--local", "--hosts-dir", d.hostsDir, c.image.reference())
	}
	return weatherPuller{pull, func(t *testing.T, c *cell) { t.Helper(); d.check(t, c.image) }}
}

func startWeatherDocker(t *testing.T, s *suite, m *mirror, own []*cell) weatherPuller {
	t.Helper()
	d := &moby{dir: s.inMemory(t)}
	hostsOf(t, s, m, own, d.hostsDir(), "docker", "certs.d", "--version", "29")
	d.start(t, s, map[string]any{"max-concurrent-downloads": 3 * len(own)}) // so that cells don't wait for each other
	pull := func(ctx context.Context, c *cell) error {
		return d.tryPull(ctx, c.image.registry+"/"+c.image.repository, c.image.tag)
	}
	return weatherPuller{pull, func(t *testing.T, c *cell) { t.Helper(); d.check(t, c.image) }}
}

func startWeatherCrane(t *testing.T, s *suite, _ *mirror, _ []*cell) weatherPuller {
	t.Helper()
	l := &layouts{dir: s.folder(t)}
	pull := func(ctx context.Context, c *cell) error {
		folder := l.folder(c.image)
		if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
			return err
		}
		return tryAll(ctx, environment(l.dir), s.tool(t, "crane").program("crane"), "pull", "--insecure", "--format=oci", c.way+"/"+c.image.reference(), folder)
	}
	return weatherPuller{pull, func(t *testing.T, c *cell) { t.Helper(); l.check(t, c.image) }}
}

func startWeatherSkopeo(t *testing.T, s *suite, m *mirror, own []*cell) weatherPuller {
	t.Helper()
	homes := map[string]*skopeo{} // by the way
	for _, c := range own {
		if homes[c.way] == nil {
			k := &skopeo{tool: s.tool(t, "skopeo")}
			k.dir, k.env = s.containersHome(t, m, "skopeo", "--address", "http://"+c.way)
			homes[c.way] = k
		}
	}
	pull := func(ctx context.Context, c *cell) error {
		k := homes[c.way]
		if err := os.MkdirAll(k.folder(c.image), 0o755); err != nil {
			return err
		}
		return tryAll(ctx, k.env, k.tool.program("skopeo"), "copy", "--all", "--preserve-digests", "docker://"+c.image.reference(), "dir:"+k.folder(c.image))
	}
	return weatherPuller{pull, func(t *testing.T, c *cell) { t.Helper(); homes[c.way].check(t, c.image) }}
}
