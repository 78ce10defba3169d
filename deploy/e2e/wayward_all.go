package e2e

import (
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lapse is a time in which a registry is wayward.
type lapse struct {
	name string
	// api chooses the registry behind it: one with the Referrers API or without.
	api bool
	// before is how it is when the mirror is first asked; nil where it is not
	// asked then. asItShould is no waywardness.
	before waywardness
	// rest passes between that and the lapse.
	rest   time.Duration
	during waywardness
	// second is a second endpoint of the upstream, as it is throughout.
	second waywardness
	// chain puts another entrepot between.
	chain bool
	// says that what the registry answers during the lapse is true: it is not
	// there yet.
	says bool
	// wasNone says that there was none when the registry could last be asked.
	// The mirror says so again, with a warning that no client reads.
	wasNone bool
}

const expiredReferrers = 2500 * time.Millisecond // than all that is kept in this suite

func asItShould(next http.Handler, _ *attachments) http.Handler { return next }

func lapses() []lapse {
	const index = ocispec.MediaTypeImageIndex
	as200 := func(body string) http.HandlerFunc { return sends(http.StatusOK, index, body) }
	var all []lapse
	add := func(one lapse) { all = append(all, one) }
	for name, second := range map[string]http.HandlerFunc{
		"404": isUnknown, "400": fails(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID"), "a page": sendsPage,
	} {
		add(lapse{name: "the API's second page is " + name, api: true, during: pagedBy(`<NEXT>; rel="next"`, second)})
	}
	add(lapse{name: "the API's second page is named by rel=\"last next\"", api: true, during: pagedBy(`<NEXT>; rel="last next"`, nil)})
	add(lapse{name: "the API's second page is named without < and >", api: true, during: pagedBy(`NEXT; rel="next"`, nil)})
	add(lapse{name: "the API's second page is named on another host", api: true, during: pagedBy(`<https://registry.example.com/NEXT>; rel="next"`, nil)})
	add(lapse{name: "the API has it on the last of 60 pages, which take a while each", api: true, during: pagedSlowly(60, 300*time.Millisecond)})
	image := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	add(lapse{name: "the API says 200 with an image", api: true, during: where(asksAPI, as200(image))})
	for _, body := range []string{`null`, `{}`, `{"errors":[{"code":"UNKNOWN"}]}`, `{"schemaVersion":2,"mediaType":"` + index + `"}`, `{"schemaVersion":2,"mediaType":"` + index + `","Manifests":[]}`} {
		add(lapse{name: "the API says 200 with " + body, api: true, during: where(asksAPI, as200(body))})
		add(lapse{name: "the fallback tag says 200 with " + body, during: where(asksTag, as200(body))})
	}
	for _, api := range []bool{true, false} {
		from := map[bool]string{true: "the API", false: "the fallback tag"}[api]
		lists := func(r *http.Request) bool {
			return api && asksAPI(r) || !api && asksTag(r) && r.Method == http.MethodGet
		}
		add(lapse{name: "what " + from + " lists was asked for before it was pushed", api: api, before: notYet(api), during: asItShould, rest: expiredReferrers})
		add(lapse{name: "what " + from + " lists is 404", api: api, during: onAttached(isUnknown)})
		poor := each(onAttached(isBroken))
		if api { // nobody believes a fallback tag's index that has another digest
			poor = each(rewritten(lists, poorly), onAttached(isBroken))
		}
		add(lapse{name: "what " + from + " lists is 503, and its type is that of its config", api: api, during: poor})
		add(lapse{name: from + " is 503", api: api, during: each(where(asksAPI, isBroken), where(asksTag, isBroken))})
		add(lapse{name: from + " is 503, and listed it before", api: api, before: asItShould, rest: expiredReferrers, during: each(where(asksAPI, isBroken), where(asksTag, isBroken))})
		add(lapse{name: from + " is 503, and listed none before it was pushed", api: api, wasNone: true, before: notYet(api), rest: expiredReferrers, during: each(where(asksAPI, isBroken), where(asksTag, isBroken))})
		add(lapse{name: from + " is empty until it is pushed", api: api, before: notYet(api), during: notYet(api), says: true})
	}
	for name, refuses := range map[string]http.HandlerFunc{"404": isUnknown, "401": fails(http.StatusUnauthorized, "UNAUTHORIZED"), "403": fails(http.StatusForbidden, "DENIED")} {
		add(lapse{name: "HEAD of manifests is " + name, during: where(asksHead, refuses)})
		add(lapse{name: "HEAD of the fallback tag becomes " + name, before: asItShould, rest: expiredReferrers, during: where(asksTagHead, refuses)})
	}
	noAPI := each(where(asksAPI, sendsNoAPI), where(asksTag, isUnknown))
	add(lapse{name: "the first endpoint, with the API, is 503, and the second has no API", api: true, during: where(asksAnything, isBroken), second: noAPI})
	add(lapse{name: "the first endpoint's API is 503, and the second has no API", api: true, during: where(asksAPI, isBroken), second: noAPI})
	add(lapse{name: "the first endpoint's API lists none, the second's lists it", api: true, during: where(asksAPI, sendsNone), second: asItShould})
	add(lapse{name: "the API lists it by an algorithm that nobody knows", api: true, during: rewritten(asksAPI, byAnotherAlgorithm)})
	add(lapse{name: "the fallback tag is left over, and lists none", api: true, during: where(asksTag, sendsNone)})
	add(lapse{name: "the API lists none, and what the fallback tag lists is older", during: where(asksAPI, sendsNone)})
	add(lapse{name: "the upstream of another entrepot is away, which knows the list", api: true, chain: true, before: asItShould, rest: expiredReferrers, during: where(asksAnything, breaks)})
	add(lapse{name: "the upstream of another entrepot is away, which knows of none", api: true, chain: true, before: notYet(true), rest: expiredReferrers, during: where(asksAnything, breaks)})
	return all
}
