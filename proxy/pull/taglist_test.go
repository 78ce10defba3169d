package pull_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// lister is an upstream that lists tags as a test says.
type lister struct {
	*mirrortest.Origin
	tags func(page url.Values) (upstream.TagList, error)
	asks []string
}

func (l *lister) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	l.asks = append(l.asks, page.Encode())
	if ctx.Err() != nil {
		return upstream.TagList{}, ctx.Err()
	}
	return l.tags(page)
}

// took returns what was asked since the last call.
func (l *lister) took() []string {
	synctest.Wait()
	asks := l.asks
	l.asks = nil
	return asks
}

func newLister(t *testing.T, tags func(page url.Values) (upstream.TagList, error)) (*lister, mirrortest.Mirror) {
	t.Helper()
	l := &lister{Origin: mirrortest.NewOrigin(), tags: tags}
	return l, mirrortest.New(t, l.Origin, func(o *mirror.Options) { o.Upstreams[0].Registry = l })
}

func query(s string) url.Values {
	q, err := url.ParseQuery(s)
	if err != nil {
		panic(err)
	}
	return q
}

func listed(tags ...string) func(url.Values) (upstream.TagList, error) {
	return func(url.Values) (upstream.TagList, error) { return upstream.TagList{Tags: tags}, nil }
}

func away(url.Values) (upstream.TagList, error) { return upstream.TagList{}, upstream.ErrRefused }

// What clients really ask, and what is there when the upstream is away.
func TestWhatClientsHaveListedIsThereWhenTheUpstreamIsAway(t *testing.T) {
	all := []string{"a", "b", "c"}
	gitea := func(page url.Values) (upstream.TagList, error) { // F38: a Link on every list that is not empty
		if page.Get("last") == "c" {
			return upstream.TagList{Tags: []string{}}, nil
		}
		return upstream.TagList{Tags: all, Next: url.Values{"last": {"c"}, "n": {"50"}}}, nil
	}
	quay := func(page url.Values) (upstream.TagList, error) {
		switch page.Get("next_page") {
		case "":
			return upstream.TagList{Tags: all[:1], Next: query("n=1&next_page=x")}, nil
		case "x":
			return upstream.TagList{Tags: all[1:2], Next: query("n=1&next_page=y")}, nil
		}
		return upstream.TagList{Tags: all[2:]}, nil
	}
	for name, c := range map[string]struct {
		tags  func(url.Values) (upstream.TagList, error)
		asked []string // by a client, one after the other
	}{
		"helm":                           {listed(all...), []string{""}},
		"crane ls":                       {listed(all...), []string{"n=1000"}},
		"Renovate":                       {listed(all...), []string{"n=10000", "n=10000"}},
		"Gitea, and who follows Link":    {gitea, []string{"n=1000", "last=c&n=50"}},
		"Gitea, and who does not":        {gitea, []string{"n=1000"}},
		"a registry with pages, as Quay": {quay, []string{"n=1", "n=1&next_page=x", "n=1&next_page=y"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m := newLister(t, c.tags)
				for _, asked := range c.asked {
					if _, err := m.Tags(t.Context(), mirrortest.App, query(asked)); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				l.took()
				for _, age := range []time.Duration{0, 2 * time.Minute} { // fresh, and not
					time.Sleep(age)
					l.tags = away
					for asked, want := range map[string][]string{"": all, "n=1000": all, "n=2": all[:2], "last=a&n=1": all[1:2], "last=b": all[2:], "n=0": {}, "last=c": {}} {
						got, err := m.Tags(t.Context(), mirrortest.App, query(asked))
						if err != nil || !slices.Equal(got.Tags, want) || got.Stale != (age > 0) {
							t.Errorf("%q after %s: %v, stale %v, %v", asked, age, got.Tags, got.Stale, err)
						}
					}
				}
			})
		})
	}
}

func TestAListIsFreshForAsLongAsATag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newLister(t, listed("a", "b"))
		want := func(asks int, outcome pull.Outcome, tags ...string) {
			t.Helper()
			got, err := m.Tags(t.Context(), mirrortest.App, query("n=1000"))
			if took := l.took(); err != nil || !slices.Equal(got.Tags, tags) || len(took) != asks || got.Outcome != outcome {
				t.Errorf("%v, %s, %v, and the upstream was asked %q", got.Tags, got.Outcome, err, took)
			}
		}
		want(1, pull.Miss, "a", "b")
		l.tags = listed("c")
		time.Sleep(59 * time.Second)
		want(0, pull.Hit, "a", "b")
		time.Sleep(time.Second)
		want(1, pull.Miss, "c")
	})
}

