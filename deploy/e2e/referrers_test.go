package e2e

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// longest is how long a client is waited for.
	longest = 75 * time.Second
	// slower is how much longer a client may take through the mirror than
	// straight: it waits 5 s at most for what the API says, and this test's
	// machine is busy.
	slower = 8 * time.Second
)

// TestReferrers has clients ask about referrers whatever a registry says to
// that, straight and through the mirror. Nothing hangs on an image that could
// keep it from coming, and what is listed straight is never said to be absent.
func TestReferrers(t *testing.T) {
	s := newSuite(t)
	key := newReferringKey(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!DOCTYPE html><html><head><title>Sign in</title></head></html>"))
	}))
	t.Cleanup(page.Close)

	var all []*inquiry
	for _, k := range askers {
		for _, api := range apiSays {
			for _, tag := range tagSays {
				for _, w := range k.ways() {
					k.all = append(k.all, &inquiry{
						api: api, tag: tag, way: w, upstream: fmt.Sprintf("r%d.example", len(all)),
						registry: newReferring(t, key, len(all), page.URL+"/sign-in", api, tag),
					})
					all = append(all, k.all[len(k.all)-1])
				}
			}
		}
	}
	m := s.newReferrersMirror(t)
	m.configureReferrers(t, all, "freshness: {tag_ttl: 1h, referrers_ttl: 1h, negative_ttl: 1h}\n")
	m.start(t)
	for _, k := range askers {
		k.ask = k.ready(t, s, m, key, k.all)
	}
	askAll(t.Context())

	var violations []string
	for _, k := range askers {
		violations = append(violations, k.violations()...)
	}
	text := s.referrersPage(t)
	t.Log("\n" + text)
	if len(violations) > 0 {
		t.Errorf("%d times something is not as it must be:\n%s", len(violations), strings.Join(violations, "\n"))
	}
	put(t, "referrers", text)
}

// askAll asks all there is to ask. Who waits for a slow registry, or tries again
// and again, waits beside the others, who work, a few at once.
func askAll(ctx context.Context) {
	var running sync.WaitGroup
	for _, waits := range []bool{true, false} {
		places := make(chan struct{}, 6)
		if waits {
			places = make(chan struct{}, 100)
		}
		running.Go(func() {
			for k, a := range everything() {
				if k.waits(a) != waits {
					continue
				}
				places <- struct{}{}
				running.Go(func() {
					defer func() { <-places }()
					k.attempt(ctx, a)
				})
				if waits {
					time.Sleep(50 * time.Millisecond) // Not all at the same moment.
				}
			}
		})
	}
	running.Wait()
}

// everything is what all askers ask, of the slowest registries first, and by the
// most patient clients first.
func everything() iter.Seq2[*asker, *inquiry] {
	return func(yield func(*asker, *inquiry) bool) {
		for _, slow := range []bool{true, false} {
			for _, k := range slices.Backward(askers) {
				for _, a := range k.all {
					if (a.api.name == hangs) == slow && !yield(k, a) {
						return
					}
				}
			}
		}
	}
}

// waits says that the client waits more than it works.
func (k *asker) waits(a *inquiry) bool {
	for _, say := range []said{a.api, a.tag} {
		switch say.name {
		case hangs:
			return true
		case "429", "502", "504":
			if k.triesAgain {
				return true
			}
		}
	}
	return false
}

// attempt asks once straight, and twice through the mirror: the first time, and
// with the image kept, from another node. That comes before the mirror begins to
// learn in the background what else there is to know of the image.
func (k *asker) attempt(ctx context.Context, a *inquiry) {
	for node := range 2 {
		if node > 0 && a.way == straight {
			return
		}
		limited, stop := context.WithTimeout(ctx, longest)
		begin := time.Now()
		v, err := k.ask(limited, node, a)
		took := time.Since(begin)
		stop()
		a.attempts = append(a.attempts, attempt{v, err, took, a.registry.questions()})
	}
}

// violations are the cells that are not as they must be.
func (k *asker) violations() []string {
	var all []string
	complain := func(a *inquiry, n int, format string, args ...any) {
		when := [...]string{"the first time", "with the image kept"}[n]
		all = append(all, fmt.Sprintf("%s, API: %s, tag: %s, %s, %s: %s", k.name, a.api.name, a.tag.name, a.way, when, fmt.Sprintf(format, args...)))
	}
	for _, a := range k.all {
		if a.way == straight {
			continue
		}
		want := k.straight(a)
		works := k.works(want.verdict) && (k.pulls || want.verdict == toldSome || truth(a.api, a.tag) == toldNone)
		for n, got := range a.attempts {
			switch {
			case works && got.verdict == untold:
				complain(a, n, "straight it works, through it fails: %v", oneLine(got.err))
			case want.verdict == toldSome && got.verdict == toldNone:
				complain(a, n, "straight they are listed, through there are none")
			case !k.pulls && k.works(toldNone) && want.verdict == untold && got.verdict == toldNone && truth(a.api, a.tag) != toldNone:
				complain(a, n, "straight it fails, through there are none, which nobody has said")
			}
			if works && got.took > want.took+slower {
				complain(a, n, "straight it takes %s, through %s", want.took.Round(100*time.Millisecond), got.took.Round(100*time.Millisecond))
			}
		}
	}
	return all
}

// straight is the attempt that went past the mirror to a registry that says the
// same.
func (k *asker) straight(a *inquiry) attempt {
	for _, other := range k.all {
		if other.way == straight && other.api.name == a.api.name && other.tag.name == a.tag.name {
			return other.attempts[0]
		}
	}
	return attempt{}
}

func oneLine(err error) string {
	text := strings.Join(strings.Fields(fmt.Sprint(err)), " ")
	return text[max(0, len(text)-300):]
}
