package pull_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// slowAPI delays the answer of the Referrers API about subject until release is
// called.
func slowAPI(o *mirrortest.Origin, subject pull.Descriptor) (release func()) {
	return o.Hold("GET referrers app " + mirrortest.Short(subject.Digest.String()))
}

func TestALookupContinuesAfterTheClientsPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sig")
		release := slowAPI(o, subject)
		m := mirrortest.New(t, o, nil)
		ask := func(wantWait time.Duration) (pull.Referrers, error) {
			t.Helper()
			began := time.Now()
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if took := time.Since(began); took != wantWait {
				t.Errorf("it took %s, want %s", took, wantWait)
			}
			return got, err
		}
		if got, err := ask(pull.UsualPatience); !errors.Is(err, upstream.ErrTimeout) {
			t.Errorf("nothing is known: %v, %v", mirrortest.Types(got), err)
		}
		// A request now, to the API or for the tag, waits no longer: Docker
		// sends one and then the other (F21).
		if got, err := ask(0); !errors.Is(err, upstream.ErrTimeout) {
			t.Errorf("asked again: %v, %v", mirrortest.Types(got), err)
		}
		began := time.Now()
		_, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest))
		var warned *pull.WarnedError
		if !errors.Is(err, upstream.ErrNotFound) || !errors.As(err, &warned) || time.Since(began) != 0 {
			t.Errorf("the tag: %v, after %s", err, time.Since(began))
		}
		time.Sleep(25 * time.Second)
		release()
		synctest.Wait()
		if got, err := ask(0); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("once the list has come: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
		}
		if asked := o.Transcript(); len(asked) == 0 || asked[len(asked)-1] != "HEAD manifest app "+referrers.TagOf(subject.Digest) || mirrortest.Count(asked, "GET referrers app "+mirrortest.Short(subject.Digest.String())) != 1 {
			t.Errorf("the upstream was asked %v", asked)
		}
	})
}

// What the tag lists is certain, even while the API has not answered.
func TestTheReferrersTagIsServedWhileTheAPIDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.List(subject.Digest, o.Attach(subject, "sig"))
		release := slowAPI(o, subject)
		m := mirrortest.New(t, o, nil)
		began := time.Now()
		got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
		if err != nil || !got.Stale || !got.Partial || fmt.Sprint(mirrortest.Types(got)) != "[sig]" || time.Since(began) != pull.UsualPatience {
			t.Errorf("got %v, stale %v, partial %v, %v, after %s", mirrortest.Types(got), got.Stale, got.Partial, err, time.Since(began))
		}
		if rec, ok := m.Ledger.Referrers(mirrortest.App, subject.Digest); ok {
			t.Errorf("what is not whole is on record: %v", rec)
		}
		release()
		synctest.Wait()
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("afterwards: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
		}
	})
}

// A cached answer is served within max_wait, and at once if a lookup has
// already taken longer than that.
func TestACachedReferrersListWaitsForALookupOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sig")
		m := mirrortest.New(t, o, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		defer slowAPI(o, subject)()
		for _, want := range []time.Duration{m.Rules.MaxWait, 0} {
			began := time.Now()
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if err != nil || !got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" || time.Since(began) != want {
				t.Errorf("got %v, stale %v, %v, after %s, want it after %s", mirrortest.Types(got), got.Stale, err, time.Since(began), want)
			}
		}
	})
}

func TestALookupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		defer slowAPI(o, subject)()
		m := mirrortest.New(t, o, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); !errors.Is(err, upstream.ErrTimeout) {
			t.Error(err)
		}
		time.Sleep(pull.MaxLookup)
		synctest.Wait()
		if n := m.LookupsUnderWay(); n != 0 {
			t.Errorf("%d lookups are under way", n)
		}
	})
}

// If an image that is kept had no referrers when the upstream could be asked,
// both routes continue to say so, and mark the answer as stale: it could not be
// pulled again otherwise. If there was never an answer, neither does. And of what
// is not kept an empty list is known for as long as any absence.
func TestAnEmptyReferrersListIsServedWhenTheUpstreamIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		asked, kept bool
		after       time.Duration
	}{
		"asked before, and kept":                  {asked: true, kept: true, after: time.Hour},
		"asked before, and not kept":              {asked: true, after: time.Hour},
		"asked before, and not kept, after a day": {asked: true, after: 24 * time.Hour},
		"asked before, and kept, after a day":     {asked: true, kept: true, after: 24 * time.Hour},
		"kept":                                    {kept: true, after: time.Hour},
		"neither":                                 {after: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			told := c.asked && c.kept
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				if c.kept {
					pullManifest(t, m, subject.Digest.String())
				}
				if c.asked {
					if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(c.after)
				o.Fail("*", upstream.ErrRefused)
				for name, m := range map[string]*pull.Puller{"gone": m.Puller, "offline": mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs, opts.Records, opts.Memory, opts.Rules.Offline = m.Blobs, m.Records, m.Memory, true
				}).Puller} {
					list, listErr := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
					_, tagErr := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest))
					var stale *pull.StaleError
					none := errors.Is(tagErr, upstream.ErrNotFound) && errors.As(tagErr, &stale)
					if empty := listErr == nil && list.Stale && len(list.Manifests) == 0; empty != told || none != told {
						t.Errorf("%s: the list is %v, %v; the tag %v", name, list, listErr, tagErr)
					}
					if !told && errors.Is(tagErr, upstream.ErrNotFound) {
						t.Errorf("%s: unknown is told as none: %v", name, tagErr)
					}
				}
			})
		})
	}
}

