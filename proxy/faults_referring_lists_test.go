package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// What clients see of referrers, beside lists.
const (
	unknownReferrers = "503 UNAVAILABLE"
	noTag            = "404 MANIFEST_UNKNOWN"
	noTagWarned      = "404 MANIFEST_UNKNOWN, Warning: 299"
	ownImage         = "the image that it is"
)

// onLaterPages lets later pages of the API meet a fault.
func onLaterPages(f upstreamtest.Fault) upstreamtest.Fault {
	return upstreamtest.Where(func(req *http.Request, _ upstreamtest.Request) bool {
		return strings.Contains(req.URL.RawQuery, laterAPI)
	}, f)
}

// pagesOfReferrers are rows about an API that lists two in two pages.
func pagesOfReferrers() []referringRow {
	paged := one(upstreamtest.WithReferrers(), upstreamtest.WithPages(1))
	pages := func(f upstreamtest.Fault) func(w *referringWorld) {
		return func(w *referringWorld) {
			w.attach("one")
			w.attach("two")
			w.always(theAPI, f)
		}
	}
	linked := func(write func(next string) string) upstreamtest.Fault {
		return upstreamtest.Linked(func(_ *upstreamtest.Registry, next *url.URL) string { return write(next.String()) })
	}
	const half = "stale, 1 of 2"
	return []referringRow{
		{upstream: "answers the second page of the API with 404", registries: paged, story: pages(onLaterPages(upstreamtest.Status(404, "MANIFEST_UNKNOWN"))), api: half, tag: half},
		{upstream: "answers the second page of the API with 400, an expired cursor", registries: paged, story: pages(onLaterPages(upstreamtest.Status(400, "PAGINATION_NUMBER_INVALID"))), api: half, tag: half},
		{upstream: "answers the second page of the API with a web page", registries: paged, story: pages(onLaterPages(upstreamtest.HTML())), api: half, tag: half},
		{upstream: "answers the second page of the API with a `404 page not found`", registries: paged, story: pages(onLaterPages(upstreamtest.Said(404, "text/plain", "404 page not found\n"))), api: half, tag: half},
		{upstream: "answers the second page of the API with 503", registries: paged, story: pages(onLaterPages(upstreamtest.Status(503, "UNAVAILABLE"))), api: half, tag: half},
		{upstream: "answered the second page of the API with 503 six minutes ago, and has listed more on its first one since", registries: paged, story: func(w *referringWorld) {
			pages(onLaterPages(upstreamtest.Status(503, "UNAVAILABLE")))(w)
			w.ask(byAPI)
			time.Sleep(6 * time.Minute)
			w.mend()
			for i := range 8 {
				w.attach(fmt.Sprint("n", i))
			}
		}},
		{upstream: "names the second page by `rel=\"last next\"`", registries: paged, story: pages(linked(func(next string) string { return "<" + next + `>; rel="last next"` }))},
		{upstream: "names the second page by `rel=next` without quotes", registries: paged, story: pages(linked(func(next string) string { return "<" + next + `>; rel=next` }))},
		{upstream: "names the second page without `<` and `>`", registries: paged, story: pages(linked(func(next string) string { return next + `; rel="next"` })), api: half, tag: half},
		{upstream: "names the second page on its other name, `https` behind a proxy", registries: paged, story: pages(linked(func(next string) string { return "<https://registry.example.com" + next + `>; rel="next"` }))},
		{upstream: "names each page as its own next one", registries: paged, story: func(w *referringWorld) {
			w.attach("one")
			w.attach("two")
			w.always(theAPI, upstreamtest.Linked(func(_ *upstreamtest.Registry, next *url.URL) string {
				return `</v2/app/referrers/` + w.subject.Digest.String() + `?n=1>; rel="next"`
			}))
		}, api: half, tag: half, most: 12},
		{upstream: "lists in 60 pages of two seconds each", registries: paged, story: func(w *referringWorld) {
			for i := range 60 {
				w.attach(fmt.Sprint("n", i))
			}
			w.always(theAPI, upstreamtest.Slow(2*second))
			for range 4 {
				w.ask(byAPI)
				time.Sleep(time.Minute)
			}
		}},
	}
}

