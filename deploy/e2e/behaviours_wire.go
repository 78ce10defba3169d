package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// closed says whether a range has an end.
func closed(byteRange string) bool {
	return !strings.HasSuffix(byteRange, "-") && !strings.Contains(byteRange, ",") && !strings.HasPrefix(byteRange, "bytes=-")
}

var behavesOnTheWire = []behaviour{
	{
		name:     "HTTP/1.0",
		sentence: "Every answer is HTTP/1.0 without a length, and ends with the connection.",
		source:   "RFC 9112, 6.3",
		like:     func(w *world) { w.Throughout(fake.Written(fake.Wire{Version: "HTTP/1.0", Bare: true})) },
		before:   "lengths were never required",
	},
	{
		name:     "a connection for each request",
		sentence: "It closes the connection after each answer without having said so.",
		source:   "RFC 9112, 9.6",
		like: func(w *world) {
			w.Throughout(fake.Written(fake.Wire{Name: func(h string) string {
				if h == "Connection" {
					return "X-Connection"
				}
				return h
			}}))
		},
		before: "net/http asks again on a connection of its own",
	},
	{
		name:     "header names in lower and upper case",
		sentence: "Names of headers are in lower case for GET and in capitals for HEAD.",
		source:   "RFC 9110, 5.1",
		like: func(w *world) {
			w.Throughout(fake.Where(func(_ *http.Request, q fake.Request) bool { return q.Method == http.MethodHead }, fake.Written(fake.Wire{Name: strings.ToUpper})))
			w.Throughout(fake.Where(func(_ *http.Request, q fake.Request) bool { return q.Method != http.MethodHead }, fake.Written(fake.Wire{Name: strings.ToLower})))
		},
		before: "net/http reads names of any case",
	},
	{
		name:     "more bytes than promised",
		sentence: "Behind the body, of which the length is told, come a few bytes more.",
		source:   "RFC 9112, 6.3",
		like:     func(w *world) { w.Throughout(fake.Written(fake.Wire{After: "\r\n<!-- 0.002 s -->\r\n"})) },
		before:   "a body ends where its length says",
	},
	{
		name:     "headers twice",
		sentence: "Content-Length, Content-Type and Docker-Content-Digest are sent twice, as two proxies add them.",
		source:   "RFC 9110, 5.3",
		like: func(w *world) {
			w.Throughout(fake.Written(fake.Wire{Twice: []string{"Content-Length", "Content-Type", "Docker-Content-Digest"}}))
		},
		before: "the same length twice is one length",
	},
	{
		name:     "very long headers",
		sentence: "Answers have 30 KiB of headers: a policy, cookies and links.",
		source:   "GitHub's and Cloudflare's answers",
		like: func(w *world) {
			w.Throughout(fake.Combine(
				fake.WithHeader("Content-Security-Policy", strings.Repeat("default-src 'none'; ", 1000)),
				fake.WithHeader("Set-Cookie", "a="+strings.Repeat("x", 4000), "b="+strings.Repeat("y", 4000)),
			))
		},
		before: "64 KiB of headers were always read",
	},
	{
		name:     "early hints",
		sentence: "A 103 with links comes before each answer.",
		source:   "RFC 8297, Cloudflare's early hints",
		like: func(w *world) {
			w.Throughout(func(r *fake.Registry, rw http.ResponseWriter, req *http.Request, q fake.Request) {
				rw.Header().Set("Link", "</style.css>; rel=preload; as=style")
				rw.WriteHeader(http.StatusEarlyHints)
				rw.Header().Del("Link")
				r.Answer(rw, req, q)
			})
		},
		before: "net/http passes over 1xx",
	},
	{
		name:     "two seconds to the first byte",
		sentence: "A tag and one of the layers take more than two seconds until they begin.",
		source:   "containerd#10660",
		like: func(w *world) {
			w.Always("manifests "+w.repo+" "+w.tag, fake.FirstTime(fake.LateMillis(2100)))
			w.Always("GET blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { return w.SizeOf(q.Repo, q.Ref) > 100_000 }, fake.FirstTime(fake.LateMillis(2100))))
		},
		before: "the first header may take ten seconds",
	},
	{
		name:     "bodies in small pieces",
		sentence: "Bodies come in pieces with pauses between them, in chunks.",
		source:   "registries behind slow links",
		like:     func(w *world) { w.Always("GET blobs", fake.Trickle(64<<10, 100)) },
		before:   "the first byte goes on when it arrives",
	},
	{
		name:     "a body that breaks off once",
		sentence: "Each layer breaks off once after 30,000 bytes; ranges work.",
		source:   "stereoscope#695",
		like:     func(w *world) { w.Always("GET blobs", fake.FirstTime(fake.CutAfter(30_000))) },
		before:   "downloads were always resumed",
	},
	{
		name:     "a body that breaks off where ranges are ignored",
		sentence: "Each layer breaks off once; ranges are answered with all of it.",
		source:   "nora#654, Gitea (field F38)",
		like: func(w *world) {
			w.Always("GET blobs", fake.Combine(fake.NoRange(nil), fake.FirstTime(fake.CutAfter(30_000))))
		},
		before: "a 200 to a range was always cut to the offset",
	},
	{
		name:     "a body that breaks off where only closed ranges work",
		sentence: "Each layer breaks off once, and a range without an end is 416.",
		source:   "go-containerregistry's registry (field F34), stereoscope#695",
		like: func(w *world) {
			w.Always("GET blobs", fake.Combine(fake.RangesAsked(closed), fake.FirstTime(fake.CutAfter(30_000))))
		},
		before: "what could not be resumed was begun again",
	},
	{
		name:     "a body that breaks off where ranges are refused",
		sentence: "Each layer breaks off once in chunks, and every range is 400.",
		source:   "docker-registry#449",
		like: func(w *world) {
			w.Always("GET blobs", fake.Combine(
				fake.Where(func(_ *http.Request, q fake.Request) bool { return q.Range != "" }, fake.Status(400, "UNSUPPORTED")),
				fake.FirstTime(fake.CutAfter(30_000)), fake.Chunked()))
		},
		before: "what could not be resumed was begun again",
	},
	{
		name:     "ranges without a total",
		sentence: "Each layer breaks off once; Content-Range tells no total.",
		source:   "RFC 9110, 14.4",
		like: func(w *world) {
			w.Always("GET blobs", fake.Combine(fake.FirstTime(fake.CutAfter(30_000)), fake.Edited(func(a *fake.Answer, _ fake.Request) {
				if span, _, ok := strings.Cut(a.Header.Get("Content-Range"), "/"); ok {
					a.Header.Set("Content-Range", span+"/*")
				}
			})))
		},
		before: "a total was never required",
	},
	{
		name:     "206 without a range",
		sentence: "Blobs that are asked for whole are 206, with a Content-Range of all.",
		source:   "Fastly's and Varnish's segmented caches",
		like: func(w *world) {
			w.Always("GET blobs", fake.Edited(func(a *fake.Answer, q fake.Request) {
				if q.Range == "" && a.Status == http.StatusOK {
					a.Status = http.StatusPartialContent
					a.Header.Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(a.Body)-1, len(a.Body)))
				}
			}))
		},
	},
	{
		name:     "404 for what is there, once",
		sentence: "One of several replicas does not have a manifest yet: each is 404 in a registry's form once.",
		source:   "distribution#873",
		like: func(w *world) {
			w.Always("GET manifests", fake.Where(byDigest, fake.FirstTime(fake.Status(404, "MANIFEST_UNKNOWN"))))
		},
		pause:   2 * time.Second,
		forgets: time.Second,
		before:  "what a registry says is believed for negative_ttl, and no longer",
	},
	{
		name:     "500 once",
		sentence: "The first question about each thing is 500 in a registry's form.",
		source:   "hub-feedback#1675",
		like: func(w *world) {
			w.Always("manifests", fake.FirstTime(fake.Status(500, "UNKNOWN")))
			w.Always("blobs", fake.FirstTime(fake.Status(500, "UNKNOWN")))
		},
		before: "500 was always asked again",
	},
	{
		name:     "connections break once",
		sentence: "The first question about each thing finds the connection broken before a header.",
		source:   "distribution#1217",
		like:     func(w *world) { w.Throughout(fake.FirstTime(fake.Hangup())) },
		before:   "broken connections were always tried again",
	},
}
