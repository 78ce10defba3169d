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

// errNoneHere is the answer of an endpoint with the Referrers API that nothing
// refers to a subject, told as an error (Quay: W43).
var errNoneHere = errors.New("nothing refers to it")

// Referrers implements Registry.
//
// Whether an endpoint has the API is learnt from what it answers, and only an
// index is proof that it has. From then on everything else says that nothing
// is known.
func (r *Remote) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	all, err := r.referrers(ctx, repo, subject)
	if errors.Is(err, errNoneHere) {
		return []Descriptor{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("referrers of %s: %w", named(repo, subject.String()), err)
	}
	return all, nil
}

func (r *Remote) referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	a := ask{
		kind: "referrers", method: http.MethodGet, repo: r.endpoint.prefix + repo, path: "referrers/" + subject.String(),
		accept: ocispec.MediaTypeImageIndex, follow: isReferrers,
	}
	all := []Descriptor{}
	left := int64(maxList)
	for range maxPages {
		resp, err := r.do(ctx, a)
		if err != nil {
			return nil, r.notReferrers(err, a)
		}
		body, err := readDecoded(resp, left)
		resp.Body.Close()
		if err != nil {
			return nil, readFailed(err)
		}
		left -= int64(len(body))
		page, err := parseReferrers(mediaTypeOf(resp), body)
		if err != nil {
			return nil, err
		}
		r.sawReferrers()
		all = append(all, page...)
		if a.url, err = nextPage(resp); a.url == nil || err != nil {
			return all, err
		}
	}
	return nil, fmt.Errorf("%w: over %d pages", ErrBadAnswer, maxPages)
}

// isReferrers says whether a redirect leads to the same question elsewhere, as
// registry.k8s.io's do, and not to a web site, as GHCR's (W55).
func isReferrers(to *url.URL) bool {
	return strings.Contains(to.Path, "/v2/") && strings.Contains(to.Path, "/referrers/")
}

// notReferrers is what a redirect that is not followed means.
func (r *Remote) notReferrers(err error, a ask) error {
	var s *statusError
	if errors.As(err, &s) && s.status >= 300 && s.status <= 399 && (a.url != nil || r.hasReferrers.Load()) {
		s.meaning = ErrBadAnswer
	}
	return err
}

// referrersMeaning is what a refusal on the API's route means, where it is no
// refusal of access. An endpoint lacks the API only where it says so in the way
// of one that never had it, on the first page, and never showed an index.
func (r *Remote) referrersMeaning(a ask, s said) error {
	switch s.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
	default:
		return ErrBadAnswer
	}
	known := r.hasReferrers.Load()
	switch {
	case a.url != nil:
		return ErrBadAnswer // a later page: whoever sends the first has the API
	case s.code == "NAME_UNKNOWN" && s.status == http.StatusNotFound && known:
		return ErrNameUnknown
	case s.status == http.StatusBadRequest && s.form != formRegistry:
		return ErrBadAnswer
	case s.status == http.StatusBadRequest && known:
		return errNoneHere
	case known:
		return ErrBadAnswer
	case s.form == formRegistry:
		return ErrUnsupported
	}
	return ErrNoAPI
}

func (r *Remote) sawReferrers() {
	r.hasReferrers.Store(true)
	now, told := time.Now().Unix(), r.toldReferrers.Load()
	if now-told >= int64((24*time.Hour).Seconds()) && r.toldReferrers.CompareAndSwap(told, now) && r.opts.SawReferrers != nil {
		r.opts.SawReferrers()
	}
}

// parseReferrers reads a page of the API (distribution-spec, "Listing
// Referrers"). Whatever is no index says nothing: not that there is no API, and
// not that nothing refers.
func parseReferrers(mediaType string, body []byte) ([]Descriptor, error) {
	var index struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     json.RawMessage   `json:"manifests"`
		Errors        []json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("%w: no index of referrers: %w", ErrBadAnswer, err)
	}
	switch {
	case mediaType != ocispec.MediaTypeImageIndex && index.MediaType != ocispec.MediaTypeImageIndex,
		index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex,
		index.SchemaVersion != 2, len(index.Errors) > 0, index.Manifests == nil:
		return nil, fmt.Errorf("%w: no index of referrers, but %.80q", ErrBadAnswer, mediaType)
	}
	var manifests []Descriptor
	if err := json.Unmarshal(index.Manifests, &manifests); err != nil {
		return nil, fmt.Errorf("%w: no index of referrers: %w", ErrBadAnswer, err)
	}
	if manifests == nil {
		manifests = []Descriptor{} // null is empty at some (F35)
	}
	return manifests, nil
}
