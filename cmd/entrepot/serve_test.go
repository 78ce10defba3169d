package main

import (
	"bytes"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

func TestAnnounceSaysWhatRunsWhereAndAFirstPull(t *testing.T) {
	clean(t)
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5000}
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 5000}
	outside := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	admin := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5001}
	public := config.Default()
	private := public
	private.Offline = true
	private.TLS.CertFile = "tls.crt"
	private.Upstreams = []config.Upstream{{Name: "registry.example.com:5000", Aliases: []string{"registry.example.com"}}}
	partly := public
	partly.Upstreams = []config.Upstream{{Name: "docker.io"}, {Name: "ghcr.io", Offline: true}, {Name: "quay.io", Offline: true}}
	for _, c := range []struct {
		name   string
		cfg    config.Config
		listen net.Addr
		want   string
	}{
		{"two upstreams that are offline", partly, loopback, `entrepot listens on http://127.0.0.1:5000
  admin      http://127.0.0.1:5001 (health, metrics, status)
  cache      up to 50GiB in /home/someone/.cache/entrepot
  upstreams  docker.io, ghcr.io, quay.io
  offline    ghcr.io, quay.io: never contacted

Try a pull:
  docker pull 127.0.0.1:5000/docker.io/library/alpine:3

To configure a runtime, run "entrepot hosts RUNTIME".
`},
		{"the defaults", public, loopback, `entrepot listens on http://127.0.0.1:5000
  admin      http://127.0.0.1:5001 (health, metrics, status)
  cache      up to 50GiB in /home/someone/.cache/entrepot
  upstreams  docker.io (default), ghcr.io, quay.io, gcr.io, registry.k8s.io, mcr.microsoft.com,
             public.ecr.aws, nvcr.io, registry.gitlab.com, lscr.io, mirror.gcr.io,
             us-docker.pkg.dev, docker.elastic.co, registry.access.redhat.com,
             registry.fedoraproject.org, registry.opensuse.org, registry.suse.com,
             container-registry.oracle.com, cgr.dev, cr.fluentbit.io, cr.l5d.io, reg.kyverno.io,
             xpkg.crossplane.io, factory.talos.dev

Try a pull:
  docker pull 127.0.0.1:5000/docker.io/library/alpine:3
  crane manifest --insecure 127.0.0.1:5000/ghcr.io/stefanprodan/podinfo:latest

To configure a runtime, run "entrepot hosts RUNTIME".
`},
		{"every address", public, everywhere, `entrepot listens on http://[::]:5000
  admin      http://127.0.0.1:5001 (health, metrics, status)
  cache      up to 50GiB in /home/someone/.cache/entrepot
  upstreams  docker.io (default), ghcr.io, quay.io, gcr.io, registry.k8s.io, mcr.microsoft.com,
             public.ecr.aws, nvcr.io, registry.gitlab.com, lscr.io, mirror.gcr.io,
             us-docker.pkg.dev, docker.elastic.co, registry.access.redhat.com,
             registry.fedoraproject.org, registry.opensuse.org, registry.suse.com,
             container-registry.oracle.com, cgr.dev, cr.fluentbit.io, cr.l5d.io, reg.kyverno.io,
             xpkg.crossplane.io, factory.talos.dev

Try a pull:
  docker pull 127.0.0.1:5000/docker.io/library/alpine:3
  crane manifest --insecure 127.0.0.1:5000/ghcr.io/stefanprodan/podinfo:latest

To configure a runtime, run "entrepot hosts RUNTIME".
`},
		{"plain HTTP to other machines, which Docker refuses", public, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, `entrepot listens on http://192.0.2.1:80
  admin      http://127.0.0.1:5001 (health, metrics, status)
  cache      up to 50GiB in /home/someone/.cache/entrepot
  upstreams  docker.io (default), ghcr.io, quay.io, gcr.io, registry.k8s.io, mcr.microsoft.com,
             public.ecr.aws, nvcr.io, registry.gitlab.com, lscr.io, mirror.gcr.io,
             us-docker.pkg.dev, docker.elastic.co, registry.access.redhat.com,
             registry.fedoraproject.org, registry.opensuse.org, registry.suse.com,
             container-registry.oracle.com, cgr.dev, cr.fluentbit.io, cr.l5d.io, reg.kyverno.io,
             xpkg.crossplane.io, factory.talos.dev

Try a pull:
  crane manifest --insecure 192.0.2.1:80/docker.io/library/alpine:3

To configure a runtime, run "entrepot hosts RUNTIME".
`},
		{"an upstream that nobody else knows, offline", private, outside, `entrepot listens on https://192.0.2.1:443
  admin      http://127.0.0.1:5001 (health, metrics, status)
  cache      up to 50GiB in /home/someone/.cache/entrepot
  upstreams  registry.example.com:5000
  offline    no upstream is contacted

Try a pull:
  crane manifest 192.0.2.1:443/registry.example.com/REPOSITORY:TAG

To configure a runtime, run "entrepot hosts RUNTIME".
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := announce(&b, c.cfg, c.listen, admin); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestListenSaysHowToGetOutOfTrouble(t *testing.T) {
	taken, err := listen(t.Context(), "127.0.0.1:0", "listen")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "another program listens on " + taken.Addr().String() + ": stop it, or choose another address with --admin",
		"192.0.2.1:80":        "192.0.2.1:80 is not an address of this machine: choose another with --admin",
	} {
		second, err := listen(t.Context(), address, "admin")
		if err == nil {
			second.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoggerFollowsTheConfiguration(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(&b, config.Log{Level: "warn", Format: "json"})
	log.Info("too little")
	log.Warn("enough")
	if got := b.String(); strings.Contains(got, "too little") || !strings.HasPrefix(got, "{") || !strings.Contains(got, `"msg":"enough"`) {
		t.Errorf("got %s", got)
	}
	b.Reset()
	log = newLogger(&b, config.Log{Level: "debug", Format: "text"})
	log.Debug("everything", slog.Int("n", 1))
	if got := b.String(); !strings.HasSuffix(got, "level=DEBUG msg=everything n=1\n") {
		t.Errorf("got %s", got)
	}
}

func TestVersionTellsModuleRevisionAndToolchain(t *testing.T) {
	toolchain := runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for want, build := range map[string]*debug.BuildInfo{
		"entrepot (devel) ":                        nil,
		"entrepot v1.2.3 ":                         {Main: debug.Module{Version: "v1.2.3"}},
		"entrepot v1.2.3 0123456789ab ":            {Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{revision}},
		"entrepot (devel) 0123456789ab, modified ": {Settings: []debug.BuildSetting{revision, modified}},
	} {
		if got := versionOf(build); got != want+toolchain {
			t.Errorf("got %q, want %q", got, want+toolchain)
		}
	}
	code, stdout, stderr := entrepot(t, "version")
	if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "entrepot ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
