package proxy

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/entrepot/entrepot/proxy/pull"
)

func TestW11LinksAreInTheClientsOwnForm(t *testing.T) {
	f := newFace(t, script{tags: func(repo pull.Repository, page url.Values) (pull.Tags, error) {
		if repo != (pull.Repository{Upstream: "ghcr.io", Name: "org/app"}) || page.Encode() != "last=a&n=2" {
			t.Errorf("asked %s for %s", repo, page.Encode())
		}
		return pull.Tags{Tags: []string{"b", "c"}, Next: url.Values{"n": {"2"}, "last": {"c"}}, Outcome: pull.Miss}, nil
	}})
	for _, c := range []struct{ name, host, target, repository, link string }{
		{"a prefix", "mirror.test", "/v2/ghcr.io/org/app/tags/list?n=2&last=a", "ghcr.io/org/app", `</v2/ghcr.io/org/app/tags/list?last=c&n=2>; rel="next"`},
		{"ns", "mirror.test", "/v2/org/app/tags/list?ns=ghcr.io&n=2&last=a", "org/app", `</v2/org/app/tags/list?last=c&n=2&ns=ghcr.io>; rel="next"`},
		{"ns and prefix", "mirror.test", "/v2/ghcr.io/org/app/tags/list?ns=ghcr.io&n=2&last=a", "ghcr.io/org/app", `</v2/ghcr.io/org/app/tags/list?last=c&n=2&ns=ghcr.io>; rel="next"`},
		{"a virtual host", "ghcr.mirror.test", "/v2/org/app/tags/list?n=2&last=a", "org/app", `</v2/org/app/tags/list?last=c&n=2>; rel="next"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.do(http.MethodGet, c.target, "Host", c.host)
			if want := `{"name":"` + c.repository + `","tags":["b","c"]}`; got.status != http.StatusOK || string(got.body) != want {
				t.Errorf("%d %s", got.status, got.body)
			}
			got.wantHeader(t, "Link", c.link, "Content-Type", "application/json", "Warning", "")
		})
	}
}

func TestNoTagsAreAnEmptyList(t *testing.T) {
	f := newFace(t, script{tags: func(pull.Repository, url.Values) (pull.Tags, error) {
		return pull.Tags{Stale: true, Outcome: pull.Stale}, nil
	}})
	got := f.do(http.MethodGet, "/v2/app/tags/list")
	if got.status != http.StatusOK || string(got.body) != `{"name":"app","tags":[]}` {
		t.Errorf("%d %s", got.status, got.body)
	}
	got.wantHeader(t, "Link", "", "Warning", staleWarning)
	if head := f.do(http.MethodHead, "/v2/app/tags/list"); head.status != http.StatusOK || head.length != got.length || len(head.body) > 0 {
		t.Errorf("HEAD: %d with length %d", head.status, head.length)
	}
}
