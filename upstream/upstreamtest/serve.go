package upstreamtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Request is one request, as rules see it.
type Request struct {
	Method, Kind, Repo, Ref string
	Range                   string
	of                      string // kind of what a storage is asked for
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/token" || strings.HasPrefix(req.URL.Path, "/token/") {
		scope := req.URL.Query().Get("scope")
		r.note(req.Method + " token " + scope)
		r.meet(w, req, Request{Method: req.Method, Kind: "token", Ref: scope})
		return
	}
	q, ok := parse(req)
	if !ok {
		http.NotFound(w, req)
		return
	}
	r.note(line(q.Method, q.Kind, q.Repo, q.Ref, q.Range))
	r.meet(w, req, q)
}

// meet lets a request meet the faults of all requests and its own.
func (r *Registry) meet(w http.ResponseWriter, req *http.Request, q Request) {
	if !r.admit(w, req, q) {
		return
	}
	r.mu.Lock()
	chain := slices.Clone(r.everywhere)
	r.mu.Unlock()
	if f := r.fault(q); f != nil {
		chain = append(chain, f)
	}
	Combine(chain...)(r, w, req, q)
}

func (r *Registry) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, s)
}

func parse(req *http.Request) (Request, bool) {
	q := Request{Method: req.Method, Range: req.Header.Get("Range")}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		return q, false
	}
	if rest == "" {
		q.Kind = "ping"
		return q, true
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		q.Kind, q.Repo, q.Ref = "tags", repo, req.URL.Query().Encode()
		return q, true
	}
	for _, kind := range []string{"manifests", "blobs", "referrers"} {
		if at := strings.LastIndex(rest, "/"+kind+"/"); at > 0 {
			q.Kind, q.Repo, q.Ref = kind, rest[:at], rest[at+len(kind)+2:]
			return q, true
		}
	}
	return q, false
}

// answer is what a registry says behind the faults that are left.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request, q Request) {
	if next, req := following(req); next != nil {
		next(r, w, req, q)
		return
	}
	switch q.Kind {
	case "token":
		r.answerToken(w, req, q)
		return
	case "storage":
		r.answerStorage(w, req, q)
		return
	case "ping":
		reply(w, "application/json", struct{}{})
		return
	case "tags":
		r.answerTags(w, req, q)
		return
	case "referrers":
		r.answerReferrers(w, req, q)
		return
	}
	found, code := r.find(q)
	if code != "" {
		complain(w, http.StatusNotFound, code)
		return
	}
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Docker-Content-Digest", found.digest.String())
	out := w
	if q.Kind == "blobs" {
		out = &blobCounter{w, r}
	}
	http.ServeContent(out, req, "", time.Time{}, bytes.NewReader(found.body))
}

func (r *Registry) find(q Request) (item, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, ok := r.content[q.Repo]
	if !ok {
		return item{}, "NAME_UNKNOWN"
	}
	found, ok := all[q.Ref]
	switch {
	case q.Kind == "blobs" && !ok:
		return item{}, "BLOB_UNKNOWN"
	case !ok || q.Kind == "manifests" && found.blob:
		return item{}, "MANIFEST_UNKNOWN"
	}
	return found, ""
}

type blobCounter struct {
	http.ResponseWriter
	r *Registry
}

func (c *blobCounter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.r.mu.Lock()
	c.r.blobBytes += int64(n)
	c.r.mu.Unlock()
	return n, err
}

func (r *Registry) answerTags(w http.ResponseWriter, req *http.Request, q Request) {
	r.mu.Lock()
	var tags []string
	for ref := range r.content[q.Repo] {
		if !strings.Contains(ref, ":") {
			tags = append(tags, ref)
		}
	}
	_, known := r.content[q.Repo]
	r.mu.Unlock()
	if !known {
		complain(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	slices.Sort(tags)
	query := req.URL.Query()
	if last := query.Get("last"); last != "" {
		tags = slices.DeleteFunc(tags, func(tag string) bool { return tag <= last })
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil {
		n = r.pageSize
	}
	if n > 0 && n < len(tags) {
		tags = tags[:n]
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {tags[n-1]}}
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?%s>; rel="next"`, q.Repo, next.Encode()))
	}
	reply(w, "application/json", map[string]any{"name": q.Repo, "tags": tags})
}

func (r *Registry) answerReferrers(w http.ResponseWriter, req *http.Request, q Request) {
	if !r.api {
		http.NotFound(w, req)
		return
	}
	r.mu.Lock()
	list := []ocispec.Descriptor{}
	for ref, it := range r.content[q.Repo] {
		var m ocispec.Manifest
		if it.blob || !strings.Contains(ref, ":") || json.Unmarshal(it.body, &m) != nil || m.Subject == nil || m.Subject.Digest.String() != q.Ref {
			continue
		}
		artifactType := m.ArtifactType
		if artifactType == "" {
			artifactType = m.Config.MediaType
		}
		list = append(list, ocispec.Descriptor{
			MediaType: it.mediaType, Digest: digest.Digest(ref), Size: int64(len(it.body)),
			ArtifactType: artifactType, Annotations: m.Annotations,
		})
	}
	r.mu.Unlock()
	if only := req.URL.Query()["artifactType"]; r.filter && len(only) > 0 {
		list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return !slices.Contains(only, d.ArtifactType) })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	if after := req.URL.Query().Get("after"); after != "" {
		list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Digest.String() <= after })
	}
	if n := r.pageSize; n > 0 && n < len(list) {
		list = list[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/referrers/%s?after=%s&page=%d>; rel="next"`, q.Repo, q.Ref, list[n-1].Digest, pageOf(req)+1))
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	reply(w, ocispec.MediaTypeImageIndex, index)
}

func reply(w http.ResponseWriter, mediaType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

func complain(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(`{"errors":[{"code":%q,"message":"the registry says so"}]}`, code))
}
