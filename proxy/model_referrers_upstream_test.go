package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// modelEndpoint is a registry of the model. It answers from what the world says.
type modelEndpoint struct {
	world    *modelWorld
	name     string
	registry *upstreamtest.Registry

	api      bool
	gainedAt time.Time // when it was given its API; zero for one that has always had it
	noAPI    string    // how it says that it has none
	quay     bool      // says 400 for an empty list (W43)
	claims   string    // how it describes what it lists
	pageSize int       // of its API; 0 for no pages
	link     string    // how it writes the Link to the next page
	storage  bool      // sends manifests as binary/octet-stream

	holds  map[digest.Digest]bool
	extra  map[digest.Digest][]modelEntry // what the API lists beside what names the subject
	tags   map[digest.Digest]*modelTag
	cosign map[string]*modelArtifact // by tag
	faults []*modelFault
	// hadOther are the subjects under whose tag it has had something else.
	hadOther map[digest.Digest]bool
	// seen says since when a mirror has had a list of its API.
	seen map[string]time.Time
	// forgot are the mirrors that may have forgotten that.
	forgot map[string]bool
}

// modelTag is what stands under a fallback tag: a list, or something else.
type modelTag struct {
	foreign *modelArtifact
	refused bool // the registry has rules for the names of tags
	entries []modelEntry
}

// modelEntry is what a registry lists: an artifact, or an entry that nobody can
// read.
type modelEntry struct {
	artifact *modelArtifact
	odd      string
}

func (w *modelWorld) addEndpoint() {
	e := &modelEndpoint{
		world: w, name: fmt.Sprint("registry", len(w.endpoints)), registry: upstreamtest.New(w.t, upstreamtest.WithNetwork(&w.net)),
		holds: map[digest.Digest]bool{}, extra: map[digest.Digest][]modelEntry{}, tags: map[digest.Digest]*modelTag{}, cosign: map[string]*modelArtifact{},
		hadOther: map[digest.Digest]bool{}, seen: map[string]time.Time{}, forgot: map[string]bool{},
	}
	e.api = w.random.IntN(2) == 0
	e.change()
	e.registry.Throughout(e.serve)
	w.endpoints = append(w.endpoints, e)
}

// change changes the registry's ways.
func (e *modelEndpoint) change() {
	random := e.world.random
	e.noAPI = pick(random, "404 in plain text", "404", "405", "406", "a web site")
	e.quay = random.IntN(4) == 0
	e.claims = pick(random, "right", "right", "poor", "bare", "another size", "untyped", "with numbers")
	e.pageSize = pick(random, 0, 0, 1, 2)
	if e.world.isLong() {
		e.pageSize *= 200 // or each question would be hundreds of requests
	}
	e.link = pick(random, "usual", "usual", "last next", "unquoted", "with a title", "another host", "no brackets", "itself")
	e.storage = random.IntN(4) == 0
}

func (e *modelEndpoint) ways() string {
	return fmt.Sprintf("API %v or %q, claims %q, pages of %d, link %q, quay %v, storage %v", e.api, e.noAPI, e.claims, e.pageSize, e.link, e.quay, e.storage)
}

// brokenLink says whether the next page of a list can't be found.
func (e *modelEndpoint) brokenLink() bool { return e.link == "no brackets" || e.link == "itself" }

// put pushes a manifest.
func (e *modelEndpoint) put(a *modelArtifact, tags ...string) {
	e.registry.AddManifestAs(modelRepo, a.digest, a.typed, a.body, tags...)
	e.holds[a.digest] = true
}

// remove deletes a manifest.
func (e *modelEndpoint) remove(a *modelArtifact) {
	e.registry.Remove(modelRepo, a.digest.String())
	delete(e.holds, a.digest)
	e.world.goneAt = time.Now()
}

// setTag writes what stands under the fallback tag of a subject; nil deletes it.
func (e *modelEndpoint) setTag(s *modelSubject, tag *modelTag) {
	e.tags[s.digest] = tag
	switch {
	case tag == nil:
		delete(e.tags, s.digest)
		e.registry.Remove(modelRepo, s.fallbackTag())
	case tag.foreign != nil:
		e.hadOther[s.digest] = true
		e.put(tag.foreign, s.fallbackTag())
	default:
		e.registry.AddManifest(modelRepo, ocispec.MediaTypeImageIndex, indexOf(e.render(tag.entries)), s.fallbackTag())
	}
}

func (e *modelEndpoint) setCosign(s *modelSubject, a *modelArtifact) {
	if a == nil {
		delete(e.cosign, s.cosignTag())
		e.registry.Remove(modelRepo, s.cosignTag())
		return
	}
	e.put(a, s.cosignTag())
	e.cosign[s.cosignTag()] = a
}

// apiList is what the API lists for a subject.
func (e *modelEndpoint) apiList(subject digest.Digest) (all []modelEntry) {
	for d := range e.holds {
		if a := e.world.artifacts[d]; a.subject == subject {
			all = append(all, modelEntry{artifact: a})
		}
	}
	slices.SortFunc(all, func(a, b modelEntry) int {
		return strings.Compare(string(a.artifact.digest), string(b.artifact.digest))
	})
	return append(all, e.extra[subject]...)
}

