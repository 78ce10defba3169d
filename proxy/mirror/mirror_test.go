package mirror_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

func TestNothingRunsBeforeItIsStarted(t *testing.T) {
	before := goleak.IgnoreCurrent()
	disk := memory.New()
	content, err := memory.NewContent(0)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	m := mirror.New(mirror.Options{
		Blobs: disk.Blobs(), Records: disk.Records(), Memory: content,
		Upstreams: []pull.Upstream{{Name: "hub", Endpoints: []upstream.Endpoint{mirrortest.NewOrigin()}}},
		ScrubRate: 1, Logger: slog.New(slog.DiscardHandler),
	})
	defer m.Close()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestCloseLeavesNothingRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := goleak.IgnoreCurrent()
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		_, layer := o.Image("app", "2", mirrortest.Bytes(1, 100<<10))
		var downloads atomic.Int64
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Events.Flights = func(delta int) {
				if delta < 0 {
					time.Sleep(time.Minute) // the end of a download may take a while
				}
				downloads.Add(int64(delta))
			}
			opts.ScrubRate = 1
			opts.Bounds.MaxBytes = 200 << 10
			opts.Rules.TagTTL = 0
		})
		m.PullImage(t, mirrortest.App, "1")
		time.Sleep(time.Minute)
		// Everything that asks an upstream is held up now: a download, a check of
		// a tag, a lookup, a pin, and what is learnt by itself.
		for _, line := range []string{
			"GET blob app " + mirrortest.Short(layer.Digest.String()), "HEAD manifest app 1", "GET manifest app 2",
			"GET referrers app " + mirrortest.Short(a.Index.Digest.String()), "GET referrers app " + mirrortest.Short(a.Platforms[0].Digest.String()),
		} {
			defer o.Hold(line)()
		}
		m.StartPrefetching()
		clients, leave := context.WithCancel(t.Context())
		gone := make(chan struct{}, 5)
		for _, ask := range []func(){
			func() { _ = m.Read(clients, mirrortest.App, layer.Digest) },
			func() { _, _ = m.Manifest(clients, mirrortest.App, "1") },
			func() { _, _ = m.Manifest(clients, mirrortest.App, "2") },
			func() { _, _ = m.Referrers(clients, mirrortest.App, a.Index.Digest) },
			func() { _, _ = m.Pin(clients, metadata.Reference{Repository: mirrortest.App, Ref: "2"}) },
		} {
			go func() {
				ask()
				gone <- struct{}{}
			}()
		}
		time.Sleep(time.Second)
		if m.Flights.Len() != 1 {
			t.Errorf("%d downloads are under way", m.Flights.Len())
		}
		leave()
		for range 5 {
			<-gone
		}
		if m.Flights.Len() != 1 {
			t.Error("the download has ended with its client")
		}
		m.Close()
		if n := downloads.Load(); n != 0 {
			t.Errorf("%d downloads still run", n)
		}
		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
		m.Close() // twice is no error
	})
}

func TestATagThatMovesReachesThePinner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Rules.TagTTL = 0
			opts.Pins.Matches = func(repo metadata.Repository, ref string) bool { return repo == mirrortest.App && ref == "1" }
		})
		mirrortest.Wait()
		began := time.Now()
		for seed := range byte(2) {
			_, layer := o.Image("app", "1", mirrortest.Bytes(seed, 10<<10))
			if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
				t.Fatal(err)
			}
			mirrortest.Wait()
			if !m.HasContent(layer.Digest) {
				t.Errorf("the layer of image %d of a pinned tag was not fetched", seed)
			}
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the test waited for %s: a look at all pins would do", waited)
		}
	})
}

func TestAStoredManifestReachesThePrefetcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, nil)
		m.StartPrefetching()
		mirrortest.Wait() // the look at the start finds nothing kept
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(10 * time.Second)
		if left := m.Missing(t); len(left) > 0 {
			t.Errorf("not learnt: %v", left)
		}
		if !m.HasManifest(mirrortest.App, a.Of[0].Digest) {
			t.Error("the attestation of the platform that was pulled is not kept")
		}
	})
}
