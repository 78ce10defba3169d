package e2e

import (
	"net/http"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// kept are behaviours of something that stands in the registry's place after
// two pulls: what is kept is served on.
var behavesWithPages = []behaviour{
	{
		name:     "an ingress says 404 with a page",
		sentence: "After two pulls an ingress without endpoints answers everything with 404 and a page.",
		source:   "ingress-nginx#1551",
		later:    func(w *world) { w.Throughout(fake.Page(404)) },
		kept:     true,
	},
	{
		name:     "a default backend says 404 in a line",
		sentence: "After two pulls everything is answered with 404 and \"default backend - 404\" as text.",
		source:   "haproxy-ingress#72",
		later:    func(w *world) { w.Throughout(fake.Said(404, "text/plain; charset=utf-8", "default backend - 404")) },
		kept:     true,
	},
	{
		name:     "a firewall says 403 with a page",
		sentence: "After two pulls a CDN's firewall answers manifests with 403 and a page.",
		source:   "official-images#4309",
		later:    func(w *world) { w.Always("manifests", fake.Page(403)) },
		kept:     true,
	},
	{
		name:     "a portal says 401 with a page",
		sentence: "After two pulls a portal answers everything with 401, a page and no challenge.",
		source:   "official-images#4309",
		later:    func(w *world) { w.Throughout(fake.Page(401)) },
		kept:     true,
	},
	{
		name:     "a forward proxy says 407",
		sentence: "After two pulls a forward proxy wants credentials of its own.",
		source:   "RFC 9110, 15.5.8",
		later: func(w *world) {
			w.Throughout(fake.Combine(fake.WithHeader("Proxy-Authenticate", `Basic realm="proxy"`), fake.Page(407)))
		},
		kept:   true,
		before: "407 was always an answer of nobody's",
	},
	{
		name:     "a gateway says 502 with a page",
		sentence: "After two pulls a gateway has lost the registry and says so in a page.",
		source:   "container-registry behind nginx, RFC 9110, 15.6.3",
		later:    func(w *world) { w.Throughout(fake.Page(502)) },
		kept:     true,
		before:   "502 was always an upstream that cannot be asked",
	},
	{
		name:     "a login page with 200",
		sentence: "After two pulls manifests are a login page with 200, HEAD too.",
		source:   "containerd#7400",
		later:    func(w *world) { w.Always("manifests", fake.Page(200)) },
		kept:     true,
		before:   "W34 was there from the start",
	},
	{
		name:     "a login page without a type",
		sentence: "After two pulls a gateway answers everything with 200, a page, and no Content-Type.",
		source:   "docker/cli#5304",
		later: func(w *world) {
			w.Throughout(fake.Said(200, "", "<html>\n<head>\n<title>Forbidden</title></head></html>"))
		},
		kept:   true,
		before: "what is no JSON was never a manifest",
	},
	{
		name:     "a redirect to a login page",
		sentence: "After two pulls everything is redirected to a page of another host.",
		source:   "registry behind an OAuth proxy, skopeo#1300",
		like:     func(w *world) { w.another().Throughout(fake.Page(200)) },
		later:    func(w *world) { w.Throughout(fake.Moved(w.others[0], 302)) },
		kept:     true,
		before:   "a page with 200 was always known by its type",
	},
	{
		name:     "200 with an error in JSON",
		sentence: "After two pulls manifests are 200 with an error document of the specification's form.",
		source:   "distribution-spec 1.1, error codes",
		later: func(w *world) {
			w.Always("manifests", fake.Said(200, "application/json", `{"errors":[{"code":"UNAVAILABLE","message":"try later"}]}`))
		},
		kept: true,
	},
	{
		name:     "200 with an empty object",
		sentence: "After two pulls manifests are {} with the right type.",
		source:   "podman#4254",
		later: func(w *world) {
			w.Always("manifests", fake.Said(200, "application/vnd.oci.image.index.v1+json", `{}`))
		},
		kept: true,
	},
	{
		name:     "200 with an empty list",
		sentence: "After two pulls a mock answers everything with [] as JSON.",
		source:   "podman#4254",
		later:    func(w *world) { w.Throughout(fake.Said(200, "application/json", `[]`)) },
		kept:     true,
		before:   "what is no object was never a manifest",
	},
	{
		name:     "200 with nothing",
		sentence: "After two pulls everything is 200 and empty, with a length of 0.",
		source:   "containerd#9552",
		later:    func(w *world) { w.Throughout(fake.Said(200, "application/vnd.oci.image.index.v1+json", "")) },
		kept:     true,
		before:   "nothing was never a manifest",
	},
	{
		name:     "a page at first",
		sentence: "The first question about each thing is answered by a page with 404; from then on the registry answers.",
		source:   "haproxy-ingress#72",
		like: func(w *world) {
			w.Always("manifests", fake.FirstTime(fake.Page(404)))
			w.Always("blobs", fake.FirstTime(fake.Page(404)))
		},
	},
	{
		name:     "an empty 200 at first",
		sentence: "The first GET of each manifest is 200 without a body; from then on the registry answers.",
		source:   "containerd#9552",
		like:     func(w *world) { w.Always("GET manifests", fake.FirstTime(fake.Said(200, "", ""))) },
		before:   "nothing was never a manifest",
	},
	{
		name:     "an error in JSON at first",
		sentence: "The first GET of each tag is 200 with an error document, and its HEAD has no digest.",
		source:   "distribution-spec 1.1, error codes",
		like: func(w *world) {
			w.Always("HEAD manifests", fake.WithoutHeader("Docker-Content-Digest"))
			w.Always("GET manifests", fake.Where(not(byDigest), fake.FirstTime(fake.Said(200, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`))))
		},
	},
	{
		name:     "only /v2/ is a page",
		sentence: "The ping is a web page with 200; all else is a registry's.",
		source:   "skopeo#7",
		like:     func(w *world) { w.Always("ping", fake.Page(200)) },
		before:   "nobody but the token dance asked /v2/",
	},
	{
		name:     "/v2/ is 404",
		sentence: "The ping is 404, as below a path of Nexus; all else is a registry's.",
		source:   "skopeo#1000",
		like:     func(w *world) { w.Always("ping", fake.Page(404)) },
		before:   "nobody but the token dance asked /v2/",
	},
	{
		name:     "a backend that is being replaced",
		sentence: "After two pulls every second answer is 503 with a page and Retry-After.",
		source:   "ingress-nginx#1551",
		later: func(w *world) {
			turn := &turns{}
			w.Throughout(fake.Where(func(*http.Request, fake.Request) bool { return turn.next()%2 == 1 }, fake.Combine(fake.WithHeader("Retry-After", "1"), fake.Page(503))))
		},
		kept:   true,
		before: "503 was always an upstream that cannot be asked",
	},
}

func not(is func(*http.Request, fake.Request) bool) func(*http.Request, fake.Request) bool {
	return func(req *http.Request, q fake.Request) bool { return !is(req, q) }
}
