package warm_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// withoutRoom is a blob store on a full disk.
type withoutRoom struct{ cache.Blobs }

func (withoutRoom) Create(context.Context, warm.Descriptor) (cache.Draft, error) {
	return nil, cache.ErrFull
}

// A manifest that cannot be written is still served, so a response does not
// mean that it is cached.
func TestOnAFullDiskPrefetchingIsNotRepeatedForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		a := o.Attest("1")
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = withoutRoom{opts.Blobs} })
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		o.Transcript()
		time.Sleep(time.Hour)
		if asked := o.Transcript(); len(asked) == 0 || len(asked) > 10 {
			t.Errorf("in an hour it was asked %d times", len(asked))
		}
	})
}

// Something that always fails, first in every pass, does not prevent the rest
// from being prefetched.
func TestWhatAlwaysFailsDoesNotHoldUpTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		for i := range 10 {
			tag := fmt.Sprint(i)
			m.PullPlatform(t, o.Attest(tag), tag, 0)
		}
		kept, err := m.Ledger.ManifestsOf(mirrortest.App)
		if err != nil {
			t.Fatal(err)
		}
		lost := make(map[string]bool)
		for _, what := range m.Mirror.Retention.FindMissing(t.Context(), mirrortest.App, kept)[:2*warm.MaxFailures] {
			lost[what.String()] = true
			o.Fail("GET manifest app "+mirrortest.Short(what.Of.Digest.String()), slices.Repeat([]error{upstream.ErrInvalidResponse}, 10_000)...)
		}
		m.Prefetch(t)
		time.Sleep(6 * time.Hour)
		for _, what := range m.Missing(t) {
			if !lost[what] && !strings.HasPrefix(what, string(retention.MissingReferrers)) {
				t.Errorf("not prefetched after six hours: %s", what)
			}
		}
		asked := o.Transcript()
		for what := range lost {
			if n := mirrortest.Count(asked, "GET manifest app "+mirrortest.Short(strings.TrimPrefix(what, string(retention.MissingManifest)+" "))); n == 0 || n > 30 {
				t.Errorf("for what fails it was asked %d times in six hours", n)
			}
		}
	})
}

// What failed is not retried early, even if more is pulled.
func TestNewImagesDoNotShortenABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		var fails []string
		for i := range warm.MaxFailures {
			tag := fmt.Sprint("fails ", i)
			a := o.Attest(tag)
			ask := "GET manifest app " + mirrortest.Short(a.Of[0].Digest.String())
			fails = append(fails, ask)
			o.Fail(ask, slices.Repeat([]error{upstream.ErrInvalidResponse}, 10_000)...)
			m.PullPlatform(t, a, tag, 0)
		}
		time.Sleep(time.Minute)
		o.Transcript()
		var last mirrortest.Attested
		for i := range 60 {
			tag := fmt.Sprint("new ", i)
			last = o.Attest(tag)
			m.PullPlatform(t, last, tag, 0)
			time.Sleep(time.Minute)
		}
		asked := o.Transcript()
		for _, ask := range fails {
			if n := mirrortest.Count(asked, ask); n == 0 || n > 20 {
				t.Errorf("it was asked %d times in an hour for what fails", n)
			}
		}
		if _, ok := m.Ledger.Manifest(mirrortest.App, last.Of[0].Digest); !ok {
			t.Error("the attestation of what was pulled last is not prefetched")
		}
	})
}

// A referrers tag is an index too, whether the upstream has it or it was built
// here, but not an image of which a platform was pulled.
func TestAReferrersTagIsNotPrefetchedAsAnImage(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = api
				a := o.Attest("1")
				sig := o.Attach(a.Of[0], "sig")
				if !api {
					o.List(a.Of[0].Digest, sig)
				}
				m := mirrortest.New(t, o, nil)
				m.Prefetch(t)
				m.PullPlatform(t, a, "1", 0)
				time.Sleep(time.Minute)
				if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(a.Of[0].Digest)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				var subjects []string
				for _, d := range []warm.Descriptor{a.Index, a.Platforms[0], a.Of[0]} {
					subjects = append(subjects, "HEAD manifest app "+referrers.TagOf(d.Digest))
				}
				for _, line := range o.Transcript() {
					if strings.HasPrefix(line, "HEAD manifest app sha256-") && !slices.Contains(subjects, line) {
						t.Errorf("what refers to it was asked for: %s", line)
					}
				}
			})
		})
	}
}

// A manifest need not give the sizes of its blobs.
func TestABlobOfUnknownSizeIsNotPrefetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		a := o.Attest("1")
		blob := o.Put("app", "application/octet-stream", mirrortest.Bytes(3, 2*1<<20))
		o.Put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil,
			`{"schemaVersion":2,"mediaType":%q,"artifactType":"sig","subject":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q}]}`,
			ocispec.MediaTypeImageManifest, a.Index.MediaType, a.Index.Digest, a.Index.Size, blob.MediaType, blob.Digest))
		m := mirrortest.New(t, o, nil)
		m.Prefetch(t)
		m.PullPlatform(t, a, "1", 0)
		time.Sleep(time.Hour)
		if left := m.Missing(t); m.Store.Has(t.Context(), blob.Digest) || len(left) > 0 {
			t.Errorf("%d bytes were prefetched, and there is left %v", blob.Size, left)
		}
	})
}

// large are records that take a second to scan the manifests of a repository.
type large struct {
	cache.Records
	passes *int
}

func (l large) Scan(b cache.Bucket, prefix string, see func(key string, value []byte) bool) error {
	if b == "manifest" && prefix != "" {
		*l.passes++
		time.Sleep(time.Second)
	}
	return l.Records.Scan(b, prefix, see)
}

func TestALargeRepositoryIsNotScannedContinuously(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		passes := 0
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Records = large{opts.Records, &passes} })
		end := m.Prefetch(t)
		const images, between = 50, 10 * time.Second
		for i := range images {
			tag := fmt.Sprint(i)
			m.PullPlatform(t, o.Attest(tag), tag, 0)
			time.Sleep(between)
		}
		end()
		if most := images * int(between/time.Second) / warm.ScanFactor; passes > most+1 {
			t.Errorf("it was looked at for %d seconds of %s", passes, images*between)
		}
		m.Prefetch(t)
		time.Sleep(time.Hour)
		if left := m.Missing(t); len(left) > 0 {
			t.Errorf("not prefetched: %v", left)
		}
	})
}
