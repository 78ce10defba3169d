package pull_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestFiftyColdPullsOfOneTagShareOneGET(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, _ := o.Image("app", "1", mirrortest.Bytes(1, 100))
		m := mirrortest.New(t, o, nil)
		release := o.Hold("GET manifest app 1")
		var clients sync.WaitGroup
		for range 50 {
			clients.Go(func() {
				got, err := m.Manifest(t.Context(), mirrortest.App, "1")
				if err != nil || got.Descriptor.Digest != manifest.Digest {
					t.Errorf("got %s and %v", got.Descriptor.Digest, err)
				}
			})
		}
		synctest.Wait()
		release()
		clients.Wait()
		// By digest, it is cached already.
		if _, err := m.Manifest(t.Context(), mirrortest.App, manifest.Digest.String()); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "GET manifest app 1")
	})
}

// The table of tag freshness, row by row.
func TestFreshness(t *testing.T) {
	limited := &upstream.RateLimitedError{RetryAfter: time.Minute}
	for name, c := range map[string]struct {
		kept     bool // a tag is on record, and not fresh
		age      time.Duration
		upstream func(o *mirrortest.Origin, old pull.Descriptor)
		err      error
		limited  bool
		stale    bool
		moved    bool // the client gets what the tag points at now
		asked    []string
		again    []string // what a second request, a moment later, asks
	}{
		"a fresh tag is not asked about": {
			kept: true, age: 59 * time.Second,
			upstream: func(*mirrortest.Origin, pull.Descriptor) {},
		},
		"an old tag that stands costs one HEAD": {
			kept: true, age: 2 * time.Minute,
			upstream: func(*mirrortest.Origin, pull.Descriptor) {},
			asked:    []string{"HEAD manifest app 1"},
		},
		"an old tag that moved brings the new manifest": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Image("app", "1", mirrortest.Bytes(2, 50)) },
			moved:    true,
			asked:    []string{"HEAD manifest app 1", "GET manifest app NEW"},
		},
		"an old tag that moved where HEADs tell no digest is fetched": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) {
				o.NoHEAD = true
				o.Image("app", "1", mirrortest.Bytes(2, 50))
			},
			moved: true,
			asked: []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"an old tag whose manifest is missing by its digest is asked for by the tag": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) {
				d, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
				o.Remove("app", d.Digest.String())
			},
			moved: true,
			asked: []string{"HEAD manifest app 1", "GET manifest app NEW", "GET manifest app 1"},
		},
		"an old tag that points at what is missing is served stale": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) {
				d, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
				o.Remove("app", d.Digest.String())
				o.Fail("GET manifest app 1", upstream.ErrNotFound)
			},
			stale: true,
			asked: []string{"HEAD manifest app 1", "GET manifest app NEW", "GET manifest app 1"},
			again: []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"an old tag that is gone is not found": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Remove("app", "1") },
			err:      upstream.ErrNotFound,
			asked:    []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"W44: an old tag that only HEADs don't find is there": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("HEAD manifest app 1", upstream.ErrNotFound) },
			asked:    []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"W44: an old tag that only HEADs don't find is served stale while GETs fail": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) {
				o.Fail("HEAD manifest app 1", upstream.ErrNotFound, upstream.ErrNotFound)
				o.Fail("GET manifest app 1", upstream.ErrInvalidResponse, upstream.ErrInvalidResponse)
			},
			stale: true,
			asked: []string{"HEAD manifest app 1", "GET manifest app 1"},
			again: []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"W44: an old tag that only HEADs don't find is denied where GETs are, and stays on record": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) {
				o.Fail("HEAD manifest app 1", upstream.ErrNotFound, upstream.ErrNotFound)
				o.Fail("GET manifest app 1", upstream.ErrDenied, upstream.ErrDenied)
			},
			err:   upstream.ErrDenied,
			asked: []string{"HEAD manifest app 1", "GET manifest app 1"},
			again: []string{"HEAD manifest app 1", "GET manifest app 1"},
		},
		"an old tag that is denied is denied": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", upstream.ErrDenied) },
			err:      upstream.ErrDenied,
			asked:    []string{"HEAD manifest app 1"},
			again:    []string{"HEAD manifest app 1"},
		},
		"an old tag of an upstream that fails is served stale": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", upstream.ErrUnavailable) },
			stale:    true,
			asked:    []string{"HEAD manifest app 1"},
			again:    []string{"HEAD manifest app 1"},
		},
		"an old tag of an upstream that limits its rate is served stale": {
			kept: true, age: 2 * time.Minute,
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", limited) },
			stale:    true,
			asked:    []string{"HEAD manifest app 1"},
			again:    []string{"HEAD manifest app 1"},
		},
		"a tag of no record that is not there is remembered as absent": {
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Remove("app", "1") },
			err:      upstream.ErrNotFound,
			asked:    []string{"GET manifest app 1"},
		},
		"a tag of no record while the upstream fails is unknown, and asked again": {
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", upstream.ErrUnavailable) },
			err:      upstream.ErrUnavailable,
			asked:    []string{"GET manifest app 1"},
			again:    []string{"GET manifest app 1"},
		},
		"a tag of no record while the upstream is silent is unknown": {
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", upstream.ErrTimeout) },
			err:      upstream.ErrTimeout,
			asked:    []string{"GET manifest app 1"},
			again:    []string{"GET manifest app 1"},
		},
		"a tag of no record while the rate is limited says so": {
			upstream: func(o *mirrortest.Origin, _ pull.Descriptor) { o.Fail("*", limited) },
			limited:  true,
			asked:    []string{"GET manifest app 1"},
			again:    []string{"GET manifest app 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				old, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				if c.kept {
					if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
						t.Fatal(err)
					}
					o.Transcript()
					time.Sleep(c.age)
				}
				c.upstream(o, old)
				now := digestOf(o, "1")
				got, err := m.Manifest(t.Context(), mirrortest.App, "1")
				var rate *upstream.RateLimitedError
				if errors.As(err, &rate) != c.limited || !c.limited && !errors.Is(err, c.err) {
					t.Errorf("error %v, want %v", err, c.err)
				}
				if got.Stale != c.stale {
					t.Errorf("stale: %v", got.Stale)
				}
				if err == nil {
					want := old.Digest
					if c.moved {
						want = now
					}
					if got.Descriptor.Digest != want || got.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
						t.Errorf("got %v, want %s", got.Descriptor, want)
					}
				}
				for i, line := range c.asked {
					if line == "GET manifest app NEW" {
						c.asked[i] = "GET manifest app " + mirrortest.Short(now.String())
					}
				}
				mirrortest.WantTranscript(t, o, c.asked...)
				_, _ = m.Manifest(t.Context(), mirrortest.App, "1")
				mirrortest.WantTranscript(t, o, c.again...)
			})
		})
	}
}

