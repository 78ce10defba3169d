package e2e

import (
	"net/http"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

var behavesWithStorage = []behaviour{
	{
		name:     "blobs redirect to storage signed for GET",
		sentence: "Blobs are redirected to another host by a URL that is good for GET only: HEAD there is 403.",
		source:   "moby#50065",
		like:     func(w *world) { w.Always("blobs", fake.ToStorage(fake.Storage{})) },
		before:   "none of the libraries has that HEAD straight, and GET always came",
	},
	{
		name:     "manifests redirect to storage signed for GET",
		sentence: "Manifests are redirected too, and come without type and digest.",
		source:   "stargz-snapshotter#167",
		like:     func(w *world) { w.Always("manifests", fake.ToStorage(fake.Storage{Typed: "-"})) },
	},
	{
		name:     "a kept manifest has moved to storage",
		sentence: "A registry begins to redirect manifests once it has cached them: the first HEAD is 200, the next is redirected to 403.",
		source:   "moby#50065, comment of 2026-08-21",
		like: func(w *world) {
			seen := &sets{}
			w.Always("manifests", fake.Where(func(_ *http.Request, q fake.Request) bool {
				before := seen.has(q.Ref)
				if q.Method == http.MethodGet {
					seen.add(q.Ref)
				}
				return before
			}, fake.ToStorage(fake.Storage{Typed: "binary/octet-stream"})))
		},
		kept: true,
	},
	{
		name:     "storage says 400 to HEAD",
		sentence: "The signed URL's HEAD is 400 without a body.",
		source:   "distribution#2055",
		like: func(w *world) {
			w.Always("blobs", fake.ToStorage(fake.Storage{Any: true}))
			w.Always("HEAD storage", fake.Empty(400))
		},
		before: "none of the libraries has that HEAD straight, and GET always came",
	},
	{
		name:     "storage says 403 once",
		sentence: "The first URL for each blob has expired when it is used.",
		source:   "stargz-snapshotter#155",
		like: func(w *world) {
			w.Always("blobs", fake.ToStorage(fake.Storage{}))
			w.Always("storage", fake.FirstTime(fake.StorageError(403, "AccessDenied")))
		},
		before: "a 403 was never remembered, and no library goes back for a fresh URL",
	},
	{
		name:     "storage says 404 once",
		sentence: "The storage does not know an object yet when it is first asked, by redirected manifests and blobs.",
		source:   "distribution#873",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{}))
			w.Always("GET manifests", fake.ToStorage(fake.Storage{}))
			w.Always("storage", fake.FirstTime(fake.StorageError(404, "NoSuchKey")))
		},
	},
	{
		name:     "storage slows down",
		sentence: "The storage says 503 SlowDown to the first two requests for each object.",
		source:   "distribution#769",
		like: func(w *world) {
			w.Always("blobs", fake.ToStorage(fake.Storage{Any: true}))
			w.Always("storage", fake.Times(2, fake.StorageError(503, "SlowDown")))
		},
		before: "503 was always tried again, by a fresh URL",
	},
	{
		name:     "storage says 429 about one object",
		sentence: "The storage limits the first request for each object for an hour, in its headers; a fresh URL is served.",
		source:   "distribution#3456",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{}))
			w.Always("storage", fake.FirstTime(fake.Combine(fake.WithHeader("Retry-After", "3600"), fake.StorageError(429, "TooManyRequests"))))
		},
	},
	{
		name:     "storage says 500 for one repository",
		sentence: "The storage fails for one repository for good; the other is whole.",
		source:   "k8s.io#4214",
		content: func(w *world) {
			w.usual()
			w.AddImage("team/broken", "1", w.layer(5, 1000), w.layer(6, 1000), w.layer(7, 1000))
		},
		like: func(w *world) {
			w.Always("blobs", fake.ToStorage(fake.Storage{}))
			w.Always("GET storage team/broken", fake.StorageError(500, "InternalError"))
		},
		asks:   []ask{{what: "pull", repo: "team/broken", tag: "1", brief: true, cut: true}, {what: "pull", repo: "team/broken", tag: "1", brief: true, cut: true}, askPull},
		before: "what the registry answered between the failures kept its breaker closed",
	},
	{
		name:     "a URL is good for one request",
		sentence: "Each signed URL can be used once, and each answer breaks off in its middle once.",
		source:   "distribution#2055",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{Uses: 1}))
			w.Always("GET storage", fake.FirstTime(fake.CutAfter(20_000)))
		},
		before: "each try was always by a fresh URL",
	},
	{
		name:     "storage ignores ranges",
		sentence: "The storage breaks off once, and sends all of it again whatever range is asked for.",
		source:   "container-libs#1114",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{}))
			w.Always("GET storage", fake.Combine(fake.NoRange(nil), fake.FirstTime(fake.CutAfter(30_000))))
		},
		before: "a 200 to a range was always cut to the offset",
	},
	{
		name:     "storage has a key of its own",
		sentence: "The storage refuses every request that carries Authorization, after a token dance at the registry.",
		source:   "Azure/acr#217",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token"})},
		like:     func(w *world) { w.Always("blobs", fake.ToStorage(fake.Storage{Any: true, Status: 302})) },
		before:   "Authorization never went to another host (W41)",
	},
	{
		name:     "signatures with special characters",
		sentence: "The URL's signature counts to the byte: plus, slash, percent, tilde, semicolon and empty parameters.",
		source:   "distribution#3574",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{
				Query: "sig=a%2Bb%2fc%3D%3D&se=2026-11-27T11%3A17%3A13Z&x=~!*'()&rscd=attachment%3B%20filename%3D%22l.tgz%22&empty=&flag",
			}))
		},
		before: "URLs were always used as they came",
	},
	{
		name:     "a redirect with a fragment",
		sentence: "The redirect is a 303 whose URL ends in a fragment.",
		source:   "RFC 9110, 10.2.2",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{Fragment: "sha256", Status: 303}))
		},
		before: "fragments are no part of requests",
	},
	{
		name:     "a relative redirect",
		sentence: "Blobs are redirected within the registry by a relative reference, after the token dance.",
		source:   "RFC 9110, 10.2.2",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token"})},
		like: func(w *world) {
			w.Always("GET blobs", fake.Where(func(req *http.Request, _ fake.Request) bool { return req.URL.RawQuery == "" }, relative))
		},
		before: "a relative reference was always resolved",
	},
	{
		name:     "a registry that redirects all to another",
		sentence: "Everything is redirected to another registry, which wants an anonymous token of its own, and the query is dropped.",
		source:   "registry.k8s.io#336 (field F39)",
		content:  func(*world) {},
		like: func(w *world) {
			behind := w.another(fake.WithAuth(fake.Auth{Scheme: "token"}), fake.WithReferrers())
			own := w.Registry
			w.Registry = behind
			w.usual()
			w.referrers(3)
			w.Registry = own
			w.Always("manifests", fake.Moved(behind, 307))
			w.Always("blobs", fake.Moved(behind, 307))
			w.Always("tags", fake.Moved(behind, 307))
			w.Always("referrers", fake.Moved(behind, 307))
		},
		asks: []ask{askTags, askPull, askReferrers},
	},
	{
		name:     "a chain of hosts",
		sentence: "A blob is redirected from host to host before it comes from a storage; manifests stay.",
		source:   "registry.k8s.io#333",
		like: func(w *world) {
			last := w.another()
			own := w.Registry
			w.Registry = last
			w.usual()
			w.Registry = own
			last.Always("blobs", fake.ToStorage(fake.Storage{Status: 302}))
			middle := w.another()
			middle.Always("blobs", fake.Moved(last, 301))
			w.Always("GET blobs", fake.Moved(middle, 308))
		},
		before: "redirects were always followed, five of them",
	},
	{
		name:     "one file of a region is missing",
		sentence: "One of two hosts that the registry redirects to answers 404 in turns, with a page.",
		source:   "k8s.io#4214",
		like: func(w *world) {
			gone := w.another()
			gone.Always("", fake.Page(404))
			turn := &turns{}
			w.Always("GET blobs", fake.Where(func(*http.Request, fake.Request) bool { return turn.next()%2 == 1 }, fake.Moved(gone, 307)))
		},
	},
	{
		name:     "a signed layer is said to be encoded",
		sentence: "The storage says Content-Encoding: x-gzip of a layer whose own bytes are compressed.",
		source:   "moby#17595",
		content: func(w *world) {
			layer := zipped(w.layer(1, 50_000))
			image, _ := w.AddImage(w.repo, "zipped", layer)
			w.root = w.AddIndex(w.repo, w.tag, image)
		},
		like: func(w *world) {
			w.Always("GET blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { return w.large(q) }, fake.ToStorage(fake.Storage{Typed: "application/x-tar"})))
			w.Always("GET storage", fake.WithHeader("Content-Encoding", "x-gzip"))
		},
		before: "blobs were always taken as they come",
	},
	{
		name:     "empty blobs have no object",
		sentence: "A blob of no bytes is redirected to a key that the storage does not have, and answered by the registry itself only to HEAD.",
		source:   "quay#3451",
		content: func(w *world) {
			image, _ := w.AddImage(w.repo, "empty", []byte{}, w.layer(1, 3000))
			w.root = w.AddIndex(w.repo, w.tag, image)
		},
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{}))
			w.Always("GET storage "+w.repo+" e3b0c44298fc", fake.FirstTime(fake.StorageError(404, "NoSuchKey")))
		},
		only: []string{"containerd", "go-containerregistry", "oras-go", "containers/image"}, // regclient has no bytes without asking
	},
}

// relative redirects to the same path, by a reference without a host.
func relative(_ *fake.Registry, w http.ResponseWriter, _ *http.Request, q fake.Request) {
	w.Header().Set("Location", q.Ref+"?redirected=yes")
	w.WriteHeader(http.StatusTemporaryRedirect)
}
