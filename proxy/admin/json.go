package admin

import (
	"encoding/json"
	"net/http"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// readJSON decodes a request's body. If it can't, it answers the request and
// returns false.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	return readJSONWithin(w, r, into, maxBody)
}

func readJSONWithin(w http.ResponseWriter, r *http.Request, into any, most int64) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		writeJSON(w, http.StatusBadRequest, Error{"the request can't be read: " + err.Error(), "failed"})
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has disconnected
}
