package pull_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Sign, then verify (12.14): a client that wishes for a new answer gets one,
// whatever was asked a moment before.
func TestAClientThatWishesForANewListOfReferrersGetsOne(t *testing.T) {
	for _, api := range []bool{false, true} {
		t.Run(fmt.Sprint("API ", api), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				o.API = api
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				m := mirrortest.New(t, o, nil)
				tag := referrers.TagOf(subject.Digest)
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag); !errors.Is(err, upstream.ErrNotFound) { // BuildKit, at a build
					t.Fatal(err)
				}
				sig := o.Attach(subject, "sig")
				if !api {
					o.List(subject.Digest, sig)
				}
				time.Sleep(time.Second)
				if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, pull.NoOlderThan(2*time.Second)); err != nil || len(got.Manifests) != 0 || got.Outcome != pull.Hit {
					t.Errorf("two seconds will do: %v, %s, %v", mirrortest.Types(got), got.Outcome, err)
				}
				if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, pull.NoOlderThan(0)); err != nil || got.Stale || fmt.Sprint(mirrortest.Types(got)) != "[sig]" {
					t.Errorf("no-cache: %v, stale %v, %v", mirrortest.Types(got), got.Stale, err)
				}
				if _, err := m.Manifest(t.Context(), mirrortest.App, tag, pull.NoOlderThan(0)); err != nil {
					t.Errorf("the tag, no-cache: %v", err)
				}
			})
		})
	}
}

// Decision 9: no-cache asks at most once in 5 s, and who asks meanwhile joins.
func TestAWishForANewListAsksTheUpstreamOnceInFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		ask := func() pull.Referrers {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, pull.NoOlderThan(0))
			if err != nil {
				t.Error(err)
			}
			return got
		}
		line := "GET referrers app " + mirrortest.Short(subject.Digest.String())
		for range 20 {
			go ask()
		}
		synctest.Wait()
		for range 20 {
			ask()
			time.Sleep(100 * time.Millisecond)
		}
		if n := mirrortest.Count(o.Transcript(), line); n != 1 {
			t.Errorf("40 clients in 2 s: the API is asked %d times", n)
		}
		// If it can't be asked anew, the list is stale: for five seconds without
		// another question.
		time.Sleep(5 * time.Second)
		o.Fail("*", upstream.ErrRefused)
		for range 3 {
			if got := ask(); !got.Stale {
				t.Error("the upstream is away, and the list is told as new")
			}
		}
		if n := mirrortest.Count(o.Transcript(), line); n != 1 {
			t.Errorf("away: the API is asked %d times", n)
		}
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || got.Stale {
			t.Errorf("without a wish the rules of the configuration stand: stale %v, %v", got.Stale, err)
		}
	})
}

func TestAClientThatWishesForANewTagGetsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.Image("app", "1", mirrortest.Bytes(1, 50))
		m := mirrortest.New(t, o, nil)
		ask := func(wish ...pull.Freshness) pull.Manifest {
			got, err := m.ManifestFor(t.Context(), mirrortest.App, "1", nil, wish...)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		ask()
		moved, _ := o.Image("app", "1", mirrortest.Bytes(2, 50))
		time.Sleep(time.Second)
		if got := ask(); got.Descriptor.Digest == moved.Digest {
			t.Error("without a wish the tag is fresh")
		}
		if got := ask(pull.NoOlderThan(0)); got.Descriptor.Digest != moved.Digest {
			t.Errorf("no-cache got the old manifest, %s", got.Outcome)
		}
		o.Transcript()
		ask(pull.NoOlderThan(0))
		mirrortest.WantTranscript(t, o)
		// A tag that did not exist.
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2"); !errors.Is(err, upstream.ErrNotFound) {
			t.Fatal(err)
		}
		o.Image("app", "2", mirrortest.Bytes(3, 50))
		time.Sleep(time.Second)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2"); !errors.Is(err, upstream.ErrNotFound) {
			t.Fatal(err)
		}
		if _, err := m.Manifest(t.Context(), mirrortest.App, "2", pull.NoOlderThan(0)); err != nil {
			t.Errorf("it is there now: %v", err)
		}
	})
}

// A wish for an older answer is not one for a new one: it may be granted with
// what was said a minute ago.
func TestAWishForAnOlderListDoesNotCountAsHavingAskedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sbom")
		m := mirrortest.New(t, o, nil)
		ask := func(wish pull.Freshness) string {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, wish)
			if err != nil || got.Stale {
				t.Errorf("stale %t, %v", got.Stale, err)
			}
			return fmt.Sprint(mirrortest.Types(got))
		}
		ask(pull.NoOlderThan(0))
		time.Sleep(2 * time.Minute)
		ask(pull.NoOlderThan(time.Minute)) // asks
		o.Attach(subject, "sig")
		time.Sleep(time.Second)
		if got := ask(pull.NoOlderThan(10 * time.Second)); got != "[sbom]" {
			t.Errorf("ten seconds will do, and it is %s", got)
		}
		if got := ask(pull.NoOlderThan(0)); got != "[sbom sig]" {
			t.Errorf("no-cache, a second after a max-age of a minute: %s", got)
		}
	})
}
