package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// errNoReferrers is an error response of a Referrers API that means an empty
// list (Quay: W43).
var errNoReferrers = errors.New("there are no referrers")

// Referrers implements Registry.
//
// Whether an endpoint has the API is known from its responses, and only an
// index proves that it has. From then on, any other response means that nothing
// is known.
func (r *Remote) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	list, err := r.listReferrers(ctx, content{repo, subject.String()})
	if errors.Is(err, errNoReferrers) {
		return ReferrersList{At: time.Now()}, nil
	}
	if err != nil {
		err = fmt.Errorf("referrers of %s: %w", imageName(repo, subject.String()), err)
	}
	return list, err
}

// referrersPage is a page of a Referrers API.
type referrersPage struct {
	manifest.Index
	at      *url.URL // where it is from
	said    time.Time
	bytes   int64
	stale   bool
	next    *url.URL // the page after it; nil for the last one
	linkErr error    // why that can't be read
}

// referrersPage requests a page, the first one if next is nil.
func (r *Remote) referrersPage(ctx context.Context, of content, next *url.URL, most int64) (page referrersPage, err error) {
	a := request{
		kind: "referrers", method: http.MethodGet, repo: r.endpoint.prefix + of.repo, path: "referrers/" + of.ref, url: next,
		accept: ocispec.MediaTypeImageIndex, unfollowed: r.referrersRedirect,
	}
	resp, err := r.do(ctx, a)
	if err != nil {
		return referrersPage{}, err
	}
	body, done, err := r.readDecoded(resp, most)
	defer done()
	resp.Body.Close()
	if err != nil {
		return referrersPage{}, readFailed(err)
	}
	page = referrersPage{at: resp.Request.URL, said: time.Now().Add(-ageOf(resp)), bytes: int64(len(body)), stale: isStale(resp)}
	page.next, page.linkErr = nextPage(resp)
	page.Index, err = parseReferrers(mediaTypeOf(resp), body)
	return page, err
}

// referrersRedirect is nil for a redirect that leads to the same request on
// another host, as registry.k8s.io's do, and says what another one means. One to
// a web site says that there is no API, as GHCR's do (W55).
func (r *Remote) referrersRedirect(a request, to *url.URL) error {
	inside := strings.Contains(to.Path, "/v2/")
	switch {
	case inside && strings.Contains(to.Path, "/referrers/"):
		return nil
	case inside, a.url != nil, r.hasReferrers.Load():
		return ErrInvalidResponse
	}
	return ErrNoAPI
}

// referrersMeaning returns what a failure of the Referrers API means, other
// than a denial. An endpoint lacks the API only if it says so like one that
// never had it, for the first page, and has never sent an index.
func (r *Remote) referrersMeaning(a request, s failedResponse) error {
	switch s.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
	default:
		return ErrInvalidResponse
	}
	known := r.hasReferrers.Load()
	switch {
	case a.url != nil:
		return ErrInvalidResponse // a later page: who sends the first has the API
	case s.code == "NAME_UNKNOWN" && s.status == http.StatusNotFound && known:
		return ErrNameUnknown
	case s.status == http.StatusBadRequest && s.form != formRegistry:
		return ErrInvalidResponse
	case s.status == http.StatusBadRequest && known:
		return errNoReferrers
	case known:
		return ErrInvalidResponse
	case s.form == formRegistry:
		return ErrUnsupported
	}
	return ErrNoAPI
}

func (r *Remote) sawReferrers() {
	r.hasReferrers.Store(true)
	now, reported := time.Now().Unix(), r.referrersReported.Load()
	if now-reported >= int64((24*time.Hour).Seconds()) && r.referrersReported.CompareAndSwap(reported, now) && r.opts.SawReferrers != nil {
		r.opts.SawReferrers()
	}
}

// parseReferrers parses a page of the API (distribution-spec, "Listing
// Referrers"). Anything but an index means that nothing is known: neither that
// there is no API, nor that there are no referrers. The type stands in its
// Content-Type or in the index itself.
func parseReferrers(mediaType string, body []byte) (manifest.Index, error) {
	index, err := manifest.ReadIndex(body)
	switch {
	case err != nil:
		return manifest.Index{}, fmt.Errorf("%w: not an index of referrers: %w", ErrInvalidResponse, err)
	case index.MediaType == ocispec.MediaTypeImageIndex, index.MediaType == "" && mediaType == ocispec.MediaTypeImageIndex:
		return index, nil
	}
	return manifest.Index{}, fmt.Errorf("%w: not an index of referrers, but %.80q", ErrInvalidResponse, mediaType)
}
