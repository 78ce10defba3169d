package pull_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// oldPages is a registry whose list has many pages, of which the first was read
// a while ago, for another question (upstream.ReferrersList.At).
type oldPages struct {
	*mirrortest.Origin
	age time.Duration
}

func (o *oldPages) Referrers(ctx context.Context, repo string, subject pull.Digest) (upstream.ReferrersList, error) {
	list, err := o.Origin.Referrers(ctx, repo, subject)
	list.At = list.At.Add(-o.age)
	return list, err
}

// Decision 9, 12.14: a list is as old as its first page, which is kept while the
// others are read. What is older than a client wishes is stale to that client,
// and to who wishes the same while the upstream is not asked anew.
func TestAListWhoseFirstPageIsOlderThanAWishIsStale(t *testing.T) {
	for name, c := range map[string]struct {
		age, wish time.Duration
		stale     bool
	}{
		"the first page was read for another client":   {3 * time.Minute, 0, true},
		"longer ago than two mirrors may have kept it": {10*time.Second + time.Millisecond, 0, true},
		"as long ago as two mirrors may have kept it":  {10 * time.Second, 0, false},
		"a list as old as that will do":                {3 * time.Minute, 3 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &oldPages{mirrortest.NewOrigin(), c.age}
				o.API = true
				subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
				o.Attach(subject, "sig")
				m := mirrortest.New(t, o.Origin, func(opts *mirror.Options) { opts.Upstreams[0].Endpoints = []upstream.Endpoint{o} })
				ask := func(when string, stale bool, wish ...pull.Freshness) {
					t.Helper()
					got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, wish...)
					if err != nil || len(got.Manifests) != 1 && got.List.IsZero() || got.Stale != stale || stale != (got.Outcome == pull.Stale) {
						t.Errorf("%s: stale %t, want %t; %s, %v", when, got.Stale, stale, got.Outcome, err)
					}
				}
				ask("who has it asked", c.stale, pull.NoOlderThan(c.wish))
				time.Sleep(time.Second)
				ask("who wishes the same a second later", c.stale, pull.NoOlderThan(c.wish))
				if n := mirrortest.Count(o.Transcript(), "GET referrers app "+mirrortest.Short(subject.Digest.String())); n != 1 {
					t.Errorf("the API is asked %d times", n)
				}
				ask("who wishes nothing: the rules of the configuration stand", false)
			})
		})
	}
}

// The rule of issue 12: what an upstream said before referrers_ttl is no answer
// of now, also to who wishes nothing.
func TestAListThatIsOlderThanItMayBeIsStaleToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oldPages{mirrortest.NewOrigin(), time.Minute}
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sig")
		m := mirrortest.New(t, o.Origin, func(opts *mirror.Options) {
			opts.Upstreams[0].Endpoints, opts.Rules.ReferrersTTL = []upstream.Endpoint{o}, 45*time.Second
		})
		for range 2 {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest)
			if err != nil || len(got.Manifests) != 1 || !got.Stale || got.Outcome != pull.Stale {
				t.Errorf("%+v, %v", got, err)
			}
		}
		o.age = 0
		if got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest); err != nil || len(got.Manifests) != 1 || got.Stale {
			t.Errorf("read anew: %+v, %v", got, err)
		}
	})
}

// Who joins another client's lookup has a second one made, whose list may have
// begun as long ago.
func TestAnOldFirstPageIsStaleToWhoJoinsAnothersLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &oldPages{mirrortest.NewOrigin(), time.Minute}
		o.API = true
		subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
		o.Attach(subject, "sig")
		line := "GET referrers app " + mirrortest.Short(subject.Digest.String())
		release := o.Hold(line)
		m := mirrortest.New(t, o.Origin, func(opts *mirror.Options) { opts.Upstreams[0].Endpoints = []upstream.Endpoint{o} })
		answers := make(chan pull.Referrers, 2)
		ask := func(wish ...pull.Freshness) {
			got, err := m.Referrers(t.Context(), mirrortest.App, subject.Digest, wish...)
			if err != nil {
				t.Error(err)
			}
			answers <- got
		}
		go ask()
		synctest.Wait()
		go ask(pull.NoOlderThan(0))
		synctest.Wait()
		release()
		stale := map[bool]int{}
		for range 2 {
			stale[(<-answers).Stale]++
		}
		if stale[true] != 1 || stale[false] != 1 {
			t.Errorf("%d are told a stale list, want who wished a new one", stale[true])
		}
		if n := mirrortest.Count(o.Transcript(), line); n != 2 {
			t.Errorf("the API is asked %d times, want once for each", n)
		}
	})
}