// bodiesOfReferrers are rows about answers of 200 that are no list, though they
// call themselves one.
func bodiesOfReferrers() (rows []referringRow) {
	image, err := json.Marshal(referrerNamed("image", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("another"), Size: 7}))
	if err != nil {
		panic(err)
	}
	for _, c := range []struct{ name, body string }{
		{"`null`", "null"},
		{"`{}`", "{}"},
		{"`{\"errors\":…}`", `{"errors":[{"code":"UNKNOWN","message":"later"}]}`},
		{"an image manifest", string(image)},
		{"an index without `manifests`", `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`},
		{"an index with `Manifests`", `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","Manifests":[]}`},
	} {
		said := upstreamtest.Said(200, ocispec.MediaTypeImageIndex, c.body)
		tag := "502 UNAVAILABLE"
		if c.name == "an image manifest" {
			tag = ownImage
		}
		rows = append(rows,
			referringRow{upstream: "answers the API with 200 and " + c.name, registries: one(withAPI...), story: func(w *referringWorld) {
				w.attach("one")
				w.always(theAPI, said)
			}, api: unknownReferrers, tag: noTagWarned},
			referringRow{upstream: "answers the fallback tag with 200 and " + c.name, story: func(w *referringWorld) {
				w.attach("one")
				w.list()
				w.always(w.theTag(), said)
			}, api: unknownReferrers, tag: tag, later: 6 * time.Minute})
	}
	return rows
}

// childrenOfReferrers are rows about manifests that are listed and can't be
// opened.
func childrenOfReferrers() []referringRow {
	lists := func(story func(w *referringWorld), byAPI bool) func(w *referringWorld) {
		return func(w *referringWorld) {
			story(w)
			if !byAPI {
				w.list()
			}
		}
	}
	children := func(f upstreamtest.Fault, n int) func(w *referringWorld) {
		return func(w *referringWorld) {
			for i := range n {
				w.always(short(w.attach(fmt.Sprint("n", i))), f)
			}
		}
	}
	askedBefore := func(w *referringWorld) {
		d := w.add(referrerNamed("one", w.subject))
		for _, fake := range w.fakes {
			fake.Remove(referringRepo, d.Digest.String())
		}
		w.get("/v2/app/manifests/" + d.Digest.String())
		time.Sleep(second)
		w.attach("one")
	}
	gone, broken := upstreamtest.Status(404, "MANIFEST_UNKNOWN"), upstreamtest.Status(503, "UNAVAILABLE")
	poor := upstreamtest.Rewritten(func(body []byte) []byte {
		var index ocispec.Index
		if err := json.Unmarshal(body, &index); err != nil {
			panic(err)
		}
		for i := range index.Manifests {
			index.Manifests[i].ArtifactType, index.Manifests[i].Annotations = ocispec.MediaTypeEmptyJSON, nil
		}
		body, err := json.Marshal(index)
		if err != nil {
			panic(err)
		}
		return body
	})
	var rows []referringRow
	for _, api := range []bool{true, false} {
		where, registries, noneFound := "by its fallback tag", one(), "stale, 3 of 3"
		if api {
			where, registries, noneFound = "by its API", one(withAPI...), noTagWarned
		}
		rows = append(rows,
			referringRow{upstream: "lists " + where + " what somebody asked for a moment before it was pushed", registries: registries, story: lists(askedBefore, api)},
			referringRow{upstream: "lists " + where + " three that it answers with 404", registries: registries, story: lists(children(gone, 3), api), api: unknownReferrers, tag: noneFound},
			referringRow{upstream: "lists " + where + " three that it answers with 503", registries: registries, story: lists(children(broken, 3), api), api: "stale, 3 of 3", tag: "stale, 3 of 3"},
			referringRow{upstream: "lists " + where + " one that is there, and one that it answers with 404", registries: registries, story: lists(func(w *referringWorld) {
				w.attach("one")
				children(gone, 1)(w)
			}, api), api: "stale, 1 of 2", tag: "stale, 1 of 2"},
			referringRow{upstream: "lists " + where + " one as `application/vnd.oci.empty.v1+json`, and answers it with 503", registries: registries, story: func(w *referringWorld) {
				w.always(short(w.attach("one")), broken)
				if api {
					w.always(theAPI, poor)
				} else {
					listed := w.hangs[0]
					listed.ArtifactType, listed.Annotations = ocispec.MediaTypeEmptyJSON, nil
					w.fakes[0].AddFallbackTag(referringRepo, w.subject.Digest, listed)
				}
			}, api: "stale, 1 of 1", tag: "stale, 1 of 1"},
		)
	}
	for _, method := range []string{"404", "401", "403"} {
		refused := map[string]upstreamtest.Fault{
			"404": upstreamtest.Status(404, "MANIFEST_UNKNOWN"), "401": upstreamtest.Status(401, "UNAUTHORIZED"), "403": upstreamtest.Empty(403),
		}[method]
		heads := func(w *referringWorld) { w.always("HEAD "+w.theTag(), refused) }
		rows = append(rows,
			referringRow{upstream: "answers `HEAD` of the fallback tag with " + method + ", and `GET` with the list", story: func(w *referringWorld) {
				heads(w)
				w.attach("one")
				w.list()
			}},
			referringRow{upstream: "begins to answer `HEAD` of the fallback tag with " + method + ", and `GET` with the list", story: func(w *referringWorld) {
				w.attach("one")
				w.list()
				w.ask(byAPI)
				w.ask(byTag)
				time.Sleep(6 * time.Minute)
				heads(w)
			}})
	}
	return rows
}

