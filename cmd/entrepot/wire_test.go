package main

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestTheProgramAsksEachEndpointForReferrers: one endpoint may list what the
// other does not (12.15). So the program hands on each of them, and not only what
// falls back from one to the next.
func TestTheProgramAsksEachEndpointForReferrers(t *testing.T) {
	var endpoints []string
	var want []string
	var subject pull.Digest
	for i := range 2 {
		fake := upstreamtest.New(t, upstreamtest.WithReferrers())
		image, _ := fake.AddImage("app", "1", upstreamtest.Bytes(1, 100))
		referrer := fake.AddReferrer("app", image, "application/vnd.example.signature", upstreamtest.Bytes(byte(2+i), 10))
		endpoints, want, subject = append(endpoints, fake.URL()), append(want, referrer.Digest.String()), image.Digest
	}
	cfg := config.Default()
	cfg.Cache.Dir = t.TempDir()
	hub := cfg.Upstreams[0]
	hub.Name, hub.Endpoints = "hub.test", endpoints
	cfg.Upstreams = []config.Upstream{hub}
	metrics, err := admin.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	m, closeMirror, err := openMirror(t.Context(), cfg, readMachine(cfg.Cache.Dir, log), metrics, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeMirror(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	got, err := m.Puller.Referrers(t.Context(), pull.Repository{Upstream: "hub.test", Name: "app"}, subject)
	if err != nil || got.Stale {
		t.Errorf("stale %v, %v", got.Stale, err)
	}
	var listed []string
	for _, d := range got.Manifests {
		listed = append(listed, d.Digest.String())
	}
	slices.Sort(listed)
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("%q are listed, want %q", listed, want)
	}
}
