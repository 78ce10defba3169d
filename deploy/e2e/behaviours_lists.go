package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// tagged is the usual content under n more tags.
func tagged(n int) func(w *world) {
	return func(w *world) {
		w.usual()
		for i := range n {
			w.AddManifest(w.repo, ocispec.MediaTypeImageIndex, w.BodyOf(w.repo, w.tag), fmt.Sprintf("v%05d", i))
		}
	}
}

func next(target string) string { return "<" + target + `>; rel="next"` }

var paged = []fake.Option{fake.WithPages(2), fake.WithReferrers()}

var behavesWithTags = []behaviour{
	{
		name:     "tags in pages",
		sentence: "Tags come in pages of two.",
		source:   "distribution-spec 1.1, listing tags",
		options:  paged, content: tagged(7),
		asks:   []ask{askPages, {what: "tags", n: 3, cut: true}},
		before: "pages were always passed on",
	},
	{
		name:     "no more than a thousand tags",
		sentence: "A list of more than a thousand entries is refused with 405.",
		source:   "ECR, renovate (wire W48)",
		content:  tagged(5),
		like:     func(w *world) { w.Always("tags", fake.AtMost(1000, 405)) },
		asks:     []ask{{what: "tags", n: 10_000}, askTags},
	},
	{
		name:     "thousands of tags",
		sentence: "Five thousand tags come in pages of a thousand, however many are asked for.",
		source:   "quay.io, gcr.io",
		options:  []fake.Option{fake.WithPages(1000)}, content: tagged(5000),
		like:   func(w *world) { w.Always("tags", fake.Capped("n", 1000)) },
		asks:   []ask{askPages, {what: "tags", n: 10_000, cut: true}},
		before: "pages were always passed on",
	},
	{
		name:     "an absolute Link",
		sentence: "The Link to the next page has the registry's scheme and host, in capitals.",
		source:   "distribution-spec#496, ACR",
		options:  paged, content: tagged(5),
		like: func(w *world) {
			w.Always("tags", fake.Linked(func(r *fake.Registry, to *url.URL) string {
				return next(strings.Replace(r.URL(), "http://", "HTTP://", 1) + to.String())
			}))
		},
		asks:   []ask{askPages},
		before: "absolute Links were always read",
	},
	{
		name:     "a relative Link",
		sentence: "The Link to the next page is relative to the list.",
		source:   "RFC 8288, 3.1",
		options:  paged, content: tagged(5),
		like: func(w *world) {
			w.Always("tags", fake.Linked(func(_ *fake.Registry, to *url.URL) string { return next("list?" + to.RawQuery) }))
		},
		asks:   []ask{askPages},
		before: "relative Links were always read",
	},
	{
		name:     "a Link of another form",
		sentence: "The Link has rel before other parameters, without quotes, and stands behind one to the first page.",
		source:   "RFC 8288, 3",
		options:  paged, content: tagged(5),
		like: func(w *world) {
			w.Always("tags", fake.Linked(func(_ *fake.Registry, to *url.URL) string {
				return "</v2/" + w.repo + "/tags/list>; rel=first, <" + to.String() + `>;title="a, b";rel=next; type="application/json"`
			}))
		},
		asks:   []ask{askPages},
		before: "Link was always read by its grammar",
	},
	{
		name:     "a cursor that only the registry knows",
		sentence: "The next page has an opaque cursor with a comma, next_page, and no last.",
		source:   "docker_registry2#56, drydock#927",
		options:  paged, content: tagged(5),
		like: func(w *world) {
			w.Always("tags", fake.Combine(
				fake.Linked(func(_ *fake.Registry, to *url.URL) string {
					return next(to.Path + "?next_page=" + url.QueryEscape("gAAA,"+to.Query().Get("last")+"==") + "&n=" + to.Query().Get("n"))
				}),
				fake.Asked(func(q url.Values) {
					if cursor := q.Get("next_page"); cursor != "" {
						q.Set("last", strings.TrimSuffix(strings.TrimPrefix(cursor, "gAAA,"), "=="))
					} else {
						q.Del("last")
					}
				})))
		},
		asks:   []ask{askPages},
		before: "cursors were always passed on",
	},
	{
		name:     "a Link on every page",
		sentence: "Every page that is not empty links to another; the last is empty.",
		source:   "Gitea 1.25 (field F38)",
		content:  tagged(3),
		like: func(w *world) {
			w.Always("tags", fake.Where(func(req *http.Request, _ fake.Request) bool { return req.URL.Query().Get("last") == "" },
				fake.WithHeader("Link", next("/v2/"+w.repo+"/tags/list?n=50&last=v99999"))))
		},
		asks:   []ask{askPages},
		before: "an empty page ends a list",
	},
	{
		name:     "tags are null",
		sentence: "A repository without tags has null for a list.",
		source:   "docker-registry 2.8.2 (field F33)",
		like: func(w *world) {
			w.Always("tags", fake.Said(200, "application/json", `{"name":"team/app","tags":null}`))
		},
		asks: []ask{askTags},
	},
	{
		name:     "tags without order and limits",
		sentence: "All tags come at once without order, some twice, whatever n and last say, as text/plain.",
		source:   "docker-registry 2.8.2 (field F33)",
		content:  tagged(3),
		like: func(w *world) {
			w.Always("tags", fake.Said(200, "text/plain; charset=utf-8", `{"name":"team/app","tags":["v2","1","v10","1","v1"]}`))
		},
		asks: []ask{askTags},
	},
	{
		name:     "tags without order for who asks in pages",
		sentence: "All tags come at once without order, some twice, to those too who ask for two.",
		source:   "docker-registry 2.8.2 (field F33), Renovate",
		like: func(w *world) {
			w.Always("tags", fake.Said(200, "application/json", `{"name":"team/app","tags":["v2","1","v10","1","v1"]}`))
		},
		asks: []ask{askTags, {what: "tags", n: 2}},
		only: []string{"go-containerregistry", "oras-go"}, // they go on to the last page
	},
	{
		name:     "tags become a page",
		sentence: "After two lists tags are 404 with a page.",
		source:   "ingress-nginx#1551",
		content:  tagged(3),
		later:    func(w *world) { w.Always("tags", fake.Page(404)) },
		kept:     true,
		asks:     []ask{askTags, askPull},
	},
	{
		name:     "tags become JSON of something else",
		sentence: "After two lists tags are 200 with {} and then an error document.",
		source:   "distribution-spec 1.1, error codes",
		content:  tagged(3),
		later: func(w *world) {
			w.Always("tags", fake.Said(200, "application/json", `{"errors":[{"code":"UNAVAILABLE"}]}`))
		},
		kept: true,
		asks: []ask{askTags},
	},
	{
		name:     "no list of tags",
		sentence: "It has no list of tags: 405 with UNSUPPORTED.",
		source:   "distribution-spec 1.1, discovery is optional",
		like:     func(w *world) { w.Always("tags", fake.Status(405, "UNSUPPORTED")) },
		asks:     []ask{askTags, askPull},
	},
}

