package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// Keeper is what the admin address lets people do to a cache.
type Keeper interface {
	Inventory(ctx context.Context) (pull.Inventory, error)
	Purge(ctx context.Context, target pull.Target, dryRun bool) (pull.Purged, error)
	Pin(ctx context.Context, r pull.Reference) (pull.Completion, error)
	Unpin(ctx context.Context, r pull.Reference) (bool, error)
	Pins() ([]pull.Reference, error)
	Scrub(ctx context.Context, rate int64, tell func(pull.Scrubbed)) (pull.Scrubbed, error)
}

// The requests and answers of the admin address are JSON. A scrub answers with
// a line for each step, the last of which has done or error set.
type (
	// CacheReference names an image: an upstream by its name, a repository in
	// that upstream's words, and a tag or a digest.
	CacheReference struct {
		Upstream   string `json:"upstream"`
		Repository string `json:"repository"`
		Ref        string `json:"ref"`
	}
	// PurgeRequest is the body of POST /cache/purge.
	PurgeRequest struct {
		CacheReference
		DryRun bool `json:"dryRun"`
	}
	// UnpinAnswer says whether there was a pin.
	UnpinAnswer struct {
		Unpinned bool `json:"unpinned"`
	}
	// ScrubLine is a line of the answer to POST /cache/scrub?rate=BYTES.
	ScrubLine struct {
		pull.Scrubbed
		Done  bool   `json:"done,omitempty"`
		Error string `json:"error,omitempty"`
	}
	// AdminError is the answer to what could not be done. Kind is what a
	// program may branch on: not_kept, pinned, not_whole, wrong_host or failed.
	AdminError struct {
		Message string `json:"error"`
		Kind    string `json:"kind"`
	}
)

func (e AdminError) Error() string { return e.Message }

// Is finds the errors that a kind stands for.
func (e AdminError) Is(target error) bool {
	switch e.Kind {
	case "not_kept":
		return target == pull.ErrNotKept
	case "pinned":
		return target == pull.ErrPinned
	case "not_whole":
		return target == pull.ErrNotWhole
	}
	return false
}

func (r CacheReference) reference() pull.Reference {
	return pull.Reference{Repository: pull.Repository{Upstream: r.Upstream, Name: r.Repository}, Ref: r.Ref}
}

func referenceOf(r pull.Reference) CacheReference {
	return CacheReference{r.Repository.Upstream, r.Repository.Name, r.Ref}
}

// adminCache adds what can be done to the cache.
func adminCache(mux *http.ServeMux, k Keeper) {
	mux.HandleFunc("GET /cache", func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w)(k.Inventory(r.Context()))
	})
	mux.HandleFunc("POST /cache/purge", func(w http.ResponseWriter, r *http.Request) {
		var asked PurgeRequest
		if readJSON(w, r, &asked) {
			answerJSON(w)(k.Purge(r.Context(), pull.Target(asked.reference()), asked.DryRun))
		}
	})
	mux.HandleFunc("GET /pins", func(w http.ResponseWriter, _ *http.Request) {
		pins, err := k.Pins()
		list := make([]CacheReference, 0, len(pins))
		for _, pin := range pins {
			list = append(list, referenceOf(pin))
		}
		answerJSON(w)(list, err)
	})
	mux.HandleFunc("POST /pins", func(w http.ResponseWriter, r *http.Request) {
		var asked CacheReference
		if readJSON(w, r, &asked) {
			answerJSON(w)(k.Pin(r.Context(), asked.reference()))
		}
	})
	mux.HandleFunc("DELETE /pins", func(w http.ResponseWriter, r *http.Request) {
		var asked CacheReference
		if readJSON(w, r, &asked) {
			was, err := k.Unpin(r.Context(), asked.reference())
			answerJSON(w)(UnpinAnswer{was}, err)
		}
	})
	mux.HandleFunc("POST /cache/scrub", func(w http.ResponseWriter, r *http.Request) { serveScrub(w, r, k) })
}

func serveScrub(w http.ResponseWriter, r *http.Request, k Keeper) {
	rate, err := strconv.ParseInt(r.URL.Query().Get("rate"), 10, 64)
	if err != nil || rate < 0 {
		answerJSON(w)(nil, AdminError{"rate is not a number of bytes a second", "failed"})
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flusher := http.NewResponseController(w)
	step := func(l ScrubLine) {
		// Where nobody reads any more, the request's context ends the scrub.
		_ = lines.Encode(l)
		_ = flusher.Flush()
	}
	end := ScrubLine{Done: true}
	if end.Scrubbed, err = k.Scrub(r.Context(), rate, func(s pull.Scrubbed) { step(ScrubLine{Scrubbed: s}) }); err != nil {
		end.Error = err.Error()
	}
	step(end)
}

// maxAdminBody is the most that a request may say, in bytes.
const maxAdminBody = 64 << 10

func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		writeJSON(w, http.StatusBadRequest, AdminError{"the request can't be read: " + err.Error(), "failed"})
		return false
	}
	return true
}

// answerJSON returns a function for the two results of a call.
func answerJSON(w http.ResponseWriter) func(any, error) {
	return func(answer any, err error) {
		var known AdminError
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, answer)
		case errors.As(err, &known):
			writeJSON(w, http.StatusBadRequest, known)
		case errors.Is(err, pull.ErrNotKept):
			writeJSON(w, http.StatusNotFound, AdminError{err.Error(), "not_kept"})
		case errors.Is(err, upstream.ErrNotFound):
			writeJSON(w, http.StatusNotFound, AdminError{err.Error(), "failed"})
		case errors.Is(err, pull.ErrPinned):
			writeJSON(w, http.StatusConflict, AdminError{err.Error(), "pinned"})
		case errors.Is(err, pull.ErrNotWhole):
			writeJSON(w, http.StatusBadGateway, AdminError{err.Error(), "not_whole"})
		default:
			writeJSON(w, http.StatusInternalServerError, AdminError{err.Error(), "failed"})
		}
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever has left needs no answer
}
