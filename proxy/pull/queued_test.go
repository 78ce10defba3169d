package pull_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// A client that leaves gives up its turn at a busy upstream. One that was told to
// come back has it for as long as that takes.
func TestTurnsAtABusyUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		leaves time.Duration // 0: it is told to come back
		free   time.Duration // the place at the upstream
		asked  bool
	}{
		"a client that leaves":                 {leaves: time.Second, free: 5 * time.Second},
		"one that was told to come back":       {free: clientWait + 29*time.Second, asked: true},
		"one that was, and does not come back": {free: clientWait + 31*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				before := o.Put("app", "layer", mirrortest.Bytes(1, 100<<10))
				layer := o.Put("app", "layer", mirrortest.Bytes(2, 5<<20))
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Upstreams = []pull.Upstream{{Name: "hub", Registry: upstream.Limit(upstream.Fallback(o), 2), Endpoints: []upstream.Endpoint{o}}}
				})
				held(o, "GET blob app "+mirrortest.Short(before.Digest.String()), c.free)
				go m.Read(t.Context(), mirrortest.App, before.Digest)
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				if c.leaves > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), c.leaves)
				}
				defer cancel()
				began := time.Now()
				err := m.Read(ctx, mirrortest.App, layer.Digest)
				if c.leaves == 0 && (!errors.Is(err, upstream.ErrTimeout) || time.Since(began) != clientWait) || c.leaves > 0 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v after %s", err, time.Since(began))
				}
				time.Sleep(time.Minute)
				asked := mirrortest.Count(o.Transcript(), "GET blob app "+mirrortest.Short(layer.Digest.String())) > 0
				if asked != c.asked {
					t.Errorf("the upstream was asked: %v", asked)
				}
				if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
					t.Errorf("later: %v", err)
				}
			})
		})
	}
}