// endpointsOfReferrers are rows about several endpoints, and about a parent.
func endpointsOfReferrers() []referringRow {
	down := upstreamtest.Status(503, "UNAVAILABLE")
	return []referringRow{
		{
			upstream: "has two endpoints: the first, with the API, answers 503, the second has no API", registries: [][]upstreamtest.Option{withAPI, withoutAPI},
			story: func(w *referringWorld) {
				w.attach("one")
				w.fakes[0].Always("", down)
			}, api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "has two endpoints: the API of the first answers 503, the second has no API", registries: [][]upstreamtest.Option{withAPI, withoutAPI},
			story: func(w *referringWorld) {
				w.attach("one")
				w.fakes[0].Always(theAPI, down)
			}, api: unknownReferrers, tag: noTagWarned,
		},
		{
			upstream: "has two endpoints with the API, and only the second lists what there is", registries: [][]upstreamtest.Option{withAPI, withAPI},
			story: func(w *referringWorld) {
				w.attach("one", w.fakes[1])
			},
		},
		{
			upstream: "has two endpoints with the API, and each lists another one", registries: [][]upstreamtest.Option{withAPI, withAPI},
			story: func(w *referringWorld) {
				w.attach("one", w.fakes[0])
				w.attach("two", w.fakes[1])
			},
		},
		{
			upstream: "has two endpoints without the API, and only the second has the fallback tag", registries: [][]upstreamtest.Option{withoutAPI, withoutAPI},
			story: func(w *referringWorld) {
				w.fakes[1].AddFallbackTag(referringRepo, w.subject.Digest, w.attach("one", w.fakes[1]))
			},
		},
		{
			upstream: "refuses connections, and had one", registries: one(withAPI...), story: func(w *referringWorld) {
				w.attach("one")
				w.ask(byAPI)
				time.Sleep(6 * time.Minute)
				w.attach("two")
				w.fakes[0].Stop()
			}, api: "stale, 1 of 2", tag: "stale, 1 of 2",
		},
		{
			upstream: "refuses connections, and had none", registries: one(withAPI...), story: func(w *referringWorld) {
				w.ask(byAPI)
				time.Sleep(6 * time.Minute)
				w.attach("one")
				w.fakes[0].Stop()
			}, api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "refuses connections, and had none for an image that is kept", registries: one(withAPI...), story: func(w *referringWorld) {
				w.pull("1")
				w.ask(byAPI)
				time.Sleep(6 * time.Minute)
				w.attach("one")
				w.fakes[0].Stop()
			}, api: "stale, 0 of 1", tag: "404 MANIFEST_UNKNOWN, Warning: 110",
		},
		{
			upstream: "refuses connections", registries: one(withAPI...), story: func(w *referringWorld) {
				w.attach("one")
				w.fakes[0].Stop()
			}, api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "refuses connections for long", registries: one(withAPI...), story: refusing(func(w *referringWorld) { w.attach("one") }),
			api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "refuses connections for long, and had one in the fallback tag", story: refusing(func(w *referringWorld) {
				w.attach("one")
				w.list()
				w.ask(byAPI)
				w.attach("two")
				w.list()
			}), api: "stale, 1 of 2", tag: "stale, 1 of 2",
		},
		{
			upstream: "refuses connections for long, and an index attached an attestation that was never sent", story: refusing(func(w *referringWorld) {
				w.addAttested()
				attestation := "manifests app " + short(w.hangs[0])
				w.always(attestation, upstreamtest.Status(503, "UNAVAILABLE"))
				w.pull("attested")
			}), api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "is another entrepot, whose upstream is down, with a list", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.attach("one")
				w.askParent()
				time.Sleep(6 * time.Minute)
				w.attach("two")
				w.fakes[0].Stop()
			}, api: "stale, 1 of 2", tag: "stale, 1 of 2",
		},
		{
			upstream: "is another entrepot, whose upstream is down, with an empty list", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.askParent()
				time.Sleep(6 * time.Minute)
				w.attach("one")
				w.fakes[0].Stop()
			}, api: unknownReferrers, tag: "502 UNAVAILABLE",
		},
		{
			upstream: "is another entrepot, which has just been asked", registries: one(withAPI...), chain: true,
			story: func(w *referringWorld) {
				w.attach("one")
				w.askParent()
			},
		},
	}
}

