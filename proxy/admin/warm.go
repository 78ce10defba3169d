package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

// maxWarm bounds the body of POST /warm, in bytes: some 50,000 images.
const maxWarm = 8 << 20

// The request and the answer of POST /warm. It answers with one line of JSON for
// each event; the last line has done or error set.
type (
	// WarmRequest is the body of POST /warm.
	WarmRequest struct {
		Images    []WarmImage `json:"images"`
		Platforms []string    `json:"platforms,omitempty"` // as in linux/arm64; none means all
		Referrers bool        `json:"referrers"`
		Pin       bool        `json:"pin,omitempty"`
		Jobs      int         `json:"jobs,omitempty"`
		// MaxWait is how many seconds it may wait for an upstream that limits its
		// rate.
		MaxWait  float64 `json:"maxWait,omitempty"`
		Attempts int     `json:"attempts,omitempty"`
	}
	// WarmImage is an image, or a pattern of tags in Ref.
	WarmImage struct {
		Reference
		At retention.Digest `json:"at,omitempty"` // where the tag is to be
	}
	// WarmLine is one line of the answer.
	WarmLine struct {
		warm.Event
		Done   bool         `json:"done,omitempty"`
		Result *warm.Result `json:"all,omitempty"`
	}
)

// WarmRequestOf returns the JSON form of what is to be fetched. All of it is for
// the same platforms.
func WarmRequestOf(wanted []warm.Wanted, opts warm.FetchOptions) WarmRequest {
	r := WarmRequest{Jobs: opts.Jobs, MaxWait: opts.MaxWait.Seconds(), Attempts: opts.Attempts}
	for _, w := range wanted {
		r.Images = append(r.Images, WarmImage{ReferenceOf(w.Selection.Image), w.Selection.At})
		r.Platforms, r.Referrers, r.Pin = retention.FormatPlatforms(w.Selection.Platforms), w.Selection.Referrers, w.Pin
	}
	return r
}

func (r WarmRequest) wanted() ([]warm.Wanted, error) {
	platforms, err := retention.ParsePlatforms(r.Platforms)
	if err != nil {
		return nil, Error{err.Error(), "failed"}
	}
	var all []warm.Wanted
	for _, image := range r.Images {
		if image.At != "" && image.At.Validate() != nil || image.Ref == "" {
			return nil, Error{"warm: an image needs a tag or a digest, and at is a digest", "failed"}
		}
		all = append(all, warm.Wanted{Pin: r.Pin, Selection: retention.Selection{
			Image: image.Image(), At: image.At, Platforms: platforms, Referrers: r.Referrers,
		}})
	}
	return all, nil
}

func serveWarm(w http.ResponseWriter, r *http.Request, c Cache) {
	var request WarmRequest
	if !readJSONWithin(w, r, &request, maxWarm) {
		return
	}
	wanted, err := request.wanted()
	if err != nil {
		respond(w)(nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flusher := http.NewResponseController(w)
	send := func(l WarmLine) {
		// When the client disconnects, the request's context ends the work.
		_ = lines.Encode(l)
		_ = flusher.Flush()
	}
	result, err := c.FetchAll(r.Context(), wanted, warm.FetchOptions{
		Jobs: min(request.Jobs, maxJobs), MaxWait: time.Duration(request.MaxWait * float64(time.Second)), Attempts: request.Attempts,
		Report: func(e warm.Event) { send(WarmLine{Event: e}) },
	})
	last := WarmLine{Done: true, Result: &result}
	if err != nil {
		last.Error = err.Error()
	}
	send(last)
}

// maxJobs bounds how many requests one POST /warm has under way.
const maxJobs = 256
