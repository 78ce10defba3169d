package pull_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
)

// What is found in memory is what the longer way finds: the same requests get the
// same answers, and ask the upstream the same.
func TestWhatIsRememberedIsWhatTheLongerWayFinds(t *testing.T) {
	for seed := range uint64(20) {
		said := map[bool][]string{}
		for _, remembers := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				o := mirrortest.NewOrigin()
				_, layer := o.Image("private", "1", mirrortest.Bytes(1, 2<<10))
				image := name(t, o, "evil", "1", layer)
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Upstreams[0].Credentialed = seed%2 == 0
					if remembers {
						opts.Memory = &remembering{}
					}
				})
				for range 60 {
					repo := []pull.Repository{private, evil}[r.IntN(2)]
					line := ""
					switch r.IntN(5) {
					case 0:
						time.Sleep(time.Duration(r.IntN(40)) * time.Second)
					case 1:
						got, err := m.Fetch(repo, layer.Digest)
						line = fmt.Sprint("blob ", repo, len(got), err)
					case 2:
						m.SetOffline(r.IntN(3) == 0)
					default:
						ref := []string{"1", image.Digest.String(), "none"}[r.IntN(3)]
						wish := pull.NoOlderThan(time.Duration(r.IntN(4)-2) * time.Minute)
						got, err := m.ManifestFor(t.Context(), repo, ref, nil, wish)
						line = fmt.Sprint("manifest ", repo, ref, got.Descriptor, got.Outcome, got.Stale, got.At, got.Warnings, len(got.Bytes), err)
					}
					mirrortest.Wait()
					said[remembers] = append(said[remembers], line+fmt.Sprint(o.Transcript()))
				}
			})
		}
		for i, want := range said[false] {
			if got := said[true][i]; got != want {
				t.Fatalf("seed %d, step %d: from memory\n\t%s\nwant\n\t%s", seed, i, got, want)
			}
		}
		if !slices.ContainsFunc(said[true], func(s string) bool { return len(s) > 60 }) {
			t.Errorf("seed %d: nothing was answered", seed)
		}
	}
}
