package pull

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
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// withoutRoom are blobs of a disk that is full.
type withoutRoom struct{ cache.Blobs }

func (withoutRoom) Create(context.Context, Descriptor) (cache.Draft, error) {
	return nil, cache.ErrFull
}

// A manifest that can't be written is passed on all the same, so that it came
// says nothing of whether it is kept.
func TestWithAFullDiskTheSameIsNotLearntAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		a := o.attested("1")
		m := newMirror(t, o, func(opts *Options) { opts.Blobs = withoutRoom{opts.Blobs} })
		m.learning(t)
		m.pull(t, a, "1", 0)
		o.transcript()
		time.Sleep(time.Hour)
		if asked := o.transcript(); len(asked) == 0 || len(asked) > 10 {
			t.Errorf("in an hour it was asked %d times", len(asked))
		}
	})
}

// What always fails, first in every pass, does not keep the rest from being
// learnt.
func TestWhatAlwaysFailsDoesNotHoldUpTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		for i := range 10 {
			tag := fmt.Sprint(i)
			m.pull(t, o.attested(tag), tag, 0)
		}
		kept, err := m.meta.ManifestsOf(hubApp)
		if err != nil {
			t.Fatal(err)
		}
		lost := make(map[string]bool)
		for _, what := range m.unlearnt(t.Context(), hubApp, kept)[:2*maxFailures] {
			lost[what.String()] = true
			o.fail("GET manifest app "+short(what.of.Digest.String()), slices.Repeat([]error{upstream.ErrBadAnswer}, 10_000)...)
		}
		m.learning(t)
		time.Sleep(6 * time.Hour)
		for _, what := range unlearntOf(t, m) {
			if !lost[what] && !strings.HasPrefix(what, string(ofReferrers)) {
				t.Errorf("not learnt after six hours: %s", what)
			}
		}
		asked := o.transcript()
		for what := range lost {
			if n := count(asked, "GET manifest app "+short(strings.TrimPrefix(what, string(aManifest)+" "))); n == 0 || n > 30 {
				t.Errorf("for what fails it was asked %d times in six hours", n)
			}
		}
	})
}

// What failed rests, also while more is pulled that can be learnt.
func TestNewImagesDoNotCutTheRestOfAFailureShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		m.learning(t)
		var fails []string
		for i := range maxFailures {
			tag := fmt.Sprint("fails ", i)
			a := o.attested(tag)
			ask := "GET manifest app " + short(a.of[0].Digest.String())
			fails = append(fails, ask)
			o.fail(ask, slices.Repeat([]error{upstream.ErrBadAnswer}, 10_000)...)
			m.pull(t, a, tag, 0)
		}
		time.Sleep(time.Minute)
		o.transcript()
		var last attested
		for i := range 60 {
			tag := fmt.Sprint("new ", i)
			last = o.attested(tag)
			m.pull(t, last, tag, 0)
			time.Sleep(time.Minute)
		}
		asked := o.transcript()
		for _, ask := range fails {
			if n := count(asked, ask); n == 0 || n > 20 {
				t.Errorf("it was asked %d times in an hour for what fails", n)
			}
		}
		if _, ok := m.meta.Manifest(hubApp, last.of[0].Digest); !ok {
			t.Error("the attestation of what was pulled last is not learnt")
		}
	})
}

// What is listed under a referrers tag is an index as well, whether the upstream
// has it or it was made here, and no image of which a platform was pulled.
func TestAListOfReferrersIsNoImageToLearnAbout(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				o.api = api
				a := o.attested("1")
				sig := o.attach(a.of[0], "sig")
				if !api {
					o.list(a.of[0].Digest, sig)
				}
				m := newMirror(t, o, nil)
				m.learning(t)
				m.pull(t, a, "1", 0)
				time.Sleep(time.Minute)
				if _, err := m.Manifest(t.Context(), hubApp, referrers.TagOf(a.of[0].Digest)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				var subjects []string
				for _, d := range []Descriptor{a.index, a.platforms[0], a.of[0]} {
					subjects = append(subjects, "HEAD manifest app "+referrers.TagOf(d.Digest))
				}
				for _, line := range o.transcript() {
					if strings.HasPrefix(line, "HEAD manifest app sha256-") && !slices.Contains(subjects, line) {
						t.Errorf("what refers to it was asked for: %s", line)
					}
				}
			})
		})
	}
}

// A manifest need not tell how large its blobs are.
func TestABlobOfWhichNobodyTellsTheSizeIsNotLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.api = true
		a := o.attested("1")
		blob := o.put("app", "application/octet-stream", bytesOf(3, 2*maxAttached))
		o.put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil,
			`{"schemaVersion":2,"mediaType":%q,"artifactType":"sig","subject":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q}]}`,
			ocispec.MediaTypeImageManifest, a.index.MediaType, a.index.Digest, a.index.Size, blob.MediaType, blob.Digest))
		m := newMirror(t, o, nil)
		m.learning(t)
		m.pull(t, a, "1", 0)
		time.Sleep(time.Hour)
		if left := unlearntOf(t, m); m.has(t.Context(), blob.Digest) || len(left) > 0 {
			t.Errorf("%d bytes were learnt, and there is left %v", blob.Size, left)
		}
	})
}

// large are records that take a second to go over the manifests of a repository.
type large struct {
	cache.Records
	passes *int
}

func (l large) Scan(b cache.Bucket, prefix string, see func(key string, value []byte) bool) error {
	if b == bucketManifest && prefix != "" {
		*l.passes++
		time.Sleep(time.Second)
	}
	return l.Records.Scan(b, prefix, see)
}

func TestALargeRepositoryIsNotLookedAtAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		passes := 0
		m := newMirror(t, o, func(opts *Options) { opts.Records = large{opts.Records, &passes} })
		end := m.learning(t)
		const images, between = 50, 10 * time.Second
		for i := range images {
			tag := fmt.Sprint(i)
			m.pull(t, o.attested(tag), tag, 0)
			time.Sleep(between)
		}
		end()
		if most := images * int(between/time.Second) / breathes; passes > most+1 {
			t.Errorf("it was looked at for %d seconds of %s", passes, images*between)
		}
		m.learning(t)
		time.Sleep(time.Hour)
		if left := unlearntOf(t, m); len(left) > 0 {
			t.Errorf("not learnt: %v", left)
		}
	})
}
