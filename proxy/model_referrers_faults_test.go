package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// modelFault is a way in which a registry fails, and where.
type modelFault struct {
	scope string
	child digest.Digest // of the scope "child"
	how   string
}

func (f *modelFault) String() string {
	if f.scope == "child" {
		return fmt.Sprintf("%s for %.15s", f.how, f.child)
	}
	return fmt.Sprintf("%s for %s", f.how, f.scope)
}

// modelFaults are the faults by their names, but for those that need the answer.
var modelFaults = map[string]upstreamtest.Fault{
	"503":                  upstreamtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE"),
	"500":                  upstreamtest.Status(http.StatusInternalServerError, "UNKNOWN"),
	"429":                  upstreamtest.RateLimited(20),
	"401":                  upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED"),
	"403":                  upstreamtest.Status(http.StatusForbidden, "DENIED"),
	"404":                  upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"),
	"400":                  upstreamtest.Status(http.StatusBadRequest, "INVALID"),
	"405":                  upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"),
	"a hang-up":            upstreamtest.Hangup(),
	"silence":              upstreamtest.Silent(),
	"a page":               upstreamtest.HTML(),
	"a page with 404":      upstreamtest.Page(http.StatusNotFound),
	"a page with 403":      upstreamtest.Page(http.StatusForbidden),
	"null":                 upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte("null")),
	"{}":                   upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte("{}")),
	"errors with 200":      upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte(`{"errors":[{"code":"UNKNOWN"}]}`)),
	"an image":             upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`)),
	"an index of nothing":  upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`)),
	"an index of Manifest": upstreamtest.Body(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","Manifests":[]}`)),
}

// modelFaultsOf are the ways in which each of the sources fails.
var modelFaultsOf = map[string][]string{
	"everything": {"503", "429", "a hang-up", "silence", "slow", "a page", "a page with 403", "500"},
	"the API": {
		"503", "500", "429", "401", "403", "a hang-up", "silence", "slow", "a page", "a page with 404", "a page with 403", "half", "a warning",
		"null", "{}", "errors with 200", "an image", "an index of nothing", "an index of Manifest",
	},
	"later pages":       {"404", "400", "503", "429", "a hang-up", "a page", "a page with 404", "null", "half"},
	"tags":              {"503", "500", "429", "401", "403", "a hang-up", "silence", "slow", "a page", "a page with 404", "{}", "errors with 200", "half", "a warning"},
	"HEAD of tags":      {"400", "401", "403", "405", "503", "silence"},
	"HEAD of manifests": {"400", "401", "403", "404", "405"},
	"cosign's tags":     {"503", "429", "403", "a hang-up", "a page with 404", "half", "a warning"},
	"children":          {"503", "429", "403", "a hang-up", "silence", "a page", "a page with 404", "half", "slow"},
	"child":             {"503", "500", "403", "a hang-up", "a page with 404", "half"},
}

// harmless says whether a fault leaves another way to ask.
func (f *modelFault) harmless() bool {
	return f.scope == "HEAD of manifests" || f.scope == "HEAD of tags" && f.how != "503" && f.how != "silence"
}

// scopes are the scopes that a request belongs to.
func (w *modelWorld) scopes(q upstreamtest.Request, req *http.Request) []string {
	all := []string{"everything"}
	switch {
	case q.Kind == "referrers" && req.URL.Query().Get("after") != "":
		all = append(all, "the API", "later pages")
	case q.Kind == "referrers":
		all = append(all, "the API")
	case q.Kind != "manifests":
	case strings.HasSuffix(q.Ref, ".sig"):
		all = append(all, "cosign's tags")
	case strings.HasPrefix(q.Ref, "sha256-"):
		if all = append(all, "tags"); q.Method == http.MethodHead {
			all = append(all, "HEAD of tags")
		}
	case w.isReferrer(digest.Digest(q.Ref)):
		if all = append(all, "children", "child"); q.Method == http.MethodHead {
			all = append(all, "HEAD of manifests")
		}
	case q.Method == http.MethodHead:
		all = append(all, "HEAD of manifests")
	}
	return all
}

