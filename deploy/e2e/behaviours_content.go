package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	signedSchema1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	ociArtifact    = "application/vnd.oci.artifact.manifest.v1+json"
	orasArtifact   = "application/vnd.cncf.oras.artifact.manifest.v1+json"
)

var behavesWithContent = []behaviour{
	{
		name:     "Docker's kinds",
		sentence: "A manifest list of Docker's with a Docker image.",
		source:   "distribution, image manifest v2 schema 2",
		content: func(w *world) {
			image := w.put(dockerManifest, w.image(dockerManifest, dockerConfig, dockerLayer))
			w.root = w.put(dockerList, document{"schemaVersion": 2, "mediaType": dockerList, "manifests": []any{member(image)}}, w.tag)
		},
		before: "Docker's kinds were always known",
	},
	{
		name:     "a signed schema 1 manifest",
		sentence: "The manifest is of schema 1, signed; its digest is that of what is signed.",
		source:   "giantswarm/retagger#1233",
		content:  func(w *world) { w.schema1() },
		passed:   "a signed schema 1 manifest is passed through, since its digest is not that of its bytes",
	},
	{
		name:     "an artifact manifest",
		sentence: "The tag is an OCI artifact manifest, of a kind that the image-spec dropped.",
		source:   "image-spec#999",
		content: func(w *world) {
			w.root = w.put(ociArtifact, document{
				"mediaType": ociArtifact, "artifactType": "application/vnd.example.data",
				"blobs": []any{member(w.blob(1, 5000, "application/octet-stream"))},
			}, w.tag)
		},
		before: "old kinds pass (W10)",
	},
	{
		name:     "an ORAS artifact manifest",
		sentence: "The tag is an artifact manifest of ORAS, with a subject that does not exist.",
		source:   "oras-project/artifacts-spec#58",
		content: func(w *world) {
			w.root = w.put(orasArtifact, document{
				"mediaType": orasArtifact, "artifactType": "signature/example",
				"blobs":   []any{member(w.blob(1, 5000, "application/octet-stream"))},
				"subject": document{"mediaType": ocispec.MediaTypeImageManifest, "digest": digest.FromString("nowhere"), "size": 3},
			}, w.tag)
		},
		before: "old kinds pass (W10)",
	},
	{
		name:     "a manifest of an unknown kind",
		sentence: "The tag is a JSON document that names a type nobody knows, and an index names another.",
		source:   "image-spec 1.1, extensibility",
		content: func(w *world) {
			other := w.put("application/vnd.example.thing+json", document{"schemaVersion": 2, "mediaType": "application/vnd.example.thing+json", "thing": true})
			w.root = w.put(ocispec.MediaTypeImageIndex, document{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{member(other)}}, w.tag)
			w.put("application/vnd.example.list+json", document{"schemaVersion": 7, "mediaType": "application/vnd.example.list+json", "of": "things"}, "thing")
		},
		asks:   []ask{askPull, {what: "pull", tag: "thing"}},
		before: "what names its type was always passed on",
	},
	{
		name:     "no layers",
		sentence: "An artifact with an empty config and no layers, and one whose layer is the empty config again.",
		source:   "image-spec 1.1, guidance for artifacts",
		content: func(w *world) {
			empty := w.AddBlob(w.repo, []byte("{}"))
			empty.MediaType = ocispec.MediaTypeEmptyJSON
			w.root = w.put(ocispec.MediaTypeImageManifest, document{
				"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/vnd.example." + strconv.Itoa(int(w.seed)),
				"config": member(empty), "layers": []any{},
			}, w.tag)
			w.put(ocispec.MediaTypeImageManifest, document{
				"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/vnd.example.again." + strconv.Itoa(int(w.seed)),
				"config": member(empty), "layers": []any{member(empty)},
			}, "again")
		},
		asks:   []ask{askPull, {what: "pull", tag: "again"}},
		before: "artifacts were always pulled",
	},
	{
		name:     "a manifest without a config",
		sentence: "A manifest has neither config nor layers, as image-spec's main allows.",
		source:   "image-spec#1277",
		content: func(w *world) {
			w.root = w.put(ocispec.MediaTypeImageManifest, document{
				"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "artifactType": "application/vnd.example.none",
				"annotations": document{"of": strconv.Itoa(int(w.seed))},
			}, w.tag)
		},
		before: "config was never required",
	},
	{
		name:     "a manifest of four million bytes",
		sentence: "A manifest is as large as clients take it, 4 MiB less a little, of annotations.",
		source:   "containerd#7106, distribution-spec 1.1, pushing manifests",
		content: func(w *world) {
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			image["annotations"] = document{"large": strings.Repeat("0123456789abcdef", 4_100_000/16)}
			w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
		},
		before: "W8 was there from the start",
	},
	{
		name:     "an index in an index",
		sentence: "An index names an index that names an image, and itself the image again.",
		source:   "image-spec#1246",
		content: func(w *world) {
			image, _ := w.AddImage(w.repo, fmt.Sprint("inner.", w.seed), w.layer(1, 5000), w.layer(2, 6000))
			inner := w.AddIndex(w.repo, "inner", image)
			w.root = w.AddIndex(w.repo, w.tag, inner, image)
		},
		before: "pulls deep below an image were always followed",
	},
	{
		name:     "digests of SHA-512",
		sentence: "The image and all that it names have digests of SHA-512.",
		source:   "distribution-spec#563",
		content: func(w *world) {
			w.root = w.put512(ocispec.MediaTypeImageManifest, document{
				"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
				"config": member(w.blob512([]byte(fmt.Sprintf(`{"os":"linux","architecture":"amd64","n":%d}`, w.seed)), ocispec.MediaTypeImageConfig)),
				"layers": []any{member(w.blob512(w.layer(1, 7000), ocispec.MediaTypeImageLayer)), member(w.blob512(w.layer(2, 900), ocispec.MediaTypeImageLayer))},
			}, w.tag)
		},
		before: "W7 was there from the start",
	},
	{
		name:     "layers of SHA-512 told as SHA-256",
		sentence: "Blobs of SHA-512 are sent with a Docker-Content-Digest and an ETag of SHA-256.",
		source:   "distribution 3.1.2 (field F31)",
		content: func(w *world) {
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			image["layers"] = []any{member(w.blob512(w.layer(1, 7000), ocispec.MediaTypeImageLayer)), member(w.blob(2, 900, ocispec.MediaTypeImageLayer))}
			w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
		},
		like: func(w *world) {
			w.Always("blobs", fake.Edited(func(a *fake.Answer, q fake.Request) {
				a.Header.Set("Docker-Content-Digest", digest.FromBytes(a.Body).String())
				a.Header.Set("ETag", `"`+digest.FromBytes(a.Body).String()+`"`)
			}))
		},
		before: "another algorithm's digest was never compared",
	},
	{
		name:     "a layer's size is 0",
		sentence: "The manifest says 0 of its first layer.",
		source:   "okd#402",
		content:  func(w *world) { w.missized(func(image document) { layersOf(image)[0]["size"] = 0 }) },
	},
	{
		name:     "a layer's size is too small",
		sentence: "The manifest says ten bytes of a layer of 300 KiB.",
		source:   "nix2container#207",
		content:  func(w *world) { w.missized(func(image document) { layersOf(image)[1]["size"] = 10 }) },
	},
	{
		name:     "a config's size is too large",
		sentence: "The manifest says a megabyte of a config of a hundred bytes.",
		source:   "skopeo#1054",
		content:  func(w *world) { w.missized(func(image document) { image["config"].(document)["size"] = 1 << 20 }) },
	},
	{
		name:     "an image's size in an index is wrong",
		sentence: "The index says another size of its image than it has, without Docker-Content-Digest.",
		source:   "containerd#2401",
		content: func(w *world) {
			image := w.put(ocispec.MediaTypeImageManifest, w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer))
			image.Size = 950
			w.root = w.AddIndex(w.repo, w.tag, image)
		},
		like:   func(w *world) { w.Always("manifests", fake.WithoutHeader("Docker-Content-Digest")) },
		before: "a manifest's size was never compared",
	},
	{
		name:     "layers elsewhere",
		sentence: "A foreign layer has URLs: the first is gone, the second has it, and so has the registry.",
		source:   "image-spec 1.0, non-distributable layers",
		content: func(w *world) {
			store := w.another()
			layer := w.layer(1, 9000)
			d := store.AddBlob("store", layer)
			w.AddBlob(w.repo, layer)
			image := w.image(dockerManifest, dockerConfig, dockerLayer)
			foreign := member(d)
			foreign["mediaType"] = dockerForeign
			foreign["urls"] = []string{store.URL() + "/v2/gone/blobs/" + d.Digest.String(), store.URL() + "/v2/store/blobs/" + d.Digest.String()}
			image["layers"] = []any{foreign, member(w.blob(2, 300, dockerLayer))}
			w.root = w.put(dockerManifest, image, w.tag)
		},
		passed: "clients have these layers from where the URLs lead, not from a mirror",
		before: "clients go there by themselves (W9)",
	},
	{
		name:     "a blob of any repository",
		sentence: "A blob is served in whatever repository it is asked for, though it was pushed to another.",
		source:   "go-containerregistry's registry (field F34)",
		content: func(w *world) {
			w.AddBlob("elsewhere", w.layer(1, 8000))
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			image["layers"] = []any{member(w.blob(1, 8000, ocispec.MediaTypeImageLayer)), member(w.blob(2, 300, ocispec.MediaTypeImageLayer))}
			w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
		},
		asks: []ask{{what: "pull"}, {what: "tags", repo: "elsewhere"}},
	},
	{
		name:     "the same layer twice",
		sentence: "A manifest names one layer three times, and its config as a layer.",
		source:   "moby#21278",
		content: func(w *world) {
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			layer := member(w.blob(1, 4000, ocispec.MediaTypeImageLayer))
			image["layers"] = []any{layer, layer, image["config"], layer}
			w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
		},
		before: "content is by digest",
	},
	{
		name:     "a layer of no bytes",
		sentence: "A manifest names a layer of no bytes.",
		source:   "distribution-spec#482",
		content: func(w *world) {
			image, _ := w.AddImage(w.repo, fmt.Sprint("empty.", w.seed), []byte{}, w.layer(1, 3000))
			w.root = w.AddIndex(w.repo, w.tag, image)
		},
		before: "an empty blob was always a blob",
	},
	{
		name:     "one platform is missing",
		sentence: "An index names an image that the registry does not have.",
		source:   "skopeo#2455",
		content: func(w *world) {
			w.usual()
			gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(strconv.Itoa(int(w.seed))), Size: 700}
			w.root = w.AddIndex(w.repo, w.tag, manifestsOf(w.BodyOf(w.repo, w.tag))[0], gone)
		},
		before: "what is missing upstream is missing here",
	},
	{
		name:     "content in descriptors",
		sentence: "Descriptors carry their content, and the registry has it too.",
		source:   "image-spec#826",
		content: func(w *world) {
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			config := image["config"].(document)
			config["data"] = base64.StdEncoding.EncodeToString(w.BodyOf(w.repo, fmt.Sprint(config["digest"])))
			w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
		},
		before: "members that are not known were never dropped",
	},
	{
		name:     "manifests in pretty letters",
		sentence: "Manifests are indented, have Windows' line ends, members that nobody knows, and end in empty lines.",
		source:   "image-spec 1.1, canonicalization",
		content: func(w *world) {
			image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
			image["x-unknown"] = document{"schemaVersion": "seven", "errors": []any{}}
			body, err := json.MarshalIndent(image, "", "\t")
			if err != nil {
				panic(err)
			}
			w.root = w.AddManifest(w.repo, ocispec.MediaTypeImageManifest, []byte(strings.ReplaceAll(string(body), "\n", "\r\n")+"\r\n\r\n"), w.tag)
		},
		before: "exact bytes, W1",
	},
	{
		name:     "names like routes",
		sentence: "The repository is called a/manifests/b/blobs/tags/list, and the tag has all that tags may have.",
		source:   "distribution-spec 1.1, names",
		content: func(w *world) {
			w.repo, w.tag = "a/manifests/b/blobs/c/tags/d__e---f.g", "_"+strings.Repeat("A.b-_9", 21)
			w.usual()
		},
		asks: []ask{askPull, askTags},
	},
	{
		name:     "everything with warnings",
		sentence: "Answers carry Warning headers of every kind, long and many, and an API version.",
		source:   "distribution-spec 1.1, warnings",
		like: func(w *world) {
			w.Throughout(fake.WithHeader("Warning", `299 - "this repository is deprecated"`, `199 - "odd"`, `299 registry "`+strings.Repeat("long ", 500)+`"`, "garbage"))
		},
		before: "W12 was there from the start",
	},
	{
		name:     "a tag that moves to another kind",
		sentence: "After two pulls the tag is an image where it was an index.",
		source:   "distribution-spec 1.1, tags",
		later:    func(w *world) { w.single() },
		before:   "a tag's new manifest was always kept with its own type",
	},
	{
		name:     "a manifest that is deleted below a tag",
		sentence: "After two pulls the tag's manifest is 404 by digest and its HEAD still answers.",
		source:   "go-containerregistry's registry (field F34)",
		later: func(w *world) {
			w.Always("GET manifests", fake.Where(func(_ *http.Request, q fake.Request) bool { return q.Ref == w.root.Digest.String() || q.Ref == w.tag }, fake.Status(404, "MANIFEST_UNKNOWN")))
		},
		before: "what is kept by digest is served by digest",
	},
}

