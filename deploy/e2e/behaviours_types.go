package e2e

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

var behavesWithTypes = []behaviour{
	{
		name:     "manifests as octet-stream",
		sentence: "Every manifest is application/octet-stream.",
		source:   "harbor#7853",
		like:     func(w *world) { w.Always("manifests", fake.Typed("application/octet-stream")) },
		before:   "a type that says nothing gave way to the manifest's own",
	},
	{
		name:     "manifests as text",
		sentence: "Every manifest is text/plain, as of registry.access.redhat.com once.",
		source:   "go-containerregistry#617",
		like:     func(w *world) { w.Always("manifests", fake.Typed("text/plain; charset=utf-8")) },
		before:   "a type that says nothing gave way to the manifest's own",
	},
	{
		name:     "manifests without a type",
		sentence: "Manifests come without Content-Type, and without a length.",
		source:   "docker/cli#5304",
		like:     func(w *world) { w.Always("manifests", fake.Combine(fake.Typed(""), fake.Chunked())) },
		before:   "a type that says nothing gave way to the manifest's own",
	},
	{
		name:     "manifests as JSON",
		sentence: "Manifests are application/json, and their digest is told only as an ETag.",
		source:   "containerd/cri#787",
		like: func(w *world) {
			w.Always("manifests", fake.Combine(fake.Typed("application/json"), fake.Edited(func(a *fake.Answer, _ fake.Request) {
				a.Header.Set("ETag", `"`+a.Header.Get("Docker-Content-Digest")+`"`)
				a.Header.Del("Docker-Content-Digest")
			})))
		},
		before: "a type that says nothing gave way to the manifest's own",
	},
	{
		name:     "types with parameters",
		sentence: "The type of a manifest has a charset, and no manifest names its own type.",
		source:   "image-spec 1.0, mediaType is optional",
		content: func(w *world) {
			w.usual()
			w.unnamed()
		},
		like: func(w *world) {
			w.Always("manifests", fake.Edited(func(a *fake.Answer, _ fake.Request) {
				a.Header.Set("Content-Type", a.Header.Get("Content-Type")+"; charset=utf-8")
			}))
		},
		before: "parameters of types were always dropped (W1)",
	},
	{
		name:     "unnamed manifests as octet-stream",
		sentence: "Manifests are octet-stream and don't name their type either: only their members tell.",
		source:   "image-spec 1.0, buildah#575",
		content:  func(w *world) { w.usual(); w.unnamed() },
		like:     func(w *world) { w.Always("manifests", fake.Typed("binary/octet-stream")) },
		before:   "its bytes were always passed on, and nothing in it names another type",
	},
	{
		name:     "an index with an image's type",
		sentence: "An index is sent with the type of an image manifest.",
		source:   "containerd#3291",
		like: func(w *world) {
			w.Always("manifests "+w.repo+" "+w.tag, fake.Typed(ocispec.MediaTypeImageManifest))
		},
	},
	{
		name:     "blobs as pages",
		sentence: "Blobs are text/html, as whatever is sniffed by mistake.",
		source:   "moby#30083",
		like:     func(w *world) { w.Always("blobs", fake.Typed("text/html; charset=utf-8")) },
	},
	{
		name:     "configs as pages from storage",
		sentence: "A CDN sends configs as text/html, in chunks.",
		source:   "moby#22378",
		like: func(w *world) {
			w.Always("GET blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { return !w.large(q) }, fake.ToStorage(fake.Storage{Typed: "text/html"})))
			w.Always("GET storage", fake.Chunked())
		},
	},
	{
		name:     "blobs of their descriptor's type",
		sentence: "A blob's type is that of its descriptor, and it has a name to be saved under.",
		source:   "zot (field F37)",
		like: func(w *world) {
			w.Always("blobs", fake.Combine(fake.Typed("application/vnd.oci.image.layer.v1.tar"), fake.WithHeader("Content-Disposition", `attachment; filename="layer.tar"`)))
		},
		before: "types of blobs count only where they are pages",
	},
	{
		name:     "blobs without type and length",
		sentence: "Blobs have neither a type nor a length.",
		source:   "containerd#5124",
		like:     func(w *world) { w.Always("GET blobs", fake.Combine(fake.Typed(""), fake.Chunked())) },
		before:   "neither was ever required of a blob",
	},
	{
		name:     "manifests are blobs too",
		sentence: "Manifests can be had as blobs as well, as octet-stream.",
		source:   "distribution#4812",
		like:     func(w *world) { w.Always("blobs", fake.WithHeader("X-Content-Type-Options", "nosniff")) },
		before:   "nobody is told to ask so",
	},
	{
		name:     "manifests are compressed unless identity is asked for",
		sentence: "Manifests and configs are gzip unless the client asks for identity; no Docker-Content-Digest.",
		source:   "quay#1310",
		like: func(w *world) {
			packed := fake.UnlessAccepted("Accept-Encoding", "identity", fake.Combine(fake.Encoded("gzip"), fake.WithoutHeader("Docker-Content-Digest")))
			w.Always("GET manifests", packed)
			w.Always("HEAD manifests", fake.WithoutHeader("Docker-Content-Digest"))
		},
	},
	{
		name:     "configs are compressed unless identity is asked for",
		sentence: "A CDN compresses what looks like JSON, blobs too, unless the client asks for identity.",
		source:   "quay#1310, registry.access.redhat.com",
		like: func(w *world) {
			w.Always("GET blobs", fake.Where(func(_ *http.Request, q fake.Request) bool { return !w.large(q) }, fake.UnlessAccepted("Accept-Encoding", "identity", fake.Encoded("gzip"))))
		},
	},
	{
		name:     "manifests are always compressed",
		sentence: "Manifests are gzip whatever the client asks for.",
		source:   "docker-registry#369",
		like: func(w *world) {
			w.Always("GET manifests", fake.Encoded("gzip"))
		},
	},
	{
		name:     "lists are compressed",
		sentence: "Tags and referrers are deflated or gzipped where the client takes that.",
		source:   "RFC 9110, 8.4",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.referrers(2)
			w.Always("tags", fake.UnlessAccepted("Accept-Encoding", "identity", fake.Encoded("gzip")))
			w.Always("referrers", fake.UnlessAccepted("Accept-Encoding", "identity", fake.Encoded("gzip")))
		},
		asks: []ask{askTags, askReferrers},
	},
	{
		name:     "no Docker-Content-Digest",
		sentence: "A proxy strips Docker-Content-Digest from all answers.",
		source:   "distribution#3848",
		like:     func(w *world) { w.Throughout(fake.WithoutHeader("Docker-Content-Digest")) },
		before:   "a digest was always taken from the bytes",
	},
	{
		name:     "the digest of something else",
		sentence: "Docker-Content-Digest of a tag is that of the index, though an image is sent.",
		source:   "distribution#2395, go-containerregistry#56",
		content:  func(w *world) { w.usual() },
		like: func(w *world) {
			image := w.imageOf(w.root.Digest)
			w.Always("GET manifests", fake.Edited(func(a *fake.Answer, q fake.Request) {
				if q.Ref == w.tag { // a digest may begin as the tag does
					a.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
					a.Body = image
				}
			}))
		},
	},
	{
		name:     "a digest of another algorithm",
		sentence: "Docker-Content-Digest is of SHA-512 where the client asked for SHA-256.",
		source:   "distribution 3.1.2 (field F31), the other way round",
		like: func(w *world) {
			w.Always("", fake.Edited(func(a *fake.Answer, q fake.Request) {
				if strings.Contains(q.Ref, ":") && a.Status == http.StatusOK {
					a.Header.Set("Docker-Content-Digest", digest.SHA512.FromBytes(a.Body).String())
				}
			}))
		},
		before: "another algorithm's digest was never compared",
	},
	{
		name:     "a registry that negotiates",
		sentence: "A tag is an image for clients that name no index first, and by digest only what is accepted is there.",
		source:   "distribution 3.1.2, olareg (field F30, F36)",
		like: func(w *world) {
			image := w.imageOf(w.root.Digest)
			w.Always("manifests", fake.Where(func(req *http.Request, q fake.Request) bool {
				return !strings.Contains(strings.Join(req.Header.Values("Accept"), ","), "index") && (q.Ref == w.tag || q.Ref == w.root.Digest.String())
			}, fake.Edited(func(a *fake.Answer, q fake.Request) {
				if q.Ref != w.tag {
					a.Status, a.Body = http.StatusNotFound, []byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"OCI index found, but accept header does not support OCI indexes"}]}`)
					a.Header.Set("Content-Type", "application/json")
					return
				}
				a.Body = image
				a.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
				a.Header.Set("Docker-Content-Digest", digest.FromBytes(image).String())
			})))
		},
		before: "all types are named upstream (W3)",
	},
}

// imageOf is the manifest of the image in an index of one.
func (w *world) imageOf(index digest.Digest) []byte {
	children := manifestsOf(w.BodyOf(w.repo, index.String()))
	return w.BodyOf(w.repo, children[0].Digest.String())
}

// unnamed is the usual content by manifests that don't name their types.
func (w *world) unnamed() {
	strip := func(body []byte, mediaType string) []byte {
		return bytes.Replace(body, []byte(`"mediaType":"`+mediaType+`",`), nil, 1)
	}
	image := w.AddManifest(w.repo, ocispec.MediaTypeImageManifest, strip(w.imageOf(w.root.Digest), ocispec.MediaTypeImageManifest))
	index := bytes.Replace(w.BodyOf(w.repo, w.tag), []byte(manifestsOf(w.BodyOf(w.repo, w.tag))[0].Digest), []byte(image.Digest), 1)
	index = bytes.Replace(index, sizeMember(manifestsOf(w.BodyOf(w.repo, w.tag))[0].Size), sizeMember(image.Size), 1)
	w.root = w.AddManifest(w.repo, ocispec.MediaTypeImageIndex, strip(index, ocispec.MediaTypeImageIndex), w.tag)
	w.subject = w.root
}