// The one exception (decision 14a): a manifest that declares itself a BuildKit
// attestation is one, even without an index that marks it.
func TestAnAttestationHasNoReferrersWhenNoSourceCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		attestation := o.Attach(pull.Descriptor{}, referrers.AttestationType)
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		named := o.Attach(pull.Descriptor{}, "as/"+referrers.AttestationType)
		for _, d := range []pull.Descriptor{attestation, image, named} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, d.Digest.String()); err != nil {
				t.Fatal(err)
			}
		}
		o.Fail("*", upstream.ErrRefused)
		list, err := m.Referrers(t.Context(), mirrortest.App, attestation.Digest)
		if err != nil || !list.Stale || len(list.Manifests) != 0 {
			t.Errorf("of the attestation: %v, %v", list, err)
		}
		var stale *pull.StaleError
		if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(attestation.Digest)); !errors.Is(err, upstream.ErrNotFound) || !errors.As(err, &stale) {
			t.Errorf("its tag: %v", err)
		}
		for name, d := range map[string]pull.Descriptor{"the image": image, "what only names the type": named} {
			if list, err := m.Referrers(t.Context(), mirrortest.App, d.Digest); err == nil {
				t.Errorf("of %s: %v", name, list)
			}
		}
		if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(image.Digest)); errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("the image's tag: %v", err)
		}
	})
}

// W42: registries count GETs of manifests. A missing tag costs none.
func TestAMissingReferrersTagCostsNoGET(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		sig := o.Attach(subject, "sig")
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].CosignTags = true })
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
			t.Fatal(err)
		}
		asked := []string{"GET referrers app " + mirrortest.Short(subject.Digest.String()), "HEAD manifest app " + referrers.TagOf(subject.Digest)}
		for _, tag := range referrers.CosignTags(subject.Digest) {
			asked = append(asked, "HEAD manifest app "+tag.Tag)
		}
		mirrortest.WantTranscript(t, o, asked...)
		// Listed referrers are not forgotten because of a HEAD alone (W44).
		o.List(subject.Digest, sig)
		time.Sleep(time.Hour)
		tag := referrers.TagOf(subject.Digest)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("listed: %v, %v", mirrortest.Types(got), err)
		}
		m.Ledger.DropTag(mirrortest.App, tag)
		m.Ledger.DropSeen(mirrortest.App, subject.Digest, sig.Digest)
		time.Sleep(time.Hour)
		o.Fail("HEAD manifest app "+tag, upstream.ErrNotFound)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("with a HEAD that finds nothing: %v, %v", mirrortest.Types(got), err)
		}
	})
}

// A refusal of the API only means that it cannot be asked, unless the tag is
// refused as well: a client that may read what the tag lists may read the tag.
func TestARefusalOfTheAPIAloneIsInconclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Fail("GET referrers app "+mirrortest.Short(subject.Digest.String()), upstream.ErrDenied)
		tag := "HEAD manifest app " + referrers.TagOf(subject.Digest)
		release := o.Hold(tag)
		m := mirrortest.New(t, o, nil)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); !errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, upstream.ErrDenied) {
			t.Errorf("while the tag is asked for: %v", err)
		}
		o.Fail(tag, upstream.ErrDenied)
		release()
		synctest.Wait()
		o.Fail("GET referrers app "+mirrortest.Short(subject.Digest.String()), upstream.ErrDenied)
		o.Fail(tag, upstream.ErrDenied)
		if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("with the tag refused as well: %v", err)
		}
	})
}

// A list that was seen under the tag is newer than an empty answer.
func TestAnEmptyReferrersListIsDroppedOnceATagListsSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) > 0 {
			t.Fatal(got, err)
		}
		time.Sleep(time.Hour)
		o.List(subject.Digest, o.Attach(subject, "sig"))
		if _, err := m.Manifest(t.Context(), mirrortest.App, referrers.TagOf(subject.Digest)); err != nil {
			t.Fatal(err)
		}
		o.Fail("*", upstream.ErrRefused)
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
			t.Errorf("it lists %v, %v", got.Manifests, err)
		}
	})
}

// Whether seen manifests still exist is asked last, and may take long. Until it
// is known they are listed: a list without them would say that there are none.
func TestASeenReferrerIsListedWhileItIsBeingChecked(t *testing.T) {
	for _, listed := range []bool{false, true} {
		t.Run(fmt.Sprint("listed before: ", listed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				sig := o.Attach(subject, "sig")
				m := mirrortest.New(t, o, nil)
				if _, err := m.Manifest(t.Context(), mirrortest.App, sig.Digest.String()); err != nil {
					t.Fatal(err)
				}
				if listed {
					if _, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour)
				}
				defer o.Hold("HEAD manifest app " + mirrortest.Short(sig.Digest.String()))()
				got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
				if err != nil || !got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
					t.Errorf("got %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
				}
			})
		})
	}
}

func TestAMirrorThatHasStoppedLooksNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 100))
		m := mirrortest.New(t, o, nil)
		m.Close()
		began := time.Now()
		if _, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("it answers %v", err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the answer took %s", took)
		}
		if n := m.LookupsUnderWay(); n != 0 {
			t.Errorf("%d lookups are under way", n)
		}
		mirrortest.WantTranscript(t, o)
	})
}
