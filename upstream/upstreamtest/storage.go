package upstreamtest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Storage says what a registry's storage is like. It stands on a host of its
// own, and answers to URLs that the registry hands out.
type Storage struct {
	// Signed is the method that a URL is good for, GET where it is empty; any
	// other is refused with 403, as S3 does.
	Signed string
	// Any makes a URL good for every method.
	Any bool
	// Uses is how often a URL can be used; 0 means any number.
	Uses int
	// Query is more of the URL's query, as it stands.
	Query string
	// Fragment is put at the URL's end.
	Fragment string
	// Status of the redirect, 307 where it is 0.
	Status int
	// Typed is the media type of what it sends, where it is not
	// application/octet-stream; "-" means none.
	Typed string
}

// ToStorage redirects to the storage. The transcript and the rules know what is
// asked there as "GET storage".
func ToStorage(s Storage) Fault {
	if s.Signed == "" {
		s.Signed = http.MethodGet
	}
	if s.Any {
		s.Signed = ""
	}
	if s.Status == 0 {
		s.Status = http.StatusTemporaryRedirect
	}
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		if _, code := r.find(q); code != "" {
			complain(w, http.StatusNotFound, code)
			return
		}
		r.mu.Lock()
		if r.storage == nil {
			r.storage = r.listen("127.0.0.1", r.serveStorage)
		}
		at := elsewhere(r.storage)
		r.handed[""]++
		signature := r.handed[""]
		r.mu.Unlock()
		query := url.Values{"signature": {strconv.Itoa(signature)}, "method": {s.Signed}, "uses": {strconv.Itoa(s.Uses)}, "typed": {s.Typed}}
		to := fmt.Sprintf("%s/%s/%s?%s", at, q.Kind, q.Repo+"/"+q.Ref, query.Encode())
		if s.Query != "" {
			to += "&" + s.Query
		}
		if s.Fragment != "" {
			to += "#" + s.Fragment
		}
		r.mu.Lock()
		r.urls[strconv.Itoa(signature)], _, _ = strings.Cut(to[strings.Index(to, "?")+1:], "#")
		r.mu.Unlock()
		w.Header().Set("Location", to)
		w.WriteHeader(s.Status)
	}
}

func (r *Registry) serveStorage(w http.ResponseWriter, req *http.Request) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if len(parts) < 3 {
		http.NotFound(w, req)
		return
	}
	last := len(parts) - 1
	q := Request{
		Method: req.Method, Kind: "storage", of: parts[0], Repo: strings.Join(parts[1:last], "/"), Ref: parts[last],
		Range: req.Header.Get("Range"),
	}
	r.note(line(q.Method, q.Kind, q.Repo, q.Ref, q.Range))
	r.meet(w, req, q)
}

// answerStorage is what a storage without faults says, in S3's words.
func (r *Registry) answerStorage(w http.ResponseWriter, req *http.Request, q Request) {
	query := req.URL.Query()
	r.mu.Lock()
	signature := query.Get("signature")
	r.handed[signature]++
	used, signed := r.handed[signature], r.urls[signature]
	r.mu.Unlock()
	switch method := query.Get("method"); {
	case req.Header.Get("Authorization") != "":
		refuse(w, http.StatusBadRequest, "InvalidArgument")
		return
	case req.URL.RawQuery != signed, method != "" && method != q.Method, query.Get("uses") != "0" && query.Get("uses") < strconv.Itoa(used):
		refuse(w, http.StatusForbidden, "SignatureDoesNotMatch")
		return
	}
	found, code := r.find(Request{Kind: q.of, Repo: q.Repo, Ref: q.Ref})
	if code != "" {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	out := w
	if q.of == "blobs" {
		out = &blobCounter{w, r}
	}
	switch typed := query.Get("typed"); typed {
	case "":
		w.Header().Set("Content-Type", "application/octet-stream")
	case "-":
		w.Header()["Content-Type"] = nil
	default:
		w.Header().Set("Content-Type", typed)
	}
	w.Header().Set("ETag", `"`+Short(q.Ref)+`"`)
	http.ServeContent(out, req, "", time.Time{}, bytes.NewReader(found.body))
}

// refuse is an error of S3's.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code></Error>`, code)
}

// StorageError answers in the words of a storage.
func StorageError(status int, code string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) { refuse(w, status, code) }
}
