package pull

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

func (m mirror) countRecords(t *testing.T, b cache.Bucket) (n int) {
	t.Helper()
	if err := m.opts.Records.Scan(b, "", func(string, []byte) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

// What an index attaches is known for as long as an index is kept that does,
// and no longer.
func TestWhatAnIndexAttachesGoesWithTheLastIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		content := o.content["app "+a.index.Digest.String()]
		other := o.put("app", indexType, append(content.body, '\n'), "2") // names the same
		m := newMirror(t, o, nil)
		m.pull(t, a, "1", 0)
		if _, err := m.Manifest(t.Context(), hubApp, "2"); err != nil {
			t.Fatal(err)
		}
		purge := func(ref string) {
			t.Helper()
			if _, err := m.Purge(t.Context(), Target{Repository: hubApp, Ref: ref}, false); err != nil {
				t.Fatal(err)
			}
		}
		purge("1")
		for i := range a.of {
			if attached := m.meta.Attached(hubApp, a.platforms[i].Digest); len(attached) != 1 || !m.meta.IsAttestation(hubApp, a.of[i].Digest) {
				t.Errorf("%s is kept, and it is forgotten what it attaches: %v", other.Digest, attached)
			}
		}
		purge("2")
		if attached, marked := m.countRecords(t, bucketAttached), m.countRecords(t, bucketAttestation); attached+marked > 0 {
			t.Errorf("no index is kept, and %d are attached and %d marked", attached, marked)
		}
		o.fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest); err == nil {
			t.Errorf("no index is kept that marks it: %v", got)
		}
	})
}

// The platform and the attestation may go by themselves, and come again.
func TestWhatAKeptIndexAttachesStaysKnown(t *testing.T) {
	for _, goes := range []string{"the platform", "the attestation"} {
		t.Run(goes+" is purged", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				a := o.attested("1")
				m := newMirror(t, o, func(opts *Options) { opts.Upstreams[0].BuildKitAttestations = true })
				m.learning(t)
				m.pull(t, a, "1", 0)
				time.Sleep(time.Hour)
				purged := map[string]Descriptor{"the platform": a.platforms[0], "the attestation": a.of[0]}[goes]
				if _, err := m.Purge(t.Context(), Target{Repository: hubApp, Ref: purged.Digest.String()}, false); err != nil {
					t.Fatal(err)
				}
				m.pull(t, a, "1", 0)
				got, err := m.Referrers(t.Context(), hubApp, a.platforms[0].Digest)
				if err != nil || len(got.Manifests) != 1 {
					t.Errorf("of the platform: %v, %v", types(got), err)
				}
				time.Sleep(time.Hour)
				if left := unlearntOf(t, m); len(left) > 0 || !m.meta.IsAttestation(hubApp, a.of[0].Digest) {
					t.Errorf("to learn: %v", left)
				}
				o.fail("*", upstream.ErrRefused)
				if got, err := m.Referrers(t.Context(), hubApp, a.of[0].Digest); err != nil || len(got.Manifests) > 0 {
					t.Errorf("of the attestation: %v, %v", fmt.Sprint(types(got)), err)
				}
			})
		})
	}
}
