package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParseChallenges(t *testing.T) {
	for header, want := range map[string]challenge{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`: {"bearer", map[string]string{"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}},
		`Basic realm="x", Bearer realm="https://a/\"b",scope="a,b"`:                {"bearer", map[string]string{"realm": `https://a/"b`, "scope": "a,b"}},
		`BASIC realm=plain`:        {"basic", map[string]string{"realm": "plain"}},
		`Negotiate, Basic realm=x`: {"basic", map[string]string{"realm": "x"}},
	} {
		got, ok := chooseChallenge([]string{header})
		if !ok || got.scheme != want.scheme || len(got.params) != len(want.params) {
			t.Errorf("%s: got %+v, %v", header, got, ok)
		}
		for key, value := range want.params {
			if got.params[key] != value {
				t.Errorf("%s: %s is %q", header, key, got.params[key])
			}
		}
	}
	for _, header := range []string{"", "Negotiate", "Bearer", `realm="x"`} {
		if got, ok := chooseChallenge([]string{header}); ok {
			t.Errorf("%q: got %+v", header, got)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{`Bearer realm="https://a.b/c",service="d",scope="repository:x:pull"`, `Basic realm=x`, `Bearer realm="\`, `a=b, c`, `Bearer ,,, realm = "x"`, "Basic\trealm=\"\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for _, c := range parseChallenges(header) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("%q: scheme %q", header, c.scheme)
			}
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, seed := range []string{`</v2/x/tags/list?n=1&last=a>; rel="next"`, `<a>; rel=prev, <b>; rel=next`, `<`, `<>;rel="next"`, `<a>; rel="next`, `<http://[::1>; rel=next`, `a>; rel=next`, `xa>; rel="next"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		target, err := nextLink([]string{header})
		if strings.Count(header, `"`) == 1 && target != "" && strings.Index(header, ">") < strings.Index(header, `"`) && strings.Count(header, ",") == 0 {
			t.Errorf("%q: the quote is open, and the target %q", header, target)
		}
		if target != "" && !strings.Contains(header, "<") {
			t.Errorf("%q: the target %q of no link", header, target)
		}
		if err != nil && target != "" || target != "" && !strings.Contains(header, target) {
			t.Errorf("%q: target %q, %v", header, target, err)
		}
		if strings.Trim(header, " \t,") != "" && target == "" && err == nil && !strings.Contains(header, "<") {
			t.Errorf("%q is read as no link", header)
		}
	})
}

func TestNextLink(t *testing.T) {
	for header, want := range map[string]string{
		`</v2/x?last=a>; rel="next"`:   "/v2/x?last=a",
		`<a>; rel=prev, <b>; rel=next`: "b",
		`<c>; title="x"; REL=NEXT`:     "c",
		`<d,e>; rel="next"`:            "d,e",
		`<f>; rel="last"`:              "",
		``:                             "",
		` , ,`:                         "",
		`<g>; rel="last next"`:         "g",
		`<h>;rel="prev";rel="next"`:    "", // the first counts
		`<i>; title="\"; rel=\"next"; rel="prev"`: "",
		`<j>; crossorigin; rel="next"`:            "j",
		`<k>; rel = "next" , <l>; rel="next"`:     "k",
		`< m >; rel=next`:                         "m",
		`nothing`:                                 "?",
		`/v2/x?last=a; rel="next"`:                "?",
		`<n>`:                                     "?",
		`<o>; rel="next`:                          "?",
		`<p; rel="next"`:                          "?",
		`<>; rel="next"`:                          "?",
		`<q> rel="next"`:                          "?",
		`<r>; rel="prev", s; rel="next"`:          "?",
		`<t>; rel="next", what is this`:           "t",
	} {
		got, err := nextLink([]string{header})
		if err != nil {
			got = "?"
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-0/10", "bytes 0-10/10", "bytes -1-2/3", "bytes 0-9223372036854775807/9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		from, size, err := parseContentRange(header)
		if err != nil {
			if !errors.Is(err, ErrInvalidResponse) {
				t.Errorf("%q: %v", header, err)
			}
			return
		}
		if from < 0 || size >= 0 && from >= size {
			t.Errorf("%q: from %d of %d", header, from, size)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"7", "0", "-5", "99999999999", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {header}}})
		if got < time.Second || got > time.Hour {
			t.Errorf("%q: %s", header, got)
		}
	})
}

func FuzzSaid(f *testing.F) {
	for _, seed := range []string{
		`{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}`, `{"errors":[{"code":7,"message":null}]}`, `{"errors":[]}`, `{"errors":{}}`,
		"<html>", "default backend - 404", "", "\x00", `{"errors":[{"message":"a\nb"}]}`,
	} {
		f.Add(404, "application/json", seed)
		f.Add(403, "text/plain; charset=utf-8", seed)
	}
	f.Fuzz(func(t *testing.T, status int, mediaType, body string) {
		s := readFailure(&http.Response{StatusCode: status, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(strings.NewReader(body))})
		if strings.ContainsAny(s.String(), "\r\n\x00") || len(s.message) > 1000 {
			t.Errorf("%q: %q", body, s)
		}
		if s.form != formRegistry && (s.code != "" || s.message != "") {
			t.Errorf("%q: %+v", body, s)
		}
	})
}

func FuzzLists(f *testing.F) {
	for _, seed := range []string{
		`{"tags":["1"]}`, `{"tags":null}`, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"abc"}]}`,
		`{"schemaVersion":2,"manifests":null}`, `null`, `[]`, `{"manifests":[null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if tags, err := parseTags(body); err == nil && tags == nil || err != nil && !errors.Is(err, ErrInvalidResponse) {
			t.Errorf("%q: tags %v, %v", body, tags, err)
		}
		if all, err := parseReferrers("application/vnd.oci.image.index.v1+json", body); err != nil && !errors.Is(err, ErrInvalidResponse) {
			t.Errorf("%q: referrers %v, %v", body, all, err)
		}
	})
}