func digestOf(o *mirrortest.Origin, tag string) pull.Digest {
	c, ok := o.Get("app", tag)
	if !ok {
		return ""
	}
	return mirrortest.IndexAlgorithm.FromBytes(c.Body)
}

func TestACheckDelaysAnAnswerByMaxWaitAndContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		old, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		moved, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
		release := o.Hold("HEAD manifest app 1")
		began := time.Now()
		got, err := m.Manifest(t.Context(), mirrortest.App, "1")
		if took := time.Since(began); err != nil || !got.Stale || got.Descriptor.Digest != old.Digest || took != 2*time.Second {
			t.Errorf("got %v, stale %v, after %s, %v", got.Descriptor.Digest, got.Stale, took, err)
		}
		release()
		synctest.Wait()
		o.Transcript()
		got, err = m.Manifest(t.Context(), mirrortest.App, "1")
		if err != nil || got.Stale || got.Descriptor.Digest != moved.Digest {
			t.Errorf("after the check got %v, stale %v, %v", got.Descriptor.Digest, got.Stale, err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

func TestTagsStayFreshLongerAsTheQuotaRunsLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 50))
		left := 1.0
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Upstreams[0].Quota = func() float64 { return left }
		})
		pull := func() {
			if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
				t.Fatal(err)
			}
		}
		pull()
		o.Transcript()
		left = 0.02 // a tenth of what counts as low: ten times as long
		time.Sleep(9 * time.Minute)
		pull()
		mirrortest.WantTranscript(t, o)
		time.Sleep(2 * time.Minute)
		pull()
		mirrortest.WantTranscript(t, o, "HEAD manifest app 1")
	})
}

func TestImmutableTagsAreNeverCheckedButReferrersTagsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "v1", mirrortest.Bytes(1, 50))
		fallback := "sha256-" + string(bytes.Repeat([]byte("a"), 64))
		o.Put("app", mirrortest.IndexType, []byte(`{"schemaVersion":2,"manifests":[]}`), fallback)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Upstreams[0].Immutable = func(string) bool { return true }
		})
		for range 2 {
			for _, tag := range []string{"v1", fallback} {
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
		}
		asked := o.Transcript() // of which the list is merged of the API and the tag
		if mirrortest.Count(asked, "GET manifest app v1") != 1 || mirrortest.Count(asked, "HEAD manifest app "+fallback) != 1 || mirrortest.Count(asked, "GET referrers app aaaaaa") != 2 || len(asked) != 5 {
			t.Errorf("the upstream was asked %v", asked)
		}
	})
}

