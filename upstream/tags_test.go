package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream"
)

// W48: ECR takes no n above 1,000, and names its next page in words of its own.
func TestMoreTagsThanARegistryGivesAtOnce(t *testing.T) {
	for _, refusal := range []int{http.StatusMethodNotAllowed, http.StatusBadRequest} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			n, err := strconv.Atoi(q.Get("n"))
			if err != nil || n > 1000 {
				say(w, refusal, "application/json", `{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at 'maxResults'"}]}`)
				return
			}
			from, _ := strconv.Atoi(strings.TrimPrefix(q.Get("next_token"), "t"))
			to := min(from+n, 3300)
			if from == 1000 {
				w.Header().Set("Warning", `110 - "Response is Stale"`) // a part of it
			}
			var tags []string
			for i := from; i < to; i++ {
				tags = append(tags, fmt.Sprintf(`"%04d"`, i))
			}
			if to < 3300 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?n=%d&next_token=t%d>; rel="next"`, n, to))
			}
			say(w, http.StatusOK, "application/json", `{"name":"app","tags":[`+strings.Join(tags, ",")+`]}`)
		})
		r := remote(t, s.URL, nil)
		all, err := r.Tags(t.Context(), "app", url.Values{"n": {"10000"}})
		if err != nil || len(all.Tags) != 3300 || all.Tags[3299] != "3299" || all.Next != nil || !all.Stale {
			t.Errorf("all: %d tags, next %v, stale: %t, %v", len(all.Tags), all.Next, all.Stale, err)
		}
		s.transcript()
		first, err := r.Tags(t.Context(), "app", url.Values{"n": {"1500"}})
		if err != nil || len(first.Tags) != 1500 || first.Next.Get("n") != "1500" {
			t.Fatalf("a page: %d tags, next %v, %v", len(first.Tags), first.Next, err)
		}
		s.wantAsked(t, "GET /v2/app/tags/list?n=1000", "GET /v2/app/tags/list?n=500&next_token=t1000") // what it takes is known
		got := first.Tags
		for next := first.Next; next != nil; {
			page, err := r.Tags(t.Context(), "app", next)
			if err != nil {
				t.Fatal(err)
			}
			got, next = append(got, page.Tags...), page.Next
		}
		if len(got) != 3300 || got[1500] != "1500" {
			t.Errorf("page by page: %d tags", len(got))
		}
	}
}

func TestAListOfTagsIsAListOrNothingIsKnown(t *testing.T) {
	for body, sound := range map[string]bool{
		`{"tags":["1"]}`: true, `{"tags":[]}`: true, `{"name":"app","tags":null}`: true, // F33
		`{}`: false, `[]`: false, ``: false, `{"errors":[]}`: false, `{"tags":"1"}`: false, `<html>`: false, `null`: false,
		`{"tags":["` + strings.Repeat("t", 255) + `"]}`: true, `{"tags":["1","` + strings.Repeat("t", 256) + `"]}`: false,
		`{"tags":["1"]` + strings.Repeat(" ", 15<<20) + `}`: true, `{"tags":["1"]` + strings.Repeat(" ", 16<<20) + `}`: false,
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "application/json", body) })
		if list, err := remote(t, s.URL, nil).Tags(t.Context(), "app", nil); (err == nil) != sound || err != nil && !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("%.300s: %v, %v", body, list, err)
		}
	}
}

// The registry takes no n above 1,000, so that a page for a client is made of several.
func TestAListOfTagsThatNeverEndsCostsFewRequests(t *testing.T) {
	for name, c := range map[string]struct {
		next  func(page int) string
		tags  func(page int) string
		most  int // requests
		fails bool
	}{
		"always something new": {
			next: func(page int) string { return fmt.Sprintf("t%d", page+1) },
			tags: func(page int) string { return fmt.Sprintf(`"%d"`, page) },
			most: 20 + 1,
		},
		"always the same": {
			next: func(page int) string { return fmt.Sprintf("t%d", page+1) },
			tags: func(int) string { return `"1"` },
			most: 20 + 1,
		},
		"a circle": {
			next: func(page int) string { return fmt.Sprintf("t%d", (page+1)%3) },
			tags: func(page int) string { return fmt.Sprintf(`"%d"`, page) },
			most: 4 + 1, fails: true,
		},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if n, err := strconv.Atoi(q.Get("n")); err != nil || n > 1000 {
				say(w, http.StatusBadRequest, "application/json", `{"errors":[{"code":"UNSUPPORTED"}]}`)
				return
			}
			page, _ := strconv.Atoi(strings.TrimPrefix(q.Get("token"), "t"))
			w.Header().Set("Link", `</v2/app/tags/list?n=1000&token=`+c.next(page)+`>; rel="next"`)
			say(w, http.StatusOK, "application/json", `{"tags":[`+c.tags(page)+`]}`)
		})
		list, err := remote(t, s.URL, nil).Tags(t.Context(), "app", url.Values{"n": {"9000"}})
		if asked := len(s.transcript()); asked > c.most {
			t.Errorf("%s: %d requests for one page", name, asked)
		}
		switch {
		case c.fails && !errors.Is(err, upstream.ErrInvalidResponse):
			t.Errorf("%s: %d tags, %v", name, len(list.Tags), err)
		case !c.fails && (err != nil || len(list.Tags) != 20 || list.Next.Get("token") != "t20" || list.Next.Get("n") != "9000"):
			t.Errorf("%s: %d tags, then %v, %v", name, len(list.Tags), list.Next, err)
		}
	}
}