// isReferrer says whether a manifest may be listed for another one.
func (w *modelWorld) isReferrer(d digest.Digest) bool {
	a := w.artifacts[d]
	return a != nil && !slices.ContainsFunc(w.subjects, func(s *modelSubject) bool { return s.modelArtifact == a || s.index == a })
}

func (e *modelEndpoint) faultOf(q upstreamtest.Request, req *http.Request) *modelFault {
	scopes := e.world.scopes(q, req)
	for _, f := range e.faults {
		if slices.Contains(scopes, f.scope) && (f.scope != "child" || string(f.child) == q.Ref) {
			return f
		}
	}
	return nil
}

// refuses says whether a registry denies access to anything.
func (w *modelWorld) refuses() bool {
	return slices.ContainsFunc(w.endpoints, func(e *modelEndpoint) bool {
		return slices.ContainsFunc(e.faults, func(f *modelFault) bool { return f.how == "401" || f.how == "403" })
	})
}

// fails says whether a source of a registry fails altogether.
func (e *modelEndpoint) fails(scopes ...string) bool {
	return slices.ContainsFunc(e.faults, func(f *modelFault) bool { return slices.Contains(scopes, f.scope) && f.how != "slow" })
}

// onlyWarns says whether a registry does no more than to warn that it could not
// ask its own upstream. What it refuses for its rules on tags it refuses all the
// same.
func (e *modelEndpoint) onlyWarns(scope string) bool {
	return !e.fails("everything") && !slices.ContainsFunc(e.faults, func(f *modelFault) bool { return f.scope == scope && f.how != "a warning" })
}

// opens says whether a registry sends a manifest.
func (e *modelEndpoint) opens(d digest.Digest) bool {
	return e.holds[d] && !e.fails("everything", "children") &&
		!slices.ContainsFunc(e.faults, func(f *modelFault) bool { return f.scope == "child" && f.child == d })
}

// isFailing says whether anything fails, so that an answer may be stale or an
// error. The world is looked at again after each change.
func (w *modelWorld) isFailing() bool {
	return slices.ContainsFunc(w.endpoints, func(e *modelEndpoint) bool {
		return slices.ContainsFunc(e.faults, func(f *modelFault) bool { return !f.harmless() })
	})
}

// isSlow says whether anything takes its time.
func (w *modelWorld) isSlow() bool {
	return slices.ContainsFunc(w.endpoints, func(e *modelEndpoint) bool {
		return slices.ContainsFunc(e.faults, func(f *modelFault) bool { return f.how == "slow" || f.how == "silence" })
	})
}

// addFault lets something fail.
func (w *modelWorld) addFault() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := pick(w.random, w.endpoints...)
	f := &modelFault{scope: pick(w.random, "everything", "the API", "the API", "the API", "later pages", "tags", "tags", "HEAD of tags", "HEAD of manifests", "cosign's tags", "children", "child")}
	f.how = pick(w.random, modelFaultsOf[f.scope]...)
	if f.scope == "child" {
		var all []*modelArtifact
		for _, s := range w.subjects {
			all = append(all, w.attachedTo(s)...)
		}
		if len(all) == 0 {
			return "no fault"
		}
		f.child = pick(w.random, all...).digest
	}
	if f.how == "slow" || w.isSlow() {
		e.faults = nil // what is slow fails in no other way meanwhile
	}
	e.faults = append(e.faults, f)
	return fmt.Sprintf("%s: %s", e.name, f)
}

// mend ends all faults, or one.
func (w *modelWorld) mend(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.endpoints {
		if n := len(e.faults); n > 0 {
			w.failedAt = time.Now()
			if w.isSlow() {
				w.slowAt = time.Now()
			}
			if e.faults = e.faults[1:]; all {
				e.faults = nil
			}
		}
	}
}
