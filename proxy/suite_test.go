package proxy_test

import (
	"testing"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestAMirrorIsARegistry holds a running mirror to the contract of what stands
// behind it: a parent is as good as the registry itself.
func TestAMirrorIsARegistry(t *testing.T) {
	t.Parallel()
	reach := func(t *testing.T, fake *upstreamtest.Registry) *upstream.Remote {
		m := newMirror(t, fake, setup{})
		remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: "hub.test", Endpoint: m.url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(remote.Close)
		return remote
	}
	upstreamtest.Suite(t, func(t *testing.T, fake *upstreamtest.Registry) upstream.Registry { return reach(t, fake) })
	upstreamtest.EndpointSuite(t, func(t *testing.T, fake *upstreamtest.Registry) upstream.Endpoint { return reach(t, fake) })
}