var behavesWithReferrers = []behaviour{
	{
		name:     "the Referrers API alone",
		sentence: "It has the API, and no fallback tag.",
		source:   "distribution-spec 1.1, listing referrers",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(3) },
		asks:     []ask{askReferrers, {what: "referrers", artifactType: "application/spdx+json"}, askPull},
		before:   "the API was always asked",
	},
	{
		name:     "the fallback tag alone",
		sentence: "It knows no API, as distribution: 404 page not found, as text.",
		source:   "distribution 3.1.2",
		like:     func(w *world) { w.fallback(3) },
		asks:     []ask{askReferrers, {what: "referrers", artifactType: "application/spdx+json"}, askPull},
		before:   "the tag was always asked",
	},
	{
		name:     "no API, said in JSON",
		sentence: "The API is 404 with an error document of no known code; there is a fallback tag.",
		source:   "distribution-spec 1.1, unavailable referrers API",
		like: func(w *world) {
			w.fallback(2)
			w.Always("referrers", fake.Said(404, "application/json", `{"errors":[{"code":"NOT_FOUND","message":"no route"}]}`))
		},
		asks:   []ask{askReferrers},
		before: "404 was always no API",
	},
	{
		name:     "no API, said as 405",
		sentence: "The API is 405 without a body; there is a fallback tag.",
		source:   "field F25",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.Empty(405)) },
		asks:     []ask{askReferrers},
		before:   "405 was always no API",
	},
	{
		name:     "no API, said as 406 in XML",
		sentence: "The API is 406 with an XML document; there is a fallback tag.",
		source:   "go-containerregistry#1546",
		like: func(w *world) {
			w.fallback(2)
			w.Always("referrers", fake.StorageError(406, "NotAcceptable"))
		},
		asks:   []ask{askReferrers},
		before: "406 was always no API",
	},
	{
		name:     "the name is unknown to the API",
		sentence: "The API says 404 NAME_UNKNOWN of a repository that is there, with a fallback tag.",
		source:   "field F25, wire W54",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.Status(404, "NAME_UNKNOWN")) },
		asks:     []ask{askReferrers, askPull},
		before:   "404 was always no API",
	},
	{
		name:     "400 for a subject without referrers",
		sentence: "The API is 400 MANIFEST_INVALID for one subject, and lists another's.",
		source:   "quay#3071",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.AddReferrer(w.repo, w.child(), "application/vnd.example.of.image", w.layer(9, 50))
			w.Always("referrers "+w.repo+" "+fake.Short(w.root.Digest.String()), fake.Status(400, "MANIFEST_INVALID"))
		},
		asks:    []ask{askReferrers, {what: "referrers of the image"}, askPull},
		absence: "where an upstream is known to have the API, its 400 is how it says that there are none",
		before:  "400 was always none here",
	},
	{
		name:     "a page in place of the API",
		sentence: "The API is redirected by 303 to a page that is 404; there is a fallback tag.",
		source:   "ghcr.io (wire W55)",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.ToPage(303, "/search?q=referrers")) },
		asks:     []ask{askReferrers, askPull},
		before:   "redirects of the API were not followed",
	},
	{
		name:     "200 with a page in place of the API",
		sentence: "The API is a page with 200; there is a fallback tag.",
		source:   "moby: docker pull from 29.2 on (wire W34)",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.Page(200)) },
		asks:     []ask{askReferrers, askPull},
		before:   "a page was taken for no API, and the tag lists them",
	},
	{
		name:     "404 with a page in place of the API",
		sentence: "The API is a page with 404; there is a fallback tag.",
		source:   "issue 10.9",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.Page(404)) },
		asks:     []ask{askReferrers, askPull},
		before:   "a page was taken for no API, and the tag lists them",
	},
	{
		name:     "both API and tag",
		sentence: "The API lists two referrers, the fallback tag one more.",
		source:   "distribution-spec 1.1, enabling the referrers API",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.referrers(2)
			other := w.referrersOf("team/elsewhere", 1)
			w.AddFallbackTag(w.repo, w.subject.Digest, other...)
			for _, d := range other {
				w.AddManifest(w.repo, d.MediaType, w.BodyOf("team/elsewhere", d.Digest.String()))
			}
		},
		asks:   []ask{askReferrers, askPull},
		before: "sources were always merged",
	},
	{
		name:     "the API filters",
		sentence: "The API filters, says so, and comes in pages that repeat the filter.",
		source:   "distribution-spec#380",
		options:  []fake.Option{fake.WithReferrers(), fake.WithFilter(), fake.WithPages(2)},
		like:     func(w *world) { w.referrers(9) },
		asks:     []ask{{what: "referrers", artifactType: "application/spdx+json"}, {what: "referrers", artifactType: "application/vnd.example.signature"}, askReferrers},
		before:   "filters are applied here",
	},
	{
		name:     "the API says that it filters, and does not",
		sentence: "OCI-Filters-Applied is sent, though all are listed.",
		source:   "harbor#18413, the other way round",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.referrers(4)
			w.Always("referrers", fake.WithHeader("OCI-Filters-Applied", "artifactType"))
		},
		asks:   []ask{{what: "referrers", artifactType: "application/spdx+json"}, askReferrers},
		before: "filters are applied here",
		only:   []string{"containerd", "go-containerregistry", "regclient"}, // oras-go believes the header, and lists what was not asked for
	},
	{
		name:     "an empty list is null",
		sentence: "The API lists null where there are none, as application/json first.",
		source:   "CUE's ociserver (field F35)",
		like: func(w *world) {
			w.Always("referrers", fake.Said(200, ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}`))
		},
		asks:   []ask{askReferrers, askPull},
		before: "null was always an empty list",
	},
	{
		name:     "the API with another type",
		sentence: "The API's lists are application/json with a charset.",
		source:   "wire W54",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(2); w.Always("referrers", fake.Typed("application/json; charset=utf-8")) },
		asks:     []ask{askReferrers, askPull},
	},
	{
		name:     "the API with a parameter of its type",
		sentence: "The API's type has a charset, and its lists no mediaType.",
		source:   "RFC 9110, 8.3",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.referrers(2)
			w.Always("referrers", fake.Combine(fake.Typed(ocispec.MediaTypeImageIndex+"; charset=utf-8"), fake.Rewritten(func(body []byte) []byte {
				return []byte(strings.Replace(string(body), `"mediaType":"`+ocispec.MediaTypeImageIndex+`",`, "", 1))
			})))
		},
		asks:   []ask{askReferrers},
		before: "parameters of types were always dropped",
	},
	{
		name:     "a page once in place of the API",
		sentence: "The API is a login page with 200 at the first question about each subject.",
		source:   "issue 10.9",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(3); w.Always("referrers", fake.FirstTime(fake.Page(200))) },
		asks:     []ask{askReferrers, {what: "referrers", artifactType: "application/spdx+json"}},
	},
	{
		name:     "405 in place of the API that was there",
		sentence: "After two lists the API is 405, from a replica that is older; there is no fallback tag.",
		source:   "issue 10.9",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(3) },
		later:    func(w *world) { w.Always("referrers", fake.Empty(405)) },
		kept:     true,
		asks:     []ask{askReferrers, {what: "referrers", artifactType: "application/vnd.example.signature"}, askPull},
		before:   "what has passed through was listed on",
	},
	{
		name:     "the API becomes a page",
		sentence: "After two lists everything is 404 with a page.",
		source:   "ingress-nginx#1551, issue 10.5",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(3) },
		later:    func(w *world) { w.Throughout(fake.Page(404)) },
		kept:     true,
		asks:     []ask{askReferrers, askPull},
	},
	{
		name:     "the API becomes a bare 404",
		sentence: "After two lists the API and all else are \"404 page not found\" as text.",
		source:   "traefik without a backend, issue 10.5",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(3) },
		later:    func(w *world) { w.Throughout(fake.Said(404, "text/plain; charset=utf-8", "404 page not found\n")) },
		kept:     true,
		asks:     []ask{askReferrers, askPull},
	},
	{
		name:     "the API becomes forbidden",
		sentence: "After two lists the API is 403 in a registry's form; the tag is not there.",
		source:   "field F24",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(2) },
		later:    func(w *world) { w.Always("referrers", fake.Status(403, "DENIED")) },
		asks:     []ask{askReferrers, askPull},
		before:   "a refusal was always passed on",
	},
	{
		name:     "the API fails for good",
		sentence: "The API is 500, and the fallback tag lists two.",
		source:   "field F25",
		like:     func(w *world) { w.fallback(2); w.Always("referrers", fake.Status(500, "UNKNOWN")) },
		asks:     []ask{askReferrers, askPull},
		before:   "the tag was always asked beside the API",
	},
	{
		name:     "an index that others wrote wrongly",
		sentence: "The fallback tag's descriptors have the config's type for artifactType, and no annotations.",
		source:   "cosign#4641, kyverno#16664",
		like: func(w *world) {
			all := w.referrers(2)
			for i := range all {
				all[i].ArtifactType, all[i].Annotations = ocispec.MediaTypeEmptyJSON, nil
			}
			w.AddFallbackTag(w.repo, w.subject.Digest, all...)
		},
		asks:    []ask{askReferrers},
		differs: true,
		before:  "descriptors were always derived from manifests (W51)",
	},
	{
		name:     "an index with what is gone",
		sentence: "The fallback tag lists a manifest that was deleted, and one that refers to something else.",
		source:   "oras-go#510",
		like: func(w *world) {
			all := w.referrers(2)
			gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 40}
			w.AddFallbackTag(w.repo, w.subject.Digest, append(all, gone)...)
		},
		asks:    []ask{askReferrers, askPull},
		differs: true,
		before:  "what is gone was always left out",
	},
	{
		name:     "referrers of what is nowhere",
		sentence: "The subject does not exist, and has referrers by API all the same.",
		source:   "distribution-spec#491",
		options:  []fake.Option{fake.WithReferrers()},
		like: func(w *world) {
			w.subject = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint("nowhere", w.seed)), Size: 7}
			w.referrers(2)
		},
		asks:   []ask{askReferrers},
		before: "a subject was never looked for",
	},
	{
		name:     "many referrers",
		sentence: "Three hundred referrers come in pages of twenty.",
		source:   "olareg (field F36)",
		options:  []fake.Option{fake.WithReferrers(), fake.WithPages(20)},
		like:     func(w *world) { w.referrers(300) },
		asks:     []ask{askReferrers},
		before:   "all pages were always merged (W54)",
	},
	{
		name:     "signatures by tag",
		sentence: "Signatures hang on tags that are made of the digest, as cosign's of before.",
		source:   "cosign 2.6.5, legacy",
		like: func(w *world) {
			image, _ := w.AddImage(w.repo, fmt.Sprint("signature.", w.seed), w.layer(6, 900))
			w.AddManifest(w.repo, image.MediaType, w.BodyOf(w.repo, image.Digest.String()), "sha256-"+w.root.Digest.Encoded()+".sig")
		},
		asks:   []ask{askPull, {what: "pull", tag: "signature"}, {what: "head", tag: "attestation"}},
		before: "a tag is a tag",
	},
}

// fallback lists n referrers by the fallback tag alone.
func (w *world) fallback(n int) {
	w.AddFallbackTag(w.repo, w.subject.Digest, w.referrers(n)...)
}

// referrersOf are n referrers that are kept in another repository.
func (w *world) referrersOf(repo string, n int) []ocispec.Descriptor {
	var all []ocispec.Descriptor
	for i := range n {
		d := w.AddReferrer(repo, w.subject, "application/vnd.example.other", w.layer(byte(14-i), 77))
		d.ArtifactType = "application/vnd.example.other"
		all = append(all, d)
	}
	return all
}

// child is the image in the index.
func (w *world) child() ocispec.Descriptor { return manifestsOf(w.BodyOf(w.repo, w.tag))[0] }