func (e *modelEndpoint) render(entries []modelEntry) (all []string) {
	for _, entry := range entries {
		if entry.odd != "" {
			all = append(all, entry.odd)
			continue
		}
		claim := entry.artifact.derived
		numbers := false
		switch e.claims {
		case "poor": // as older clients write it (W51)
			claim.ArtifactType, claim.Annotations = ocispec.MediaTypeEmptyJSON, nil
		case "bare":
			claim.ArtifactType, claim.Annotations = "", nil
		case "another size":
			claim.Size++
		case "untyped":
			claim.MediaType = ""
		case "with numbers":
			claim.Annotations, numbers = nil, true
		}
		entry.artifact.listed[e.claims] = claim
		raw, err := json.Marshal(claim)
		if err != nil {
			e.world.t.Error(err)
		}
		if text := string(raw); numbers {
			raw = []byte(strings.TrimSuffix(text, "}") + `,"annotations":{"n":1}}`)
		}
		all = append(all, string(raw))
	}
	return all
}

func indexOf(entries []string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, strings.Join(entries, ","))
}

// serve answers a request.
func (e *modelEndpoint) serve(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
	e.world.mu.Lock()
	fault := e.faultOf(q, req)
	e.world.mu.Unlock()
	if fault == nil {
		e.respond(r, w, req, q)
		return
	}
	switch fault.how {
	case "slow":
		late := time.NewTimer(20 * time.Second)
		defer late.Stop()
		select {
		case <-late.C:
			e.respond(r, w, req, q)
		case <-req.Context().Done():
		}
	case "a warning": // it could not ask its own upstream, and this is what it remembers
		w.Header().Set("Warning", `110 - "response is stale"`)
		e.respond(r, w, req, q)
	case "half":
		whole, unseen := httptest.NewRecorder(), req.Clone(req.Context())
		unseen.Header.Del("User-Agent") // no mirror learns anything of half an answer
		e.respond(r, whole, unseen, q)
		for name, values := range whole.Header() {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Length", fmt.Sprint(whole.Body.Len()))
		w.WriteHeader(whole.Code)
		_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
		panic(http.ErrAbortHandler)
	default:
		modelFaults[fault.how](r, w, req, q)
	}
}

// respond answers a request that meets no fault.
func (e *modelEndpoint) respond(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
	if q.Kind == "referrers" {
		e.respondReferrers(r, w, req, q)
		return
	}
	e.world.mu.Lock()
	storage, d := e.storage, digest.Digest(q.Ref)
	refused := e.refuses(q.Ref)
	if q.Kind == "manifests" && q.Method == http.MethodGet && e.holds[d] {
		e.world.opened[d]++
	}
	e.world.mu.Unlock()
	switch {
	case q.Kind == "manifests" && refused:
		upstreamtest.Status(http.StatusBadRequest, "TAG_INVALID")(r, w, req, q)
	case q.Kind == "manifests" && storage && r.SizeOf(q.Repo, q.Ref) > 0:
		upstreamtest.Typed("binary/octet-stream")(r, w, req, q)
	default:
		r.Answer(w, req, q)
	}
}

func (e *modelEndpoint) refuses(tag string) bool {
	for _, s := range e.world.subjects {
		if s.fallbackTag() == tag {
			return e.tags[s.digest] != nil && e.tags[s.digest].refused
		}
	}
	return false
}

func (e *modelEndpoint) respondReferrers(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	if !e.api {
		map[string]upstreamtest.Fault{
			"404 in plain text": upstreamtest.Said(http.StatusNotFound, "text/plain; charset=utf-8", "404 page not found\n"),
			"404":               upstreamtest.Status(http.StatusNotFound, "UNSUPPORTED"),
			"405":               upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"),
			"406":               upstreamtest.Status(http.StatusNotAcceptable, "UNSUPPORTED"),
			"a web site":        upstreamtest.ToPage(http.StatusSeeOther, "/web/site"),
		}[e.noAPI](r, w, req, q)
		return
	}
	all := e.apiList(digest.Digest(q.Ref))
	if e.quay && len(all) == 0 {
		upstreamtest.Status(http.StatusBadRequest, "MANIFEST_INVALID")(r, w, req, q)
		return
	}
	from := 0
	_, _ = fmt.Sscan(req.URL.Query().Get("after"), &from)
	page := all[min(from, len(all)):]
	if e.pageSize > 0 && len(page) > e.pageSize {
		page = page[:e.pageSize]
		path := fmt.Sprintf("/v2/%s/referrers/%s?after=", q.Repo, q.Ref)
		next := fmt.Sprint(path, from+len(page))
		w.Header().Set("Link", map[string]string{
			"usual":        "<" + next + `>; rel="next"`,
			"last next":    "<" + next + `>; rel="last next"`,
			"unquoted":     "<" + next + ">;rel=next",
			"with a title": "<" + next + `>; title="a, b; <c>"; rel="next"`,
			"another host": "<https://another.test" + next + `>; rel="next"`,
			"no brackets":  next + `; rel="next"`,
			"itself":       "<" + fmt.Sprint(path, from) + `>; rel="next"`,
		}[e.link])
	}
	if agent := req.Header.Get("User-Agent"); from == 0 && agent != "" {
		if e.seen[agent].IsZero() || e.forgot[agent] {
			e.seen[agent] = time.Now()
		}
		delete(e.forgot, agent)
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = w.Write(indexOf(e.render(page)))
}
