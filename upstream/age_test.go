package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

func TestAnAnswerIsAsOldAsItsAge(t *testing.T) {
	for age, want := range map[string]time.Duration{
		"": 0, "0": 0, "40": 40 * time.Second, " 40 ": 40 * time.Second, "40, 7": 40 * time.Second,
		"-1": 0, "soon": 0, "1.5": 0, "99999999999999999999": (1<<31 - 1) * time.Second,
	} {
		fake, subject := attached(t, 2)
		fake.Always("referrers", upstreamtest.WithHeader("Age", age))
		fake.Always("manifests", upstreamtest.WithHeader("Age", age))
		r := remote(t, fake.URL(), nil)
		is := func(what string, said time.Time) {
			t.Helper()
			if got := time.Since(said) - want; got < 0 || got > time.Minute {
				t.Errorf("Age %q, %s: said %s ago, want %s", age, what, time.Since(said), want)
			}
		}
		list, err := r.Referrers(t.Context(), "app", subject.Digest)
		if err != nil {
			t.Fatal(err)
		}
		is("a list", list.At)
		for _, tag := range []string{"1", "none"} {
			ctx := upstream.WithMaxAge(t.Context(), time.Minute)
			if said := upstream.SaidAt(ctx); !said.IsZero() {
				t.Errorf("said at %s, and nobody was asked", said)
			}
			if _, err := r.Resolve(ctx, "app", tag); err != nil && !errors.Is(err, upstream.ErrNotFound) {
				t.Fatal(err)
			}
			is("the tag "+tag, upstream.SaidAt(ctx))
		}
		if said := upstream.SaidAt(t.Context()); !said.IsZero() {
			t.Errorf("said at %s, and nobody wants to know", said)
		}
	}
}

func TestARequestSaysHowOldItsAnswerMayBe(t *testing.T) {
	var asked []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Cache-Control"))
		say(w, 200, indexType, `{"schemaVersion":2,"manifests":[]}`)
	})
	r := remote(t, s.URL, nil)
	for _, most := range []time.Duration{-time.Second, 0, 900 * time.Millisecond, 299900 * time.Millisecond} {
		if _, err := r.Referrers(upstream.WithMaxAge(t.Context(), most), "app", noSubject); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Referrers(t.Context(), "app", noSubject); err != nil {
		t.Fatal(err)
	}
	if want := []string{"max-age=0", "max-age=0", "max-age=0", "max-age=299", ""}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked with %q, want %q", asked, want)
	}
}