type document map[string]any

func member(d ocispec.Descriptor) document {
	return document{"mediaType": d.MediaType, "digest": d.Digest.String(), "size": d.Size}
}

func (d document) bytes() []byte {
	body, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return body
}

func (w *world) put(mediaType string, d document, tags ...string) ocispec.Descriptor {
	return w.AddManifest(w.repo, mediaType, d.bytes(), tags...)
}

func (w *world) put512(mediaType string, d document, tags ...string) ocispec.Descriptor {
	return w.AddManifestAs(w.repo, digest.SHA512.FromBytes(d.bytes()), mediaType, d.bytes(), tags...)
}

func (w *world) blob(n byte, size int, mediaType string) ocispec.Descriptor {
	d := w.AddBlob(w.repo, w.layer(n, size))
	d.MediaType = mediaType
	return d
}

func (w *world) blob512(body []byte, mediaType string) ocispec.Descriptor {
	d := w.AddBlobAs(w.repo, digest.SHA512.FromBytes(body), body)
	d.MediaType = mediaType
	return d
}

// image is a manifest of two layers that is yet to be put.
func (w *world) image(kind, configType, layerType string) document {
	config := w.AddBlob(w.repo, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created_by":"%s %d"}`, kind, w.seed))
	config.MediaType = configType
	return document{
		"schemaVersion": 2, "mediaType": kind, "config": member(config),
		"layers": []any{member(w.blob(1, 40<<10, layerType)), member(w.blob(2, 300<<10, layerType))},
	}
}

// missized is an image in which a size is changed.
func (w *world) missized(change func(document)) {
	image := w.image(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer)
	change(image)
	w.root = w.put(ocispec.MediaTypeImageManifest, image, w.tag)
}

func layersOf(image document) []document {
	var all []document
	for _, l := range image["layers"].([]any) {
		all = append(all, l.(document))
	}
	return all
}

func manifestsOf(index []byte) []ocispec.Descriptor {
	var m ocispec.Index
	if err := json.Unmarshal(index, &m); err != nil {
		panic(err)
	}
	return m.Manifests
}

func sizeMember(n int64) []byte { return fmt.Appendf(nil, `"size":%d`, n) }

// schema1 is what Docker wrote before 2016: layers from the last to the first,
// a signature around them, and a digest of what is signed.
func (w *world) schema1() {
	first, second := w.blob(1, 5000, ""), w.blob(2, 7000, "")
	payload := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"name\": %q,\n   \"tag\": %q,\n   \"architecture\": \"amd64\",\n"+
		"   \"fsLayers\": [\n      {\"blobSum\": %q},\n      {\"blobSum\": %q}\n   ],\n"+
		"   \"history\": [\n      {\"v1Compatibility\": \"{\\\"id\\\":\\\"b%d\\\"}\"},\n      {\"v1Compatibility\": \"{\\\"id\\\":\\\"a\\\"}\"}\n   ]\n}",
		w.repo, w.tag, second.Digest, first.Digest, w.seed)
	body := signed(w.t, []byte(payload))
	d := digest.FromString(payload)
	w.root = w.AddManifestAs(w.repo, d, signedSchema1, body, w.tag)
}