// refusing is a story in which an upstream then refuses connections, until it is
// known to do so.
func refusing(before func(w *referringWorld)) func(w *referringWorld) {
	return func(w *referringWorld) {
		before(w)
		time.Sleep(6 * time.Minute)
		w.fakes[0].Stop()
		for range 10 {
			w.ask(byAPI)
			time.Sleep(second)
		}
	}
}

// askParent asks the entrepot between, as another of its clients does.
func (w *referringWorld) askParent() {
	child := w.mirror
	w.mirror = w.parent
	w.ask(byAPI)
	w.ask(byTag)
	w.mirror = child
}

// agesOfReferrers are rows about how old an answer may be.
func agesOfReferrers() []referringRow {
	rules := func(change func(o *pulling.Options)) func(o *pulling.Options) { return change }
	later := func(before, wait time.Duration) func(w *referringWorld) {
		return func(w *referringWorld) {
			if before > 0 {
				w.attach("one")
				w.list()
			}
			w.ask(byTag)
			w.ask(byAPI)
			w.attach("two")
			w.list()
			time.Sleep(wait)
		}
	}
	return []referringRow{
		{
			upstream: "lists another one by its fallback tag, which is asked for 2 s later, with `referrers_ttl: 1s` and `tag_ttl: 1h`", story: later(1, 2*second),
			options: rules(func(o *pulling.Options) { o.Rules.TagTTL, o.Rules.ReferrersTTL = time.Hour, second }),
		},
		{
			upstream: "lists another one by its fallback tag, 2 s later, with `referrers_ttl: 1s` and `immutable_tags: [\"**\"]`", story: later(1, 2*second),
			options: rules(func(o *pulling.Options) {
				o.Rules.ReferrersTTL, o.Rules.TagTTL = second, time.Hour
				o.Upstreams[0].Immutable = func(string) bool { return true }
			}),
		},
		{
			upstream: "lists another one by its fallback tag, 6 min later, with hardly any requests left of its limit", story: later(1, 6*time.Minute),
			options: rules(func(o *pulling.Options) { o.Upstreams[0].Quota = func() float64 { return 0.01 } }),
		},
		{
			upstream: "has a signature under cosign's tag, and 6 min later another, with `tag_ttl: 1h`", story: func(w *referringWorld) {
				for _, name := range []string{"one", "two"} {
					w.hangs = nil
					made, m := w.fakes[0].AddImage(referringRepo, w.tag()+".sig", []byte(name))
					made.ArtifactType, made.Annotations = "application/vnd.dev.cosign.artifact.sig.v1+json", m.Annotations
					w.hangs = append(w.hangs, made)
					if name == "one" {
						w.pull(w.tag() + ".sig")
						w.ask(byAPI)
						time.Sleep(6 * time.Minute)
					}
				}
			},
			options: rules(func(o *pulling.Options) { o.Rules.TagTTL, o.Upstreams[0].CosignTags = time.Hour, true }),
		},
		{
			upstream: "lists its first one by its fallback tag, which is asked for 31 s later, with `tag_ttl: 1h`", story: later(0, 31*second),
			options: rules(func(o *pulling.Options) { o.Rules.TagTTL = time.Hour }),
		},
		{
			upstream: "lists its first one by its fallback tag: the tag was asked for 31 s ago, the API 2 s ago", story: func(w *referringWorld) {
				w.ask(byTag)
				time.Sleep(29 * second)
				w.ask(byAPI)
				w.attach("one")
				w.list()
				time.Sleep(2 * second)
			},
		},
		{
			upstream: "lists its first one a second after the tag was asked for, which is asked for 31 s later", story: func(w *referringWorld) {
				w.ask(byTag)
				w.attach("one")
				w.list()
				time.Sleep(second)
				w.ask(byAPI)
				time.Sleep(30 * second)
			},
		},
		{
			upstream: "lists its first one, which is asked for 6 s later with `Cache-Control: no-cache`", story: later(0, 6*second),
			header: []string{"Cache-Control", "no-cache"},
		},
		{
			upstream: "lists its first one, which is asked for 6 s later with `Cache-Control: max-age=1`", story: later(0, 6*second),
			header: []string{"Cache-Control", "max-age=1"},
		},
		{
			upstream: "lists its first one by its API, which is asked for 6 s later with `Pragma: no-cache`", registries: one(withAPI...), story: later(0, 6*second),
			header: []string{"Pragma", "no-cache"},
		},
	}
}
