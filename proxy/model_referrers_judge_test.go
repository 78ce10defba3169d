package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// modelQuestion is what a client asks about a subject.
type modelQuestion struct {
	face    *modelMirror
	subject *modelSubject
	tag     bool   // by the tag sha256-<hex>, and not by the API
	filter  string // an artifact type, for the API
	noCache bool
	head    bool // by HEAD, for the tag
	after   int  // how many answers had been judged when it was asked
}

func (q modelQuestion) String() string {
	route := "the API"
	if q.tag {
		route = "the tag"
	}
	if q.filter != "" {
		route += " for " + q.filter
	}
	if q.noCache {
		route += " without a cache"
	}
	if q.head {
		route += " by HEAD"
	}
	return fmt.Sprintf("%s asked by %s about %s", q.face.name, route, q.subject.tag)
}

// describes says whether a descriptor is that of an artifact. A parent's API
// lists what has no subject, and only its own sources know how it is attached.
func (q modelQuestion) describes(d ocispec.Descriptor, a *modelArtifact) bool {
	return sameDescriptor(d, a.derived) || q.face.parent != nil && sameDescriptor(d, a.itself)
}

// wants says whether an artifact is of the type that is asked for, whoever
// describes it.
func (q modelQuestion) wants(a *modelArtifact) bool {
	return q.filter == "" || a.derived.ArtifactType == q.filter && a.itself.ArtifactType == q.filter
}

