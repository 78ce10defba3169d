package retention_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// What an index attaches stays known as long as an index that attaches it is
// cached, and no longer.
func TestAttachmentsAreDroppedWithTheLastIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		content := o.Content["app "+a.Index.Digest.String()]
		other := o.Put("app", mirrortest.IndexType, append(content.Body, '\n'), "2") // names the same
		m := mirrortest.New(t, o, nil)
		m.PullPlatform(t, a, "1", 0)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2"); err != nil {
			t.Fatal(err)
		}
		purge := func(ref string) {
			t.Helper()
			if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: ref}, false); err != nil {
				t.Fatal(err)
			}
		}
		purge("1")
		for i := range a.Of {
			if attached := m.Ledger.Attached(mirrortest.App, a.Platforms[i].Digest); len(attached) != 1 || !m.Ledger.IsAttestation(mirrortest.App, a.Of[i].Digest) {
				t.Errorf("%s is cached, and it is forgotten what it attaches: %v", other.Digest, attached)
			}
		}
		purge("2")
		if attached, marked := m.CountRecords(t, bucketAttached), m.CountRecords(t, bucketAttestation); attached+marked > 0 {
			t.Errorf("no index is cached, and %d are attached and %d marked", attached, marked)
		}
		o.Fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest); err == nil {
			t.Errorf("no index is cached that marks it: %v", got)
		}
	})
}

// The platform and the attestation may be removed by themselves and come back.
func TestAttachmentsOfACachedIndexStayKnown(t *testing.T) {
	for _, goes := range []string{"the platform", "the attestation"} {
		t.Run(goes+" is purged", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				a := o.Attest("1")
				m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].BuildKitAttestations = true })
				m.Prefetch(t)
				m.PullPlatform(t, a, "1", 0)
				time.Sleep(time.Hour)
				purged := map[string]retention.Descriptor{"the platform": a.Platforms[0], "the attestation": a.Of[0]}[goes]
				if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: purged.Digest.String()}, false); err != nil {
					t.Fatal(err)
				}
				m.PullPlatform(t, a, "1", 0)
				got, err := m.Referrers(t.Context(), mirrortest.App, a.Platforms[0].Digest)
				if err != nil || len(got.Manifests) != 1 {
					t.Errorf("of the platform: %v, %v", mirrortest.Types(got), err)
				}
				time.Sleep(time.Hour)
				if left := m.Missing(t); len(left) > 0 || !m.Ledger.IsAttestation(mirrortest.App, a.Of[0].Digest) {
					t.Errorf("still missing: %v", left)
				}
				o.Fail("*", upstream.ErrRefused)
				if got, err := m.Referrers(t.Context(), mirrortest.App, a.Of[0].Digest); err != nil || len(got.Manifests) > 0 {
					t.Errorf("of the attestation: %v, %v", fmt.Sprint(mirrortest.Types(got)), err)
				}
			})
		})
	}
}
