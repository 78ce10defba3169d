package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestAnErrorSpeaksOfItsOwnRequestOnly (13.10): a client is told that requests of
// others failed, and neither for what nor what the registry said about it.
func TestAnErrorSpeaksOfItsOwnRequestOnly(t *testing.T) {
	const secret = "team/secret"
	for name, ask := range map[string]func(r upstream.Endpoint, repo string) error{
		"manifests": func(r upstream.Endpoint, repo string) error {
			_, err := r.Manifest(t.Context(), repo, "hidden")
			return err
		},
		"lists of referrers": func(r upstream.Endpoint, repo string) error {
			_, err := r.Referrers(t.Context(), repo, digest.FromString(repo+"hidden"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t)
			fake.Always("GET", upstreamtest.Said(http.StatusServiceUnavailable, "application/json",
				`{"errors":[{"code":"UNAVAILABLE","message":"`+secret+` is being moved"}]}`))
			remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: "hub.test", Endpoint: fake.URL()})
			if err != nil {
				t.Fatal(err)
			}
			defer remote.Close()
			r := upstream.Breaker(remote)
			fake.Transcript()
			for i := range 20 {
				err := ask(r, fmt.Sprint(secret, "/", i))
				if !errors.Is(err, upstream.ErrUnavailable) {
					t.Fatalf("%v, want ErrUnavailable", err)
				}
			}
			asked := len(fake.Transcript())
			err = ask(r, "app")
			if n := len(fake.Transcript()); n > 0 || asked == 20 {
				t.Fatalf("%d and then %d requests: the breaker has not answered", asked, n)
			}
			if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "503") {
				t.Errorf("a client that asked for something else is told %q", err)
			}
		})
	}
}