// askAbout asks about the referrers of a subject, and judges the answer.
func (m *referrersModel) askAbout(q modelQuestion) {
	var header []string
	if q.noCache {
		header = []string{"Cache-Control", "no-cache"}
	}
	path := "referrers/" + q.subject.digest.String()
	if q.tag {
		path = "manifests/" + q.subject.fallbackTag()
	}
	if q.filter != "" {
		path += "?artifactType=" + url.QueryEscape(q.filter)
	}
	method := http.MethodGet
	if q.head {
		method = http.MethodHead
	}
	m.mu.Lock()
	q.after = m.judged
	m.mu.Unlock()
	a := q.face.ask(method, path, header...)
	if q.tag && a.status == http.StatusOK {
		a = m.askByDigest(q, a)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.judged++
	if q.face.evicted.Swap(false) {
		q.face.forget()
	}
	m.judge(q, a)
}

// askByDigest asks for what stands under the tag by its own digest, as clients
// do (wire fact W57). An answer to HEAD then has the body that is meant.
func (m *referrersModel) askByDigest(q modelQuestion, a modelAnswer) modelAnswer {
	again := q.face.ask(http.MethodGet, "manifests/"+a.digest)
	switch {
	case again.status != http.StatusOK && m.settings.maxBytes > 0:
		// It may have been evicted.
	case again.status != http.StatusOK || !q.head && !bytes.Equal(again.body, a.body):
		m.fail("%s: by its digest %s it is %d %s, %.100s", q, a.digest, again.status, again.code, again.body)
	case q.head:
		a.body = again.body
	}
	return a
}

func (m *referrersModel) judge(q modelQuestion, a modelAnswer) {
	if a.took > 20*time.Second {
		m.fail("%s: it took %s", q, a.took)
	}
	if q.head && a.status == http.StatusOK && len(a.body) == 0 {
		m.note("%s: %d %s", q, a.status, a.warnings)
		return // nobody has what it means
	}
	var list []ocispec.Descriptor
	if a.status == http.StatusOK {
		if q.tag && m.isForeign(q, a) {
			m.counts["foreign"]++
			m.note("%s: an image of somebody's own %s", q, a.warnings)
			if now := q.subject.views[len(q.subject.views)-1]; a.warnings != "" && !now.withheld {
				m.judgeExcuse(q, "it is stale")
			}
			return
		}
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); q.tag && a.has("299") && a.has("110") {
			m.note("%s: the upstream's own words: %s", q, a.body)
			m.judgeExcuse(q, "it is stale")
			return
		} else if err != nil || a.typed != ocispec.MediaTypeImageIndex || index.Manifests == nil || index.SchemaVersion != 2 {
			m.fail("%s: not a list: %s %.200s, %v", q, a.typed, a.body, err)
			return
		}
		if got := digest.FromBytes(a.body).String(); q.tag && a.digest != got {
			m.fail("%s: its digest is %s, and not %s", q, got, a.digest)
		}
		list = index.Manifests
		if q.tag && m.isForeignIndex(q, list) {
			m.counts["foreign"]++
			m.note("%s: an index of somebody's own: %s", q, m.names(list))
			return
		}
	}
	m.note("%s: %d %s%s %s", q, a.status, a.code, a.warnings, m.names(list))
	known := a.status == http.StatusOK || q.tag && a.status == http.StatusNotFound
	switch {
	case a.err != nil:
		m.fail("%s: %v", q, a.err)
	case known && a.warnings == "":
		m.counts["known"]++
		m.judgeKnown(q, list, a.took)
	case known:
		m.counts["stale"]++
		m.judgeStale(q, a, list)
	default:
		m.counts["unknown"]++
		if (!q.tag || a.status != http.StatusBadRequest) && !slices.Contains([]int{http.StatusForbidden, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, a.status) {
			m.fail("%s: %d %s", q, a.status, a.code)
		}
		m.judgeExcuse(q, fmt.Sprintf("%d %s", a.status, a.code))
	}
}

// judgeExcuse fails the run where an answer is not complete without a reason.
func (m *referrersModel) judgeExcuse(q modelQuestion, what string) {
	if !m.isExcused(q.face, q.subject) {
		m.fail("%s: %s, and nothing fails", q, what)
	}
}

// isForeign says whether the answer is an image that somebody has under the tag.
func (m *referrersModel) isForeign(q modelQuestion, a modelAnswer) bool {
	for _, foreign := range m.artifacts {
		if strings.HasPrefix(foreign.name, "foreign") && bytes.Equal(a.body, foreign.body) {
			return true
		}
	}
	return false
}

// isForeignIndex says whether the answer is an index that lists nothing that is
// attached to the subject, while nothing is. Nobody can tell that from an image
// that somebody has under the tag.
func (m *referrersModel) isForeignIndex(q modelQuestion, list []ocispec.Descriptor) bool {
	for _, v := range q.subject.since(time.Now().Add(-m.window(q, false))) {
		if len(v.must) == 0 {
			return len(list) > 0 && !slices.ContainsFunc(list, func(d ocispec.Descriptor) bool {
				a := m.artifacts[d.Digest]
				return a != nil && (a.subject == q.subject.digest || m.wasAttached(q.subject, a))
			})
		}
	}
	return false
}

// askedAnew is for how long a mirror does not ask anew for a client's sake what it
// has just asked.
const askedAnew = 5 * time.Second

// window is how old an answer may be, whatever mirrors it has come through
// (decision 9). What a client wishes is passed on to a parent, which may have
// asked anew just before, too.
func (m *referrersModel) window(q modelQuestion, empty bool) time.Duration {
	window := m.settings.referrersTTL
	if empty && q.filter == "" {
		window = min(window, m.settings.negativeTTL)
	}
	anew := askedAnew
	if q.face.parent != nil {
		anew *= 2
	}
	if q.noCache {
		window = min(window, anew)
	}
	return window
}

// judgeKnown judges a list that says that it is all there is.
func (m *referrersModel) judgeKnown(q modelQuestion, list []ocispec.Descriptor, took time.Duration) {
	s, now := q.subject, time.Now()
	window := m.window(q, len(list) == 0) + took
	views := s.since(now.Add(-window))
	must, may := maps.Clone(views[0].must), map[digest.Digest]bool{}
	for _, v := range views {
		maps.DeleteFunc(must, func(d digest.Digest, _ bool) bool { return !v.must[d] })
		maps.Copy(may, v.may)
	}
	if q.face.parent != nil {
		// A parent serves what it keeps, so nobody behind it learns that it is
		// gone.
		for _, a := range m.attachedTo(s) {
			may[a.digest] = may[a.digest] || m.opened[a.digest] > 0
		}
	}
	for d := range q.face.passed {
		if time.Since(q.face.passed[d]) < took || slices.ContainsFunc(s.since(q.face.passed[d]), func(v modelView) bool { return !v.may[d] }) || !m.held(d) {
			continue
		}
		if m.isAttachedTo(s, d) {
			must[d] = true
		}
	}
	listed := map[digest.Digest]bool{}
	for _, d := range list {
		a := m.artifacts[d.Digest]
		switch {
		case listed[d.Digest]:
			m.fail("%s: %s is listed twice", q, d.Digest)
		case a == nil || !may[d.Digest]:
			m.fail("%s: it lists %s, which is not there", q, m.names([]ocispec.Descriptor{d}))
		case !q.describes(d, a):
			m.fail("%s: it describes %s as %s, and it is %s", q, a.name, asJSON(d), asJSON(a.derived))
		case q.filter != "" && d.ArtifactType != q.filter:
			m.fail("%s: it lists %s, of another type", q, a.name)
		}
		listed[d.Digest] = true
	}
	for d := range must {
		if a := m.artifacts[d]; !listed[d] && q.wants(a) {
			m.fail("%s: it lists all there is, without %s, which was there for %s; faults: %s", q, a.name, window, m.faultsNow())
		}
	}
	if all := m.unable(q.face, views); len(all) > 0 {
		m.fail("%s: it lists all there is, and could not ask %s", q, strings.Join(all, ", "))
	}
	if q.filter == "" {
		last := views[len(views)-1]
		maps.DeleteFunc(listed, func(d digest.Digest, _ bool) bool { return !last.must[d] })
		q.face.known[s] = knownList{listed, m.judged}
	}
}

// isAttachedTo says whether an artifact that came through a mirror has to be
// listed for a subject.
func (m *referrersModel) isAttachedTo(s *modelSubject, d digest.Digest) bool {
	return m.artifacts[d].subject == s.digest
}

// judgeStale judges an answer with a warning.
func (m *referrersModel) judgeStale(q modelQuestion, a modelAnswer, list []ocispec.Descriptor) {
	if a.status == http.StatusOK && !a.has("110") || !a.has("110") && !a.has("299") {
		m.fail("%s: its warning is %s", q, a.warnings)
	}
	s, known := q.subject, map[digest.Digest]bool(nil)
	if last := q.face.known[s]; last.judged <= q.after { // else it may have answered this one first
		known = last.listed
	}
	listed := map[digest.Digest]bool{}
	for _, d := range list {
		artifact := m.artifacts[d.Digest]
		listed[d.Digest] = true
		switch {
		case strings.HasPrefix(string(d.Digest), "blake3:"): // nobody can say more than that it is listed
		case artifact == nil || artifact.subject != s.digest && !s.claimed[d.Digest] && (artifact.subject != "" || !m.wasAttached(s, artifact)):
			m.fail("%s: it lists %s, which never was a referrer", q, m.names([]ocispec.Descriptor{d}))
		case q.describes(d, artifact):
		case known[d.Digest]:
			m.fail("%s: it describes %s as %s, and described it as %s before", q, artifact.name, asJSON(d), asJSON(artifact.derived))
		case !slices.ContainsFunc(slices.Collect(maps.Values(artifact.listed)), func(claim ocispec.Descriptor) bool { return sameDescriptor(d, claim) }):
			m.fail("%s: it describes %s as %s, as nobody did", q, artifact.name, asJSON(d))
		}
	}
	for d := range known {
		if a.status == http.StatusNotFound && m.refuses() {
			break // no record stands in for a refusal
		}
		if a := m.artifacts[d]; !listed[d] && q.wants(a) {
			m.fail("%s: it hides %s, which it has listed before and which is still there", q, a.name)
		}
	}
	m.judgeExcuse(q, "it is stale")
}

// wasAttached says whether something without a subject was ever attached to one.
func (m *referrersModel) wasAttached(s *modelSubject, a *modelArtifact) bool {
	return a == s.attestation || strings.HasSuffix(a.name, " of "+s.tag)
}

func (m *referrersModel) faultsNow() string {
	var all []string
	for _, e := range m.endpoints {
		all = append(all, fmt.Sprintf("%s %v", e.name, e.faults))
	}
	return strings.Join(all, ", ")
}

func (m *referrersModel) names(list []ocispec.Descriptor) string {
	all := []string{}
	for _, d := range list {
		if a := m.artifacts[d.Digest]; a != nil {
			all = append(all, a.name)
		} else {
			all = append(all, d.Digest.String())
		}
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func sameDescriptor(a, b ocispec.Descriptor) bool { return asJSON(a) == asJSON(b) }

func asJSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