func TestAnAbsentListIsRememberedAndForgetsTheCachedOne(t *testing.T) {
	for name, is := range map[string]error{"the repository": upstream.ErrNameUnknown, "something": upstream.ErrNotFound} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m := newLister(t, listed("a"))
				ask := func() (pull.Tags, error) { return m.Tags(t.Context(), mirrortest.App, nil) }
				if _, err := ask(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				l.took()
				l.tags = func(url.Values) (upstream.TagList, error) { return upstream.TagList{}, is }
				for range 3 {
					if _, err := ask(); !errors.Is(err, is) {
						t.Errorf("got %v", err)
					}
				}
				if took := l.took(); len(took) != 1 {
					t.Errorf("the upstream was asked %q", took)
				}
				time.Sleep(time.Minute)
				l.tags = away
				if got, err := ask(); !errors.Is(err, upstream.ErrUnavailable) {
					t.Errorf("the old list is back: %v, %v", got.Tags, err)
				}
				l.tags = listed("a")
				if got, err := ask(); err != nil || len(got.Tags) != 1 {
					t.Errorf("it is back: %v, %v", got.Tags, err)
				}
			})
		})
	}
}

// A list whose first page was asked for earlier may be complete later.
func TestAnOlderListDoesNotReplaceANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newLister(t, func(page url.Values) (upstream.TagList, error) {
			switch page.Encode() {
			case "n=1":
				return upstream.TagList{Tags: []string{"old"}, Next: query("last=old&n=1")}, nil
			case "last=old&n=1":
				return upstream.TagList{Tags: []string{"older"}, Next: query("last=older&n=1")}, nil
			case "last=older&n=1":
				return upstream.TagList{Tags: []string{}}, nil
			}
			return upstream.TagList{Tags: []string{"new"}}, nil
		})
		for _, asked := range []string{"n=1", "last=old&n=1", "", "last=older&n=1"} {
			if asked == "last=older&n=1" {
				time.Sleep(90 * time.Second) // the newer one is no longer fresh
			} else {
				time.Sleep(time.Second)
			}
			if _, err := m.Tags(t.Context(), mirrortest.App, query(asked)); err != nil {
				t.Fatal(err)
			}
		}
		l.tags = away
		if got, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil || fmt.Sprint(got.Tags) != "[new]" {
			t.Errorf("%v, %v", got.Tags, err)
		}
	})
}

// Decision: the specification's parameters go upstream, and those that the
// upstream's own Link has named.
func TestOnlyKnownParametersGoUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newLister(t, func(page url.Values) (upstream.TagList, error) {
			if page.Get("next_page") == "x" {
				return upstream.TagList{Tags: []string{"b"}, Next: query("next_page=y")}, nil
			}
			return upstream.TagList{Tags: []string{"a"}, Next: query("next_page=x")}, nil
		})
		for _, c := range []struct{ asked, sent string }{
			{"n=5&next_page=z&token=hush", "n=5"},
			{"next_page=z&token=hush", "next_page=z"},
			{"last=a&artifactType=x", "last=a"},
		} {
			if _, err := m.Tags(t.Context(), mirrortest.App, query(c.asked)); err != nil {
				t.Fatal(err)
			}
			if took := l.took(); took[0] != c.sent {
				t.Errorf("%s: the upstream was asked %q", c.asked, took)
			}
		}
	})
}

func TestAClientWaitsForAListOnlyAsLongAsForATag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newLister(t, listed("a"))
		if _, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		l.tags = func(url.Values) (upstream.TagList, error) {
			time.Sleep(8 * time.Second)
			return upstream.TagList{Tags: []string{"b"}}, nil
		}
		began := time.Now()
		got, err := m.Tags(t.Context(), mirrortest.App, nil)
		if took := time.Since(began); err != nil || !got.Stale || fmt.Sprint(got.Tags) != "[a]" || took > 2*time.Second {
			t.Errorf("%v, stale %v, %v after %s", got.Tags, got.Stale, err, took)
		}
		time.Sleep(8 * time.Second)
		if got, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil || got.Stale || fmt.Sprint(got.Tags) != "[b]" {
			t.Errorf("%v, stale %v, %v", got.Tags, got.Stale, err)
		}
	})
}

