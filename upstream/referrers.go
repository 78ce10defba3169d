package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	all, err := r.referrers(ctx, repo, subject)
	if errors.Is(err, errNoReferrers) {
		return ReferrersList{At: time.Now()}, nil
	}
	if err != nil {
		return all, fmt.Errorf("referrers of %s: %w", imageName(repo, subject.String()), err)
	}
	return all, nil
}

func (r *Remote) referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	a := request{
		kind: "referrers", method: http.MethodGet, repo: r.endpoint.prefix + repo, path: "referrers/" + subject.String(),
		accept: ocispec.MediaTypeImageIndex, follow: isReferrers,
	}
	var all ReferrersList
	left := int64(maxList)
	for range maxPages {
		resp, err := r.do(ctx, a)
		if err != nil {
			return all, r.redirectMeaning(err, a)
		}
		body, err := readDecoded(resp, left)
		resp.Body.Close()
		if err != nil {
			return all, readFailed(err)
		}
		left -= int64(len(body))
		page, err := parseReferrers(mediaTypeOf(resp), body)
		if err != nil {
			return all, err
		}
		r.sawReferrers()
		if all.At.IsZero() {
			all.At = time.Now()
		}
		all.Stale = all.Stale || isStale(resp)
		all.Manifests = append(all.Manifests, page...)
		if a.url, err = nextPage(resp); a.url == nil || err != nil {
			return all, err
		}
	}
	return all, fmt.Errorf("%w: more than %d pages", ErrInvalidResponse, maxPages)
}

// isReferrers reports whether a redirect leads to the same request on another
// host, as registry.k8s.io's do, and not to a web site, as GHCR's do (W55).
func isReferrers(to *url.URL) bool {
	return strings.Contains(to.Path, "/v2/") && strings.Contains(to.Path, "/referrers/")
}

// redirectMeaning returns the error of a redirect that is not followed.
func (r *Remote) redirectMeaning(err error, a request) error {
	var s *statusError
	if errors.As(err, &s) && s.status >= 300 && s.status <= 399 && (a.url != nil || r.hasReferrers.Load()) {
		s.meaning = ErrInvalidResponse
	}
	return err
}

// referrersMeaning returns what a failure of the Referrers API means, other
// than a denial. An endpoint lacks the API only if it says so like one that
// never had it, for the first page, and has never sent an index.
func (r *Remote) referrersMeaning(a request, s failedResponse) error {
	switch s.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
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
// there is no API, nor that there are no referrers.
func parseReferrers(mediaType string, body []byte) ([]Descriptor, error) {
	var index struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     json.RawMessage   `json:"manifests"`
		Errors        []json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("%w: not an index of referrers: %w", ErrInvalidResponse, err)
	}
	switch {
	case mediaType != ocispec.MediaTypeImageIndex && index.MediaType != ocispec.MediaTypeImageIndex,
		index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex,
		index.SchemaVersion != 2, len(index.Errors) > 0, index.Manifests == nil:
		return nil, fmt.Errorf("%w: not an index of referrers, but %.80q", ErrInvalidResponse, mediaType)
	}
	var manifests []Descriptor
	if err := json.Unmarshal(index.Manifests, &manifests); err != nil {
		return nil, fmt.Errorf("%w: not an index of referrers: %w", ErrInvalidResponse, err)
	}
	if manifests == nil {
		manifests = []Descriptor{} // some send null for an empty list (F35)
	}
	return manifests, nil
}
