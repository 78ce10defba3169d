package e2e

import (
	"net/http"
	"strings"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// byDigest says whether something is asked for by its digest.
func byDigest(_ *http.Request, q fake.Request) bool { return strings.Contains(q.Ref, ":") }

var behavesOnHead = []behaviour{
	{
		name:     "HEAD of a manifest is 403",
		sentence: "It answers HEAD of a manifest with 403, and GET as it should.",
		source:   "containerd#6684",
		like:     func(w *world) { w.Always("HEAD manifests", fake.Status(403, "DENIED")) },
	},
	{
		name:     "HEAD of a manifest is 401 with a good token",
		sentence: "It challenges HEAD of a manifest again and again, whatever token it is shown; GET takes the same token.",
		source:   "watchtower#669",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token"})},
		like: func(w *world) {
			w.Always("HEAD manifests", fake.Combine(fake.WithHeader("WWW-Authenticate", `Bearer realm="`+w.TokenURL()+`",service="test"`), fake.Status(401, "UNAUTHORIZED")))
		},
	},
	{
		name:     "HEAD by digest is 404",
		sentence: "It knows HEAD of tags, but answers HEAD of a digest with 404; GET finds both.",
		source:   "crossplane#3223",
		like: func(w *world) {
			w.Always("HEAD", fake.Where(byDigest, fake.Said(404, "text/plain; charset=utf-8", "404 page not found\n")))
		},
	},
	{
		name:     "HEAD of tags is 404",
		sentence: "It answers HEAD of a tag with 404 in a registry's form, and GET with the manifest.",
		source:   "harbor#13301",
		like:     func(w *world) { w.Always("HEAD manifests", fake.Status(404, "MANIFEST_UNKNOWN")) },
	},
	{
		name:     "HEAD is 405 with a page",
		sentence: "Its web server allows GET only, and says so in a page.",
		source:   "oras-go#882",
		like: func(w *world) {
			w.Always("HEAD", fake.Combine(fake.WithHeader("Allow", "GET"), fake.Page(405)))
		},
		before: "405 was always asked again by GET, and the libraries' own HEAD fails straight",
	},
	{
		name:     "HEAD is 501 from an old gateway",
		sentence: "A gateway in front knows no HEAD and speaks HTTP/1.0.",
		source:   "RFC 9110, 15.6.2",
		like: func(w *world) {
			w.Throughout(fake.Written(fake.Wire{Version: "HTTP/1.0"}))
			w.Always("HEAD", fake.Said(501, "text/plain", "Unsupported method"))
		},
		before: "501 was always asked again by GET",
	},
	{
		name:     "HEAD is 400 while GET has no length",
		sentence: "It answers HEAD with an empty 400, and GET in chunks.",
		source:   "distribution#2055",
		like: func(w *world) {
			w.Always("HEAD", fake.Empty(400))
			w.Always("GET", fake.Chunked())
		},
	},
	{
		name:     "HEAD of a blob is 401 with a good token",
		sentence: "It challenges HEAD of a blob whatever token it is shown.",
		source:   "distribution#4383",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token"})},
		like: func(w *world) {
			w.Always("HEAD blobs", fake.Combine(fake.WithHeader("WWW-Authenticate", `Bearer realm="`+w.TokenURL()+`",service="test",error="invalid_token"`), fake.Status(401, "UNAUTHORIZED")))
		},
		before: "none of the libraries has HEAD of a blob straight, and GET always came",
	},
	{
		name:     "HEAD of a blob is 404 until it was fetched",
		sentence: "A proxy project knows a blob only once somebody has had it by GET.",
		source:   "harbor#22609",
		like: func(w *world) {
			had := &sets{}
			w.Always("HEAD blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { return !had.has(q.Ref) }, fake.Status(404, "BLOB_UNKNOWN")))
			w.Always("GET blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { had.add(q.Ref); return false }, nil))
		},
	},
	{
		name:     "HEAD tells a length of 0",
		sentence: "A proxy in front drops the body's length from HEAD: Content-Length is 0.",
		source:   "godoxy#169",
		like: func(w *world) {
			w.Always("HEAD", fake.WithHeader("Content-Length", "0"))
		},
	},
	{
		name:     "HEAD tells no length",
		sentence: "HEAD of manifests and blobs comes without Content-Length.",
		source:   "distribution#4895",
		like:     func(w *world) { w.Always("HEAD", fake.WithoutHeader("Content-Length")) },
		before:   "HEAD was never held to a length",
	},
	{
		name:     "HEAD tells neither type nor digest",
		sentence: "HEAD of a manifest is octet-stream and without Docker-Content-Digest, as that of a file; GET is as it should be.",
		source:   "docker_registry2#83",
		like: func(w *world) {
			w.Always("HEAD manifests", fake.Combine(fake.Typed("application/octet-stream"), fake.WithoutHeader("Docker-Content-Digest")))
		},
		before: "HEAD was answered from what is kept",
	},
	{
		name:     "HEAD is a page",
		sentence: "HEAD of a manifest is answered with 200 and text/html by a mirror in between.",
		source:   "containerd#7400",
		like: func(w *world) {
			w.Always("HEAD manifests", fake.Combine(fake.WithoutHeader("Docker-Content-Digest"), fake.Typed("text/html")))
		},
		before: "a page was never believed to be a manifest",
	},
	{
		name:     "HEAD breaks the connection",
		sentence: "A load balancer cuts the connection at each HEAD.",
		source:   "skopeo#1934",
		like:     func(w *world) { w.Always("HEAD", fake.Hangup()) },
	},
	{
		name:     "HEAD of all but manifests is 405",
		sentence: "It knows HEAD of manifests, but neither of blobs, tags, referrers nor /v2/.",
		source:   "zot (field F37)",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.referrers(2)
			for _, kind := range []string{"blobs", "ping", "tags", "referrers"} {
				w.Always("HEAD "+kind, fake.Empty(405))
			}
		},
		asks:   []ask{askPull, askReferrers},
		before: "405 was always asked again by GET",
	},
	{
		name:     "no manifest by its digest",
		sentence: "It answers tags, HEAD too, but 404 to every manifest that is asked for by its digest.",
		source:   "moby#41687",
		content:  func(w *world) { w.single() },
		like:     func(w *world) { w.Always("manifests", fake.Where(byDigest, fake.Status(404, "MANIFEST_UNKNOWN"))) },
		before:   "what came by its tag is kept by its digest",
	},
}
