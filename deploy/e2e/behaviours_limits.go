package e2e

import (
	"net/http"
	"strconv"
	"time"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// told makes limits that tell the same moment each in its own way.
func told(header string, form func(at time.Time) string) fake.Fault {
	return func(r *fake.Registry, w http.ResponseWriter, req *http.Request, q fake.Request) {
		fake.Limited(header, form(soon()))(r, w, req, q)
	}
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix()+1, 10) }

var behavesWithLimits = []behaviour{
	{
		name:     "a limit told in seconds",
		sentence: "Manifests are limited for a second, and Retry-After says so in seconds.",
		source:   "RFC 9110, 10.2.3",
		like: func(w *world) {
			w.Always("manifests", fake.Until(900*time.Millisecond, fake.Limited("Retry-After", "1")))
		},
		pause:  2 * time.Second,
		before: "seconds were always read",
	},
	{
		name:     "a limit told as a Unix time",
		sentence: "GETs of manifests are limited for a second, and Retry-After is a Unix time.",
		source:   "hub-feedback#2459",
		like: func(w *world) {
			w.Always("GET manifests", fake.Until(900*time.Millisecond, told("Retry-After", unix)))
		},
		pause: 3 * time.Second,
	},
	{
		name:     "a limit told as a date",
		sentence: "Blobs are limited for a second, and Retry-After is a date.",
		source:   "RFC 9110, 10.2.3",
		like: func(w *world) {
			w.Always("blobs", fake.Until(900*time.Millisecond, told("Retry-After", func(at time.Time) string { return at.UTC().Add(time.Second).Format(http.TimeFormat) })))
		},
		pause:  3 * time.Second,
		before: "dates were always read",
	},
	{
		name:     "a limit told by X-Retry-After",
		sentence: "All is limited for a second, and X-Retry-After is a Unix time.",
		source:   "hub-feedback#2459, Docker Hub's API",
		like:     func(w *world) { w.Always("", fake.Until(900*time.Millisecond, told("X-Retry-After", unix))) },
		pause:    3 * time.Second,
	},
	{
		name:     "a limit told by x-ratelimit-reset",
		sentence: "Manifests are limited for a second, and x-ratelimit-reset is a Unix time; remaining is 0.",
		source:   "hub-feedback#2459",
		like: func(w *world) {
			w.Always("manifests", fake.Until(900*time.Millisecond, fake.Combine(
				fake.WithHeader("X-Ratelimit-Remaining", "0"), fake.WithHeader("X-Ratelimit-Limit", "180"), told("X-Ratelimit-Reset", unix))))
		},
		pause: 3 * time.Second,
	},
	{
		name:     "a limit told by ratelimit-reset",
		sentence: "Tags and manifests are limited for a second, and RateLimit-Reset is a delta.",
		source:   "draft-ietf-httpapi-ratelimit-headers-06",
		like: func(w *world) {
			w.Always("tags", fake.Until(900*time.Millisecond, fake.Limited("RateLimit-Reset", "1")))
			w.Always("manifests", fake.Until(900*time.Millisecond, fake.Limited("RateLimit-Reset", "1")))
		},
		asks:  []ask{askTags, askPull},
		pause: 2500 * time.Millisecond,
	},
	{
		name:     "GETs of manifests are limited while blobs go on",
		sentence: "After two pulls GETs of manifests are limited for an hour; HEADs, blobs and tags are not.",
		source:   "Docker Hub's pull limit (wire W42)",
		like: func(w *world) {
			w.AddImage("team/other", "1", w.layer(5, 2000))
		},
		later: func(w *world) { w.Always("GET manifests", fake.Limited("Retry-After", "3600")) },
		kept:  true,
		asks:  []ask{askPull, askTags},
	},
	{
		name:     "a limit on another repository's manifests",
		sentence: "GETs of manifests of one repository are limited; the other's blobs are under way.",
		source:   "hub-feedback#2023",
		content: func(w *world) {
			w.usual()
			w.AddImage("team/other", "1", w.layer(5, 2000))
		},
		like: func(w *world) {
			w.Always("GET manifests team/other", fake.Combine(fake.WithHeader("Retry-After", "600"), fake.Said(429, "text/plain", "Too Many Requests (HAP429).\n")))
		},
		asks: []ask{{what: "head"}, {what: "pull", repo: "team/other", tag: "1", brief: true, cut: true}, {what: "blobs"}},
	},
	{
		name:     "referrers are limited",
		sentence: "The Referrers API is limited for ten minutes; pulls are not.",
		source:   "ghcr.io (wire W55)",
		options:  []fake.Option{fake.WithReferrers()},
		like:     func(w *world) { w.referrers(2); w.Always("referrers", fake.Limited("Retry-After", "600")) },
		asks:     []ask{{what: "referrers", brief: true}, askPull, askTags},
	},
	{
		name:     "tags are limited",
		sentence: "Tag lists are limited for ten minutes; pulls are not.",
		source:   "gitlab.com's registry limits",
		like:     func(w *world) { w.Always("tags", fake.Limited("Retry-After", "600")) },
		asks:     []ask{{what: "tags", brief: true}, askPull},
	},
	{
		name:     "tokens are limited",
		sentence: "After two pulls the token server limits everybody for an hour, and tokens have expired.",
		source:   "hub-feedback#2201",
		options:  []fake.Option{fake.WithAuth(fake.Auth{Scheme: "token", ExpiresIn: 1})},
		later:    func(w *world) { w.Always("GET token", fake.Limited("Retry-After", "3600")) },
		kept:     true,
		before:   "what is kept was always served while a limit holds",
	},
	{
		name:     "a limit of storage's CDN",
		sentence: "A CDN in front of one object limits it once with a page and no Retry-After.",
		source:   "hub-feedback#1907",
		like: func(w *world) {
			w.Always("GET blobs", fake.ToStorage(fake.Storage{Any: true, Status: 302}))
			w.Always("GET storage", fake.FirstTime(fake.Page(429)))
		},
	},
}