func TestABodyThatIsNotAManifestIsNotCached(t *testing.T) {
	for name, body := range map[string]string{
		"a login page":        "<html>sign in</html>",
		"text":                "not found",
		"half a JSON object":  `{"schemaVersion":2`,
		"nothing":             "",
		"more than the bound": `{"a":"` + string(bytes.Repeat([]byte("x"), pull.MaxManifest)) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				d := o.Put("app", "text/html", []byte(body), "1")
				m := mirrortest.New(t, o, nil)
				if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); !errors.Is(err, upstream.ErrInvalidResponse) {
					t.Errorf("error %v", err)
				}
				if m.HasContent(d.Digest) {
					t.Error("it is cached")
				}
			})
		})
	}
}

func TestAManifestThatDoesNotMatchItsDigestIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		want, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Replace("app", want.Digest, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, want.Digest.String()); !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("error %v", err)
		}
	})
}

func TestNoUpstreamIsAskedWhenOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		o.Transcript()
		time.Sleep(time.Hour)
		off := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records, opts.Rules.Offline = m.Blobs, m.Records, true
		})
		got, err := off.Manifest(t.Context(), mirrortest.App, "1")
		if err != nil || !got.Stale {
			t.Errorf("stale %v, %v", got.Stale, err)
		}
		if _, err := off.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Error(err)
		}
		if _, err := off.Manifest(t.Context(), mirrortest.App, "2"); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("a tag that is not cached: %v", err)
		}
		if _, err := off.Fetch(mirrortest.App, mirrortest.IndexAlgorithm.FromString("other")); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("a blob that is not cached: %v", err)
		}
		if err := off.FetchReferrers(t.Context(), mirrortest.App, layer.Digest); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("referrers that are not known: %v", err)
		}
		if got, err := off.RenewManifest(t.Context(), mirrortest.App, "1"); err != nil || !got.Stale {
			t.Errorf("what a tag points at now: %v, %v", got.Stale, err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

func TestLostRecordsCostOnlyHEADs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		manifest, layer := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, manifest.Digest.String()); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		o.Transcript()
		again := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = m.Blobs })
		if _, err := again.Manifest(t.Context(), mirrortest.App, manifest.Digest.String()); err != nil {
			t.Fatal(err)
		}
		if _, err := again.Fetch(mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		mirrortest.WantTranscript(t, o, "HEAD manifest app "+mirrortest.Short(manifest.Digest.String()))
	})
}

func TestTagListsAreNeverTruncated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		for i := range 3 {
			o.Image("app", fmt.Sprint("v", i), mirrortest.Bytes(1, 50))
		}
		o.Put("app", "tags", nil, "tags")
		m := mirrortest.New(t, o, nil)
		list, err := m.Tags(t.Context(), mirrortest.App, nil)
		if err != nil || len(list.Tags) != 3 {
			t.Fatalf("%v, %v", list.Tags, err)
		}
		o.Fail("*", upstream.ErrUnavailable)
		time.Sleep(2 * time.Minute)
		list, err = m.Tags(t.Context(), mirrortest.App, map[string][]string{"n": {"1"}, "last": {"v0"}})
		if err != nil || !list.Stale || fmt.Sprint(list.Tags) != "[v1]" || list.Next.Get("last") != "v1" {
			t.Errorf("the kept list gave %v, next %v, stale %v, %v", list.Tags, list.Next, list.Stale, err)
		}
		if _, err := m.Tags(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, nil); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("a list that was never had: %v", err)
		}
	})
}

// A record whose manifest is gone is nothing to answer with: then what a mirror
// remembers that could not ask its own upstream is better.
func TestATagOfAParentThatCouldNotAskIsServedIfItsManifestIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		m.Ledger.PutTag(mirrortest.App, "1", metadata.Tag{Descriptor: image})
		time.Sleep(time.Hour)
		o.MakeStale("*")
		if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil || !got.Stale || got.Descriptor.Digest != image.Digest {
			t.Errorf("%s, stale: %t, %v", got.Descriptor.Digest, got.Stale, err)
		}
	})
}
