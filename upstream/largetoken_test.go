package upstream_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A registry that gives large tokens for each of many repositories has no more
// held than usual ones take: the first are gone when the last have come.
func TestLargeTokensOfManyRepositoriesAreNotAllHeld(t *testing.T) {
	const repositories = 200
	for _, row := range []struct {
		name  string
		bytes int
		again string
	}{
		{"usual tokens", 4 << 10, "HEAD manifests"},
		{"large tokens", 200 << 10, "GET token"},
	} {
		t.Run(row.name, func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{
				Scheme: "token",
				// The spaces are no part of what is compared.
				Token: func(token string) string {
					return fmt.Sprintf(`{"token":%q,"expires_in":3600}`, token+strings.Repeat(" ", row.bytes))
				},
			}))
			r, err := upstream.NewRemote(upstream.RemoteOptions{Name: "hub.test", Endpoint: fake.URL()})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ask := func(i int) []string {
				repo := fmt.Sprint("app", i)
				fake.AddManifest(repo, "application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2}`), "1")
				if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
					t.Fatal(err)
				}
				return fake.Transcript()
			}
			for i := range repositories {
				ask(i)
			}
			fake.Transcript()
			if asked := ask(repositories - 1); len(asked) != 1 {
				t.Errorf("the last repository again: %q", asked)
			}
			if asked := ask(0); !strings.HasPrefix(asked[0], row.again) {
				t.Errorf("the first repository again: %.200q, want %s", asked, row.again)
			}
		})
	}
}