func TestAnOfflineMirrorListsTheTagsThatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		for i := range 4 {
			o.Image("app", fmt.Sprint("v", i), mirrortest.Bytes(byte(i), 50))
		}
		m := mirrortest.New(t, o, nil)
		for _, tag := range []string{"v2", "v1"} {
			if _, err := m.Manifest(t.Context(), mirrortest.App, tag); err != nil {
				t.Fatal(err)
			}
		}
		off := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records, opts.Rules.Offline = m.Blobs, m.Records, true
		})
		o.Transcript()
		got, err := off.Tags(t.Context(), mirrortest.App, query("n=1"))
		if err != nil || fmt.Sprint(got.Tags) != "[v1]" || got.Next.Encode() != "last=v1&n=1" || len(got.Warnings) != 1 || got.Stale {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err = off.Tags(t.Context(), mirrortest.App, nil); err != nil || fmt.Sprint(got.Tags) != "[v1 v2]" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := off.Tags(t.Context(), pull.Repository{Upstream: "hub", Name: "other"}, nil); !errors.Is(err, upstream.ErrNameUnknown) {
			t.Errorf("a repository of which nothing is there: %v", err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

// Issue 12, point 11, for lists of tags: what a mirror says that could not ask
// its own upstream is passed on with its warning, and refreshes nothing.
func TestAListOfAParentThatCouldNotAskRefreshesNothing(t *testing.T) {
	stale := func(next url.Values, tags ...string) func(url.Values) (upstream.TagList, error) {
		return func(url.Values) (upstream.TagList, error) {
			return upstream.TagList{Tags: tags, Next: next, Stale: true}, nil
		}
	}
	for name, c := range map[string]struct {
		before []string // a list of its own
		parent func(url.Values) (upstream.TagList, error)
		want   []string
		asks   []string
	}{
		"and nothing is kept":           {parent: stale(nil, "a"), want: []string{"a"}, asks: []string{"n=2"}},
		"and it has more pages":         {parent: stale(query("last=b&n=2"), "a", "b"), want: []string{"a", "b"}, asks: []string{"n=2"}},
		"and a list is kept":            {before: []string{"b", "c"}, parent: stale(nil, "a"), want: []string{"b", "c"}, asks: []string{"n=2"}},
		"and it is empty":               {before: []string{"b"}, parent: stale(nil), want: []string{"b"}, asks: []string{"n=2"}},
		"and it is empty, nothing kept": {parent: stale(nil), asks: []string{"n=2"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m := newLister(t, listed(c.before...))
				if c.before != nil {
					if _, err := m.Tags(t.Context(), mirrortest.App, nil); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * time.Minute)
				}
				l.took()
				l.tags = c.parent
				for range 2 { // and again: it is fresh for no time
					got, err := m.Tags(t.Context(), mirrortest.App, query("n=2"))
					if err != nil || !slices.Equal(got.Tags, c.want) || !got.Stale || got.Outcome != pull.Stale {
						t.Errorf("%v, stale: %t, %s, %v", got.Tags, got.Stale, got.Outcome, err)
					}
					if took := l.took(); !slices.Equal(took, c.asks) {
						t.Errorf("the upstream was asked %q, want %q", took, c.asks)
					}
				}
				l.tags = listed("d")
				if got, err := m.Tags(t.Context(), mirrortest.App, query("n=2")); err != nil || !slices.Equal(got.Tags, []string{"d"}) || got.Stale {
					t.Errorf("when it is back: %v, stale: %t, %v", got.Tags, got.Stale, err)
				}
			})
		})
	}
}

// A second page that a mirror remembers does not complete a first one.
func TestAStalePageCompletesNoList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := newLister(t, func(page url.Values) (upstream.TagList, error) {
			if page.Get("last") == "" {
				return upstream.TagList{Tags: []string{"a"}, Next: query("last=a&n=1")}, nil
			}
			return upstream.TagList{Tags: []string{"b"}, Stale: true}, nil
		})
		for _, asked := range []string{"n=1", "last=a&n=1"} {
			got, err := m.Tags(t.Context(), mirrortest.App, query(asked))
			if err != nil || got.Stale != (asked != "n=1") {
				t.Errorf("%s: stale: %t, %v", asked, got.Stale, err)
			}
			synctest.Wait()
		}
		l.tags = away
		if got, err := m.Tags(t.Context(), mirrortest.App, nil); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("it is kept: %v, %v", got.Tags, err)
		}
	})
}
