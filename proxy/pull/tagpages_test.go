package pull_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestTagListsAreCollectedFromPages(t *testing.T) {
	next := func(last string) url.Values { return url.Values{"n": {"2"}, "last": {last}} }
	type step struct {
		asked url.Values
		tags  []string
		next  url.Values
	}
	for name, c := range map[string]struct {
		steps []step
		whole []string
	}{
		"one page":                                    {[]step{{nil, []string{"a"}, nil}}, []string{"a"}},
		"one page that is not full":                   {[]step{{url.Values{"n": {"2"}}, []string{"a"}, nil}}, []string{"a"}},
		"more than were asked for":                    {[]step{{url.Values{"n": {"2"}}, []string{"c", "a", "b"}, nil}}, []string{"c", "a", "b"}},
		"a full page without a next":                  {[]step{{url.Values{"n": {"2"}}, []string{"a", "b"}, nil}}, nil},
		"two pages":                                   {[]step{{url.Values{"n": {"2"}}, []string{"a", "b"}, next("b")}, {next("b"), []string{"c"}, nil}}, []string{"a", "b", "c"}},
		"an empty page at the end":                    {[]step{{url.Values{"n": {"2"}}, []string{"a", "b"}, next("b")}, {next("b"), nil, nil}}, []string{"a", "b"}},
		"a full page, and nothing after its last tag": {[]step{{url.Values{"n": {"2"}}, []string{"a", "b"}, nil}, {next("b"), nil, nil}}, []string{"a", "b"}},
		"clients that choose n":                       {[]step{{url.Values{"n": {"2"}}, []string{"a", "b"}, next("b")}, {url.Values{"n": {"9"}, "last": {"b"}}, []string{"c"}, nil}}, []string{"a", "b", "c"}},
		"none are asked for":                          {[]step{{url.Values{"n": {"0"}}, nil, nil}}, nil},
		"no tags":                                     {[]step{{nil, []string{}, nil}}, []string{}},
		"a name for the next page":                    {[]step{{nil, []string{"a"}, url.Values{"next_page": {"x"}}}, {url.Values{"next_page": {"x"}}, []string{"b"}, nil}}, []string{"a", "b"}},
		"a page without the first":                    {[]step{{next("b"), []string{"c"}, nil}}, nil},
		"a first page with more to go":                {[]step{{nil, []string{"a"}, next("a")}}, nil},
	} {
		l := pull.NewLists()
		var all []string
		var whole bool
		for _, s := range c.steps {
			all, whole = l.Page(mirrortest.App, s.asked, upstream.TagList{Tags: s.tags, Next: s.next})
		}
		if whole != (c.whole != nil) || whole && !slices.Equal(all, c.whole) {
			t.Errorf("%s: %v, whole: %v", name, all, whole)
		}
		if _, whole := l.Page(pull.Repository{Upstream: "hub", Name: "other"}, next("b"), upstream.TagList{}); whole {
			t.Errorf("%s: the pages of one repository are those of another", name)
		}
	}
}

// However many lists begin with large pages, what is held of them is bounded. The
// last that began is continued.
func TestTheBeginningsOfLongListsAreBounded(t *testing.T) {
	next := url.Values{"last": {"z"}}
	for size, want := range map[int][2]bool{1000: {true, true}, 100_000: {false, true}} {
		long := make([]string, size)
		for i := range long {
			long[i] = fmt.Sprintf("%0128d", i)
		}
		l := pull.NewLists()
		of := func(i int) pull.Repository { return pull.Repository{Upstream: "hub", Name: fmt.Sprint("app", i)} }
		for i := range 5 {
			l.Page(of(i), nil, upstream.TagList{Tags: long, Next: next})
		}
		_, first := l.Page(of(0), next, upstream.TagList{})
		_, last := l.Page(of(4), next, upstream.TagList{})
		if got := [2]bool{first, last}; got != want {
			t.Errorf("with %d tags in each, the first and the last are continued: %v, want %v", size, got, want)
		}
	}
}

// F33: the pages of a list with repeated tags must come to an end.
func TestACachedTagListWithRepeatedTagsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		m.Ledger.PutTagList(mirrortest.App, []string{"v2", "1", "v10", "1", "v1"})
		o.Fail("*", upstream.ErrRefused)
		var all []string
		page := url.Values{"n": {"2"}}
		for range 10 {
			got, err := m.Tags(t.Context(), mirrortest.App, page)
			if err != nil || !got.Stale {
				t.Fatalf("%v, %v", got, err)
			}
			all = append(all, got.Tags...)
			if page = got.Next; page == nil {
				break
			}
		}
		if page != nil || !slices.Equal(all, []string{"v2", "1", "v10", "v1"}) {
			t.Errorf("%v, and then %v", all, page)
		}
	})
}
