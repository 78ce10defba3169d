package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/transfer"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// Cache is what operators can do to a cache, whether it is in this process or
// behind an admin address. Purge returns [retention.ErrNotKept] and
// [retention.ErrPinned], Pin returns [warm.ErrNotWhole]; these keep their
// meaning as [Error] over HTTP.
type Cache interface {
	Inventory(ctx context.Context) (retention.Inventory, error)
	List(ctx context.Context, each func(retention.Item) error) error
	Purge(ctx context.Context, target retention.Target, dryRun bool) (retention.Purged, error)
	Pin(ctx context.Context, r metadata.Reference) (warm.Completion, error)
	Unpin(ctx context.Context, r metadata.Reference) (bool, error)
	Pins() ([]metadata.Reference, error)
	Scrub(ctx context.Context, rate int64, progress func(retention.Scrubbed)) (retention.Scrubbed, error)
	Bundles
	FetchAll(ctx context.Context, wanted []warm.Wanted, opts warm.FetchOptions) (warm.Result, error)
}

// Lines is the media type of a response with a JSON value on each line.
const Lines = "application/x-ndjson"

// Requests and responses are JSON. GET /cache answers whoever accepts that in
// [Lines], as it finds what is there: see ListLine. A scrub answers with a line a second; the last
// line has done or error set.
type (
	// Reference names an image: an upstream, a repository as that upstream names
	// it, and a tag or a digest.
	Reference struct {
		Upstream   string `json:"upstream"`
		Repository string `json:"repository"`
		Ref        string `json:"ref"`
	}
	// PurgeRequest is the body of POST /cache/purge. It names something, or has
	// All set, which means everything.
	PurgeRequest struct {
		Reference
		All    bool `json:"all,omitempty"`
		DryRun bool `json:"dryRun"`
	}
	// UnpinResponse says whether there was a pin.
	UnpinResponse struct {
		Unpinned bool `json:"unpinned"`
	}
	// ListLine is one line of the response to GET /cache. The last one has totals or
	// error set.
	ListLine struct {
		retention.Item
		Error string `json:"error,omitempty"`
	}
	// ScrubLine is one line of the response to POST /cache/scrub?rate=BYTES.
	ScrubLine struct {
		retention.Scrubbed
		Done  bool   `json:"done,omitempty"`
		Error string `json:"error,omitempty"`
	}
	// Error is the response to a request that failed. Programs may branch on
	// Kind: not_kept, pinned, not_whole, refused, wrong_host, not_allowed or failed.
	Error struct {
		Message string `json:"error"`
		Kind    string `json:"kind"`
	}
)

func (e Error) Error() string { return e.Message }

// Is reports whether the error's kind stands for target.
func (e Error) Is(target error) bool {
	switch e.Kind {
	case "not_kept":
		return target == retention.ErrNotCached
	case "pinned":
		return target == retention.ErrPinned
	case "not_whole":
		return target == warm.ErrIncomplete
	case "refused":
		return target == transfer.ErrRefused
	}
	return false
}

// ReferenceOf returns the JSON form of an image's name.
func ReferenceOf(image metadata.Reference) Reference {
	return Reference{image.Repository.Upstream, image.Repository.Name, image.Ref}
}

// PurgeRequestOf returns the JSON form of what to purge.
func PurgeRequestOf(target retention.Target, dryRun bool) PurgeRequest {
	if target == retention.Everything() {
		return PurgeRequest{All: true, DryRun: dryRun}
	}
	return PurgeRequest{Reference: ReferenceOf(metadata.Reference(target)), DryRun: dryRun}
}

// target returns what is to be purged. Everything has to be said, and alone: a
// request that lacks a name by mistake must not purge more.
func (r PurgeRequest) target() (retention.Target, error) {
	switch {
	case !r.All && r.Ref == retention.Everything().Ref:
		return retention.Target{}, Error{"purge: a tag, a digest or a repository has to be named", "failed"}
	case !r.All:
		return retention.Target(r.Image()), nil
	case r.Reference != Reference{}:
		return retention.Target{}, Error{"purge: all stands alone, without an upstream, a repository or a ref", "failed"}
	}
	return retention.Everything(), nil
}

// Image returns the image that r names.
func (r Reference) Image() metadata.Reference {
	return metadata.Reference{Repository: metadata.Repository{Upstream: r.Upstream, Name: r.Repository}, Ref: r.Ref}
}

