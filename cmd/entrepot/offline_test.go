package main

import (
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
)

// TestTheProgramOpensNoConnectionToAnUpstreamThatIsOffline: the configuration is
// that of the program, and the upstream a listener that counts who comes.
func TestTheProgramOpensNoConnectionToAnUpstreamThatIsOffline(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"the mirror":  func(cfg *config.Config) { cfg.Offline = true },
		"an upstream": func(cfg *config.Config) { cfg.Upstreams[0].Offline = true },
		"none":        func(*config.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			var came atomic.Int32
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					came.Add(1)
					c.Close()
				}
			}()
			cfg := config.Default()
			cfg.Cache.Dir = t.TempDir()
			hub := cfg.Upstreams[0]
			hub.Name, hub.Endpoints = "hub.test", []string{"http://" + listener.Addr().String()}
			hub.Credentials = config.Credentials{DockerConfig: true}
			cfg.Upstreams = []config.Upstream{hub}
			cfg.Pins = []string{"hub.test/app:1"}
			change(&cfg)
			metrics, err := admin.NewMetrics()
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.DiscardHandler)
			m, closeMirror, err := openMirror(t.Context(), cfg, readMachine(cfg.Cache.Dir, log), metrics, log)
			if err != nil {
				t.Fatal(err)
			}
			m.StartPrefetching()
			repo, d := pull.Repository{Upstream: "hub.test", Name: "app"}, digest.FromString("nowhere")
			_, tag := m.Puller.Manifest(t.Context(), repo, "1")
			_, manifest := m.Puller.Manifest(t.Context(), repo, d.String())
			_, blob := m.Puller.Blob(t.Context(), repo, d, pull.Want{})
			_, _, head := m.Puller.ResolveBlob(t.Context(), repo, d)
			_, listed := m.Puller.Referrers(t.Context(), repo, d)
			_, tags := m.Puller.Tags(t.Context(), repo, nil)
			_, pin := m.Pinner.Pin(t.Context(), metadata.Reference{Repository: repo, Ref: "1"})
			if err := closeMirror(t.Context()); err != nil {
				t.Error(err)
			}
			isOffline := true
			for _, err := range []error{tag, manifest, blob, head, listed, pin} {
				isOffline = isOffline && errors.Is(err, pull.ErrOffline)
			}
			if online := name == "none"; isOffline == online || tags == nil || (came.Load() > 0) != online {
				t.Errorf("%d connections; %v", came.Load(), errors.Join(tag, manifest, blob, head, listed, tags, pin))
			}
		})
	}
}
