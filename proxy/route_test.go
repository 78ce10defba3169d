package proxy

import (
	"bufio"
	"cmp"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

const (
	sha256OfNothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	sha512OfNothing = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// request reads what a client sends, as net/http does.
func request(t *testing.T, method, target, host string) *http.Request {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestRouteNamesAnUpstreamInFourForms(t *testing.T) {
	routes := newRoutes(upstreamsForTests())
	for _, c := range []struct {
		name, host, target string
		kind               kind
		repo, ref          string // of the upstream
		asked, ns          string
	}{
		{"the ping", "mirror.test", "/v2/", kindPing, "/", "", "", ""},
		{"the ping without a slash", "mirror.test", "/v2", kindPing, "/", "", "", ""},
		{"F13: the ping below a prefix", "mirror.test", "/v2/ghcr.io/", kindPing, "ghcr.io/", "", "", ""},
		{"the ping below a prefix without a slash", "mirror.test", "/v2/ghcr.io", kindPing, "ghcr.io/", "", "", ""},
		{"the ping below a prefix with ns", "mirror.test", "/v2/ghcr.io/?ns=ghcr.io", kindPing, "ghcr.io/", "", "", "ghcr.io"},
		{"the ping below an alias with a port, in capitals", "mirror.test", "/v2/Registry.test_5000/", kindPing, "registry.test:5000/", "", "", ""},
		{"a virtual host", "ghcr.mirror.test", "/v2/org/app/manifests/1", kindManifest, "ghcr.io/org/app", "1", "org/app", ""},
		{"a virtual host with a port and capitals", "GHCR.mirror.test:5000", "/v2/org/app/manifests/1", kindManifest, "ghcr.io/org/app", "1", "org/app", ""},
		{"ns before a virtual host", "ghcr.mirror.test", "/v2/org/app/manifests/1?ns=docker.io", kindManifest, "docker.io/org/app", "1", "org/app", "docker.io"},
		{"ns before a virtual host, with the prefix of ns", "ghcr.mirror.test", "/v2/docker.io/org/app/manifests/1?ns=docker.io", kindManifest, "docker.io/org/app", "1", "docker.io/org/app", "docker.io"},
		{"ns and a virtual host that agree", "ghcr.mirror.test", "/v2/org/app/manifests/1?ns=ghcr.io", kindManifest, "ghcr.io/org/app", "1", "org/app", "ghcr.io"},
		{"an empty ns at a virtual host is none", "ghcr.mirror.test", "/v2/org/app/manifests/1?ns=", kindManifest, "ghcr.io/org/app", "1", "org/app", ""},
		{"ns that is a virtual host", "mirror.test", "/v2/org/app/manifests/1?ns=ghcr.mirror.test", kindManifest, "ghcr.io/org/app", "1", "org/app", "ghcr.mirror.test"},
		{"ns that is the virtual host with a port", "ghcr.mirror.test:5000", "/v2/org/app/manifests/1?ns=ghcr.mirror.test:5000", kindManifest, "ghcr.io/org/app", "1", "org/app", "ghcr.mirror.test:5000"},
		{"a virtual host with its own prefix", "ghcr.mirror.test", "/v2/ghcr.io/org/app/manifests/1", kindManifest, "ghcr.io/org/app", "1", "ghcr.io/org/app", ""},
		{"ns", "mirror.test", "/v2/org/app/manifests/1?ns=ghcr.io", kindManifest, "ghcr.io/org/app", "1", "org/app", "ghcr.io"},
		{"ns with a port", "mirror.test", "/v2/app/manifests/1?ns=registry.test:5000", kindManifest, "registry.test:5000/app", "1", "app", "registry.test:5000"},
		{"ns with capitals", "mirror.test", "/v2/app/manifests/1?ns=GHCR.io", kindManifest, "ghcr.io/app", "1", "app", "GHCR.io"},
		{"ns by an alias", "mirror.test", "/v2/library/alpine/manifests/3?ns=index.docker.io", kindManifest, "docker.io/library/alpine", "3", "library/alpine", "index.docker.io"},
		{"an empty ns is none", "mirror.test", "/v2/ghcr.io/org/app/manifests/1?ns=", kindManifest, "ghcr.io/org/app", "1", "ghcr.io/org/app", ""},
		{"ns and prefix: the prefix is stripped once", "mirror.test", "/v2/ghcr.io/org/app/manifests/1?ns=ghcr.io", kindManifest, "ghcr.io/org/app", "1", "ghcr.io/org/app", "ghcr.io"},
		{"ns and an alias as prefix", "mirror.test", "/v2/index.docker.io/library/alpine/manifests/3?ns=docker.io", kindManifest, "docker.io/library/alpine", "3", "index.docker.io/library/alpine", "docker.io"},
		{"ns and the prefix twice: once", "mirror.test", "/v2/ghcr.io/ghcr.io/app/manifests/1?ns=ghcr.io", kindManifest, "ghcr.io/ghcr.io/app", "1", "ghcr.io/ghcr.io/app", "ghcr.io"},
		{"ns before another upstream's name", "mirror.test", "/v2/docker.io/app/manifests/1?ns=ghcr.io", kindManifest, "ghcr.io/docker.io/app", "1", "docker.io/app", "ghcr.io"},
		{"a prefix", "mirror.test", "/v2/ghcr.io/org/app/blobs/" + sha256OfNothing, kindBlob, "ghcr.io/org/app", sha256OfNothing, "ghcr.io/org/app", ""},
		{"a prefix with a port", "mirror.test", "/v2/registry.test:5000/app/manifests/1", kindManifest, "registry.test:5000/app", "1", "registry.test:5000/app", ""},
		{"a prefix with a port behind an underscore", "mirror.test", "/v2/registry.test_5000/app/manifests/1", kindManifest, "registry.test:5000/app", "1", "registry.test_5000/app", ""},
		{"a prefix as Homebrew wrote it", "mirror.test", "/v2/ghcr.io/v2/homebrew/core/wget/blobs/" + sha256OfNothing, kindBlob, "ghcr.io/homebrew/core/wget", sha256OfNothing, "ghcr.io/v2/homebrew/core/wget", ""},
		{"a repository of a user named v2", "mirror.test", "/v2/ghcr.io/v2/app/manifests/1", kindManifest, "ghcr.io/v2/app", "1", "ghcr.io/v2/app", ""},
		{"the default", "mirror.test", "/v2/org/app/manifests/1", kindManifest, "docker.io/org/app", "1", "org/app", ""},
		{"a name of one word on docker.io", "mirror.test", "/v2/alpine/manifests/3", kindManifest, "docker.io/library/alpine", "3", "alpine", ""},
		{"a name of one word behind docker.io's prefix", "mirror.test", "/v2/docker.io/alpine/tags/list", kindTags, "docker.io/library/alpine", "", "docker.io/alpine", ""},
		{"a name of one word elsewhere", "mirror.test", "/v2/app/manifests/3?ns=ghcr.io", kindManifest, "ghcr.io/app", "3", "app", "ghcr.io"},
		{"a digest", "mirror.test", "/v2/org/app/manifests/" + sha256OfNothing, kindManifest, "docker.io/org/app", sha256OfNothing, "org/app", ""},
		{"W7: a sha512 digest", "mirror.test", "/v2/org/app/blobs/" + sha512OfNothing, kindBlob, "docker.io/org/app", sha512OfNothing, "org/app", ""},
		{"a digest whose colon is escaped", "mirror.test", "/v2/org/app/blobs/" + strings.Replace(sha256OfNothing, ":", "%3A", 1), kindBlob, "docker.io/org/app", sha256OfNothing, "org/app", ""},
		{"referrers", "mirror.test", "/v2/org/app/referrers/" + sha256OfNothing + "?artifactType=a", kindReferrers, "docker.io/org/app", sha256OfNothing, "org/app", ""},
		{"tags", "mirror.test", "/v2/org/app/tags/list?n=10&last=x", kindTags, "docker.io/org/app", "", "org/app", ""},
		{"the name has an endpoint's words in it", "mirror.test", "/v2/org/manifests/blobs/manifests/1", kindManifest, "docker.io/org/manifests/blobs", "1", "org/manifests/blobs", ""},
		{"uploads as a part of a name", "mirror.test", "/v2/org/blobs/uploads/app/manifests/1", kindManifest, "docker.io/org/blobs/uploads/app", "1", "org/blobs/uploads/app", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := routes.parse(request(t, http.MethodGet, c.target, c.host))
			if err != nil {
				t.Fatal(err)
			}
			if q.kind != c.kind || q.repo.String() != c.repo || q.reference() != c.ref || q.rawName != c.asked || q.ns != c.ns {
				t.Errorf("got %s of %s, reference %q, asked as %q with ns %q", q.kind, q.repo, q.reference(), q.rawName, q.ns)
			}
			if q.query.Has("ns") {
				t.Error("ns is left in the query")
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	routes := newRoutes(upstreamsForTests())
	long := strings.Repeat("a", 128)
	for _, c := range []struct {
		name, method, target string
		status               int
		code, host           string
	}{
		{"no endpoint", "GET", "/", 404, codeUnsupported, ""},
		{"another version", "GET", "/v1/app/manifests/1", 404, codeUnsupported, ""},
		{"a path that begins alike", "GET", "/v2x/app/manifests/1", 404, codeUnsupported, ""},
		{"the catalog", "GET", "/v2/_catalog", 404, codeUnsupported, ""},
		{"the ping below what is no upstream", "GET", "/v2/elsewhere.test/", 404, codeNameUnknown, ""},
		{"the same without a slash", "GET", "/v2/app", 404, codeNameUnknown, ""},
		{"the ping below an upstream, with ns that is none", "GET", "/v2/ghcr.io/?ns=elsewhere.test", 404, codeNameUnknown, ""},
		{"an unknown endpoint", "GET", "/v2/app/layers/1", 404, codeUnsupported, ""},
		{"a slash too many behind tags", "GET", "/v2/app/tags/list/", 404, codeUnsupported, ""},
		{"ORAS's legacy referrers", "GET", "/v2/app/_oras/artifacts/referrers?digest=" + sha256OfNothing, 404, codeUnsupported, ""},
		{"ORAS's legacy referrers with a digest in the path", "GET", "/v2/app/_oras/artifacts/referrers/" + sha256OfNothing, 404, codeUnsupported, ""},
		{"W30: push and delete are 405, POST", "POST", "/v2/app/blobs/uploads/", 405, codeUnsupported, ""},
		{"W30: push and delete are 405, PATCH", "PATCH", "/v2/app/blobs/uploads/1", 405, codeUnsupported, ""},
		{"W30: push and delete are 405, PUT", "PUT", "/v2/app/manifests/1", 405, codeUnsupported, ""},
		{"W30: push and delete are 405, DELETE", "DELETE", "/v2/app/manifests/1", 405, codeUnsupported, ""},
		{"a POST to the ping", "POST", "/v2/", 405, codeUnsupported, ""},
		{"W30: a HEAD is never 405", "HEAD", "/v2/app/blobs/uploads/1", 404, codeUploadUnknown, ""},
		{"the state of an upload", "GET", "/v2/app/blobs/uploads/1", 404, codeUploadUnknown, ""},
		{"the folder of uploads", "GET", "/v2/app/blobs/uploads/", 404, codeUploadUnknown, ""},
		{"the folder of uploads without a slash", "GET", "/v2/app/blobs/uploads", 404, codeUploadUnknown, ""},
		{"an absolute URL", "GET", "http://ghcr.io/v2/app/manifests/1", 400, codeUnsupported, ""},
		{"a tunnel", "CONNECT", "ghcr.io:443", 400, codeUnsupported, ""},
		{"W7: a name that no tag has", "GET", "/v2/app/manifests/.INVALID_MANIFEST_NAME", 404, codeManifestUnknown, ""},
		{"an empty reference", "GET", "/v2/app/manifests/", 404, codeManifestUnknown, ""},
		{"a tag that is too long", "GET", "/v2/app/manifests/" + long + "a", 404, codeManifestUnknown, ""},
		{"W50: the tag of a sha512 subject, uncut", "GET", "/v2/app/manifests/" + strings.Replace(sha512OfNothing, ":", "-", 1), 404, codeManifestUnknown, ""},
		{"an escaped character in a tag", "GET", "/v2/app/manifests/a%20b", 404, codeManifestUnknown, ""},
		{"a malformed digest as reference", "GET", "/v2/app/manifests/sha256:abc", 400, codeDigestInvalid, ""},
		{"a malformed digest of a blob", "GET", "/v2/app/blobs/sha256:xyz", 400, codeDigestInvalid, ""},
		{"a digest in capitals", "GET", "/v2/app/blobs/" + strings.ToUpper(sha256OfNothing), 400, codeDigestInvalid, ""},
		{"a digest without an algorithm", "GET", "/v2/app/blobs/latest", 400, codeDigestInvalid, ""},
		{"a digest that nobody can prove", "GET", "/v2/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, codeDigestInvalid, ""},
		{"W52: a malformed digest of a subject", "GET", "/v2/app/referrers/sha256:xyz", 400, codeDigestInvalid, ""},
		{"capitals in a name", "GET", "/v2/App/manifests/1", 400, codeNameInvalid, ""},
		{"dots in a name", "GET", "/v2/app/../etc/manifests/1", 400, codeNameInvalid, ""},
		{"dots that are escaped", "GET", "/v2/app/%2e%2e/etc/manifests/1", 400, codeNameInvalid, ""},
		{"a slash that is escaped", "GET", "/v2/org%2Fapp/manifests/1", 400, codeNameInvalid, ""},
		{"a backslash", "GET", `/v2/org\app/manifests/1`, 400, codeNameInvalid, ""},
		{"an empty segment", "GET", "/v2/org//app/manifests/1", 400, codeNameInvalid, ""},
		{"an empty segment at the start", "GET", "/v2//app/manifests/1", 400, codeNameInvalid, ""},
		{"no name", "GET", "/v2//manifests/1", 400, codeNameInvalid, ""},
		{"a name that ends in a separator", "GET", "/v2/app-/manifests/1", 400, codeNameInvalid, ""},
		{"three underscores", "GET", "/v2/a___b/manifests/1", 400, codeNameInvalid, ""},
		{"a zero byte", "GET", "/v2/app%00/manifests/1", 400, codeNameInvalid, ""},
		{"a name that is too long", "GET", "/v2/" + long + "/" + long + "/manifests/1", 400, codeNameInvalid, ""},
		{"an unknown upstream as prefix", "GET", "/v2/foo.example/app/manifests/1", 404, codeNameUnknown, ""},
		{"an unknown upstream with a port", "GET", "/v2/foo:5000/app/manifests/1", 404, codeNameUnknown, ""},
		{"this machine as upstream", "GET", "/v2/localhost/app/manifests/1", 404, codeNameUnknown, ""},
		{"an unknown upstream as ns", "GET", "/v2/app/manifests/1?ns=foo.example", 404, codeNameUnknown, ""},
		{"an unknown upstream as ns, at a virtual host", "GET", "/v2/app/manifests/1?ns=foo.example", 404, codeNameUnknown, "ghcr.mirror.test"},
		{"an address as ns", "GET", "/v2/app/manifests/1?ns=http://169.254.169.254/", 404, codeNameUnknown, ""},
		{"an upstream without a repository", "GET", "/v2/ghcr.io/manifests/1", 404, codeNameUnknown, ""},
		{"a query that can't be read", "GET", "/v2/app/tags/list?n=%zz", 400, codeUnsupported, ""},
		{"a list's query that is too long", "GET", "/v2/app/tags/list?last=" + strings.Repeat("x", maxListQuery), 400, codeUnsupported, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := routes.parse(request(t, c.method, c.target, cmp.Or(c.host, "mirror.test")))
			if err == nil {
				t.Fatalf("taken for %s of %s", q.kind, q.repo)
			}
			if a := errorResponseFor(err, q); a.status != c.status || a.code != c.code {
				t.Errorf("%d %s (%s), want %d %s", a.status, a.code, a.message, c.status, c.code)
			}
		})
	}
}

func TestWithoutADefaultNobodyIsGuessed(t *testing.T) {
	routes := newRoutes([]Upstream{{Name: "ghcr.io"}})
	_, err := routes.parse(request(t, http.MethodGet, "/v2/org/app/manifests/1", "mirror.test"))
	if a := errorResponseFor(err, route{}); err == nil || a.status != http.StatusNotFound || a.code != codeNameUnknown {
		t.Errorf("%+v", a)
	}
}

func TestRefusalNamesTheUnknownUpstream(t *testing.T) {
	routes := newRoutes(upstreamsForTests())
	for _, target := range []string{"/v2/foo.example/app/manifests/1", "/v2/app/manifests/1?ns=foo.example"} {
		_, err := routes.parse(request(t, http.MethodGet, target, "mirror.test"))
		if err == nil || !strings.Contains(err.Error(), `"foo.example"`) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestRoutingTakesNoMemoryButTheQuery(t *testing.T) {
	routes := newRoutes(upstreamsForTests())
	req := request(t, http.MethodGet, "/v2/ghcr.io/org/app/manifests/"+sha256OfNothing, "mirror.test:5000")
	got := testing.AllocsPerRun(100, func() {
		if _, err := routes.parse(req); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations", got)
	}
}

// FuzzRoute holds what is taken for a route against the specification's own
// expressions: nothing else reaches an upstream.
func FuzzRoute(f *testing.F) {
	for _, target := range []string{
		"/v2/", "/v2/alpine/manifests/3", "/v2/ghcr.io/org/app/blobs/" + sha256OfNothing, "/v2/org/app/tags/list?n=1&last=x&ns=ghcr.io",
		"/v2/app/referrers/" + sha512OfNothing + "?artifactType=a%2Fb", "/v2/app/%2e%2e/manifests/1", "/v2//manifests/1", "/v2/a/blobs/sha256%3Aabc",
		"http://ghcr.io/v2/", "/v2/ghcr.io/ghcr.io/manifests/x?ns=ghcr.io", "/v2/a/blobs/uploads/", "/v2/a__b/manifests/_?ns=%zz", "/v2/a%2Fb/manifests/1", "/v2/a%2fb/tags/list", "/v2/a/manifests%2F1", "/v2/ghcr.io/v2/v2/v2/tags/list",
	} {
		f.Add(target, "mirror.test")
	}
	f.Add("/v2/app/manifests/1", "ghcr.mirror.test:5000")
	f.Add("/v2/app/manifests/1", "[::1]:5000")
	name := regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag := regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	routes := newRoutes(upstreamsForTests())
	f.Fuzz(func(t *testing.T, target, host string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")))
		if err != nil {
			t.Skip()
		}
		q, err := routes.parse(req)
		if err != nil {
			if a := errorResponseFor(err, q); a.status < 400 || a.status > 499 {
				t.Fatalf("%s is answered with %d: %v", target, a.status, err)
			}
			return
		}
		if q.kind == kindPing {
			return
		}
		if strings.Contains(strings.ToLower(strings.Split(target, "?")[0]), "%2f") {
			t.Fatalf("%s is taken for %s of %q", target, q.kind, q.repo.Name)
		}
		if routes.names[q.repo.Upstream] != q.repo.Upstream {
			t.Fatalf("%s is sent to %q", target, q.repo.Upstream)
		}
		if !name.MatchString(q.repo.Name) || len(q.repo.Name) > maxName+len(hubLibrary) {
			t.Fatalf("%s names the repository %q", target, q.repo.Name)
		}
		if q.digest != "" && q.digest.Validate() != nil || q.digest == "" && q.kind != kindTags && !tag.MatchString(q.ref) {
			t.Fatalf("%s has the reference %q, the digest %q", target, q.ref, q.digest)
		}
		// A link in the client's own form comes back to the same place.
		again := "/v2/" + q.rawName + "/tags/list"
		if q.ns != "" {
			again += "?ns=" + q.ns
		}
		next, err := http.NewRequest(http.MethodGet, again, nil)
		if err != nil {
			t.Fatal(err)
		}
		next.Host = host
		if back, err := routes.parse(next); err != nil || back.repo != q.repo {
			t.Fatalf("%s links to %s, which is %s (%v), not %s", target, again, back.repo, err, q.repo)
		}
	})
}

func TestDigestsAreThoseThatCanBeProven(t *testing.T) {
	for _, s := range []string{sha256OfNothing, sha512OfNothing, digest.SHA384.FromString("").String()} {
		if d, err := parseDigest(s); err != nil || d.String() != s {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", ":", "sha256:", sha256OfNothing[1:], sha256OfNothing + "0", sha256OfNothing[:70], "sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("A", 64)} {
		if _, err := parseDigest(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

// Registries that do not understand n answer as without it, and so do clients
// expect it of a mirror.
func TestAnUnreadableNIsNone(t *testing.T) {
	routes := newRoutes(upstreamsForTests())
	for query, want := range map[string]string{
		"n=10&last=x": "last=x&n=10", "n=0": "n=0", "n=": "", "n=ten": "", "n=-1": "", "n=%2B1": "", "n=1.5": "", "n=99999999999999999999": "",
		"n=&last=x": "last=x", "n=x&n=2": "n=2", "n=3&n=2": "n=3",
	} {
		q, err := routes.parse(httptest.NewRequest(http.MethodGet, "/v2/app/tags/list?"+query, nil))
		if err != nil || q.query.Encode() != want {
			t.Errorf("%s: %q, %v, want %q", query, q.query.Encode(), err, want)
		}
	}
}