func handleCache(mux *http.ServeMux, c Cache) {
	mux.HandleFunc("GET /cache", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), Lines) {
			serveList(w, r, c)
			return
		}
		respond(w)(c.Inventory(r.Context()))
	})
	mux.HandleFunc("POST /cache/purge", func(w http.ResponseWriter, r *http.Request) {
		var request PurgeRequest
		if !readJSON(w, r, &request) {
			return
		}
		target, err := request.target()
		if err != nil {
			respond(w)(nil, err)
			return
		}
		respond(w)(c.Purge(r.Context(), target, request.DryRun))
	})
	mux.HandleFunc("GET /pins", func(w http.ResponseWriter, _ *http.Request) {
		pins, err := c.Pins()
		list := make([]Reference, 0, len(pins))
		for _, pin := range pins {
			list = append(list, ReferenceOf(pin))
		}
		respond(w)(list, err)
	})
	mux.HandleFunc("POST /pins", func(w http.ResponseWriter, r *http.Request) {
		var request Reference
		if readJSON(w, r, &request) {
			respond(w)(c.Pin(r.Context(), request.Image()))
		}
	})
	mux.HandleFunc("DELETE /pins", func(w http.ResponseWriter, r *http.Request) {
		var request Reference
		if readJSON(w, r, &request) {
			unpinned, err := c.Unpin(r.Context(), request.Image())
			respond(w)(UnpinResponse{unpinned}, err)
		}
	})
	handleBundles(mux, c)
	mux.HandleFunc("POST /warm", func(w http.ResponseWriter, r *http.Request) { serveWarm(w, r, c) })
	mux.HandleFunc("POST /cache/scrub", func(w http.ResponseWriter, r *http.Request) { serveScrub(w, r, c) })
}

// listFlush is how long a line of a list may wait for more.
const listFlush = 50 * time.Millisecond

func serveList(w http.ResponseWriter, r *http.Request, c Cache) {
	w.Header().Set("Content-Type", Lines)
	lines, flusher := json.NewEncoder(w), http.NewResponseController(w)
	var sent time.Time
	err := c.List(r.Context(), func(item retention.Item) error {
		if err := lines.Encode(ListLine{Item: item}); err != nil {
			return err // the client has left
		}
		if now := time.Now(); now.Sub(sent) >= listFlush {
			sent = now
			return flusher.Flush()
		}
		return nil
	})
	if err != nil {
		_ = lines.Encode(ListLine{Error: err.Error()}) // if the client has left, nobody reads it
	}
}

// scrubLines is how long after a line of a scrub the next one follows.
const scrubLines = time.Second

func serveScrub(w http.ResponseWriter, r *http.Request, c Cache) {
	rate, err := strconv.ParseInt(r.URL.Query().Get("rate"), 10, 64)
	if err != nil || rate < 0 {
		respond(w)(nil, Error{"rate is not a number of bytes a second", "failed"})
		return
	}
	w.Header().Set("Content-Type", Lines)
	lines := json.NewEncoder(w)
	flusher := http.NewResponseController(w)
	send := func(l ScrubLine) {
		// When the client disconnects, the request's context ends the scrub.
		_ = lines.Encode(l)
		_ = flusher.Flush()
	}
	last, sent := ScrubLine{Done: true}, time.Now()
	progress := func(s retention.Scrubbed) {
		if now := time.Now(); now.Sub(sent) >= scrubLines {
			send(ScrubLine{Scrubbed: s})
			sent = now
		}
	}
	if last.Scrubbed, err = c.Scrub(r.Context(), rate, progress); err != nil {
		last.Error = err.Error()
	}
	send(last)
}

// respond returns a function that takes the results of a call and writes the
// response.
func respond(w http.ResponseWriter) func(any, error) {
	return func(result any, err error) {
		var known Error
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, result)
		case errors.As(err, &known):
			writeJSON(w, http.StatusBadRequest, known)
		case errors.Is(err, retention.ErrNoTarget):
			writeJSON(w, http.StatusBadRequest, Error{err.Error(), "failed"})
		case errors.Is(err, transfer.ErrIncomplete):
			writeJSON(w, http.StatusNotFound, Error{err.Error(), "failed"})
		case errors.Is(err, retention.ErrNotCached):
			writeJSON(w, http.StatusNotFound, Error{err.Error(), "not_kept"})
		case errors.Is(err, upstream.ErrNotFound):
			writeJSON(w, http.StatusNotFound, Error{err.Error(), "failed"})
		case errors.Is(err, retention.ErrPinned):
			writeJSON(w, http.StatusConflict, Error{err.Error(), "pinned"})
		case errors.Is(err, warm.ErrIncomplete):
			writeJSON(w, http.StatusBadGateway, Error{err.Error(), "not_whole"})
		default:
			writeJSON(w, http.StatusInternalServerError, Error{err.Error(), "failed"})
		}
	}
}
