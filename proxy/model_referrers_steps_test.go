package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
)

// doStep changes the world, lets clients and operators do something, and asks
// about subjects.
func (m *referrersModel) doStep() {
	time.Sleep(time.Millisecond)
	for range m.random.IntN(3) {
		m.change()
	}
	switch m.random.IntN(8) {
	case 0, 1:
		if !without("faults") {
			m.note("a fault at %s", m.addFault())
		}
	case 2, 3:
		m.mend(false)
		m.note("a fault is mended")
	case 4:
		m.mend(true)
		m.note("all faults are mended")
	}
	m.look()
	switch m.random.IntN(3) {
	case 0:
		time.Sleep(pick(m.random, time.Second, 6*time.Second, 31*time.Second, 61*time.Second))
	case 1:
		time.Sleep(pick(m.random, 2*time.Minute, 5*time.Minute+time.Second, 11*time.Minute, time.Hour))
	}
	m.look() // a fault that goes on is at fault still
	for range m.random.IntN(3) {
		m.pull()
	}
	if m.random.IntN(6) == 0 {
		m.operate()
	}
	if !without("stories") && m.random.IntN(6) == 0 {
		pick(m.random, m.stories()...)(pick(m.random, m.faces...), pick(m.random, m.subjects...))
	}
	all := m.random.IntN(3) == 0
	for _, face := range m.faces {
		for _, s := range m.subjects {
			if all || m.random.IntN(3) == 0 {
				m.ask(face, s)
			}
		}
	}
}

// ask asks about a subject in all ways, in any order.
func (m *referrersModel) ask(face *modelMirror, s *modelSubject) {
	questions := []modelQuestion{
		{face: face, subject: s},
		{face: face, subject: s, filter: fmt.Sprintf("application/vnd.example.%d+json", m.random.IntN(3))},
		{face: face, subject: s, tag: true},
	}
	if !without("no-cache") && m.random.IntN(3) == 0 {
		questions = append(questions, modelQuestion{face: face, subject: s, tag: m.random.IntN(2) == 0, noCache: true})
	}
	questions = slices.DeleteFunc(questions, func(q modelQuestion) bool { return q.tag && without("tag") })
	if m.random.IntN(4) == 0 {
		questions = append(questions, modelQuestion{face: face, subject: s, tag: true, head: true})
	}
	m.random.Shuffle(len(questions), func(i, j int) { questions[i], questions[j] = questions[j], questions[i] })
	if m.random.IntN(4) == 0 {
		m.askTogether(questions)
	} else {
		for _, q := range questions {
			m.askAbout(q)
		}
	}
	if m.settings.cosign && m.random.IntN(2) == 0 {
		m.askCosign(face, s)
	}
}

// askTogether asks all questions at once, and the world changes meanwhile.
func (m *referrersModel) askTogether(questions []modelQuestion) {
	m.note("together:")
	var together sync.WaitGroup
	for _, q := range questions {
		together.Go(func() { m.askAbout(q) })
	}
	time.Sleep(time.Duration(m.random.IntN(3000)) * time.Millisecond)
	m.change()
	together.Wait()
}

func (m *referrersModel) change() {
	what := m.changeWorld()
	m.look()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("%s", what)
}

// recover mends everything, and waits until all that was learnt is old: then
// each answer is complete.
func (m *referrersModel) recover() {
	time.Sleep(time.Millisecond) // what was just seen has been seen
	m.mend(true)
	m.tidy()
	m.look()
	m.note("everything is well")
	for range 4 { // what is read over time begins when somebody asks
		for _, face := range m.faces {
			for _, s := range m.subjects {
				m.ask(face, s)
			}
		}
		time.Sleep(15 * time.Minute)
		m.look()
	}
	m.recovered = true
	for _, face := range m.faces {
		for _, s := range m.subjects {
			m.ask(face, s)
		}
		if !without("stories") {
			for _, story := range m.stories() {
				story(face, pick(m.random, m.subjects...))
			}
		}
	}
}

// tidy removes what nobody can read from all lists.
func (m *referrersModel) tidy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.endpoints {
		e.link = "usual"
		if e.mayBeMissed() {
			e.api = true
		}
		clear(e.extra)
		for _, s := range m.subjects {
			tag := e.tags[s.digest]
			if tag == nil {
				continue
			}
			if tag.foreign != nil || tag.refused {
				tag = nil
			} else {
				tag.entries = slices.DeleteFunc(tag.entries, func(entry modelEntry) bool { return entry.odd != "" || !m.held(entry.artifact.digest) })
			}
			e.setTag(s, tag)
		}
	}
}

// mayBeMissed says whether a mirror knows that the registry had an API.
func (e *modelEndpoint) mayBeMissed() bool { return len(e.seen) > 0 }

// pull lets a client pull something.
func (m *referrersModel) pull() {
	face := pick(m.random, m.faces...)
	s := pick(m.random, m.subjects...)
	ref, artifact := s.tag, (*modelArtifact)(nil)
	switch n := m.random.IntN(8); {
	case n == 0 && s.index != nil:
		ref = "all-" + s.tag
	case n == 1 && s.index != nil:
		ref, artifact = s.attestation.digest.String(), s.attestation
	case n < 5:
		if all := m.attachedTo(s); len(all) > 0 {
			artifact = pick(m.random, all...)
			ref = artifact.digest.String()
		}
	}
	method := pick(m.random, http.MethodGet, http.MethodGet, http.MethodHead)
	sent := m.sent(artifact)
	a := face.ask(method, "manifests/"+ref)
	m.note("%s is asked for %s %.19s: %d %s", face.name, method, ref, a.status, a.code)
	// What it keeps does not pass through. Behind a parent nobody sees that.
	if face.parent == nil && a.status == http.StatusOK && m.sent(artifact) > sent {
		m.mu.Lock()
		face.passed[artifact.digest] = time.Now()
		m.mu.Unlock()
	}
}

func (m *referrersModel) sent(a *modelArtifact) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a == nil {
		return 0
	}
	return m.opened[a.digest]
}

// askCosign asks for the tag under which cosign puts a signature.
func (m *referrersModel) askCosign(face *modelMirror, s *modelSubject) {
	a := face.ask(http.MethodGet, "manifests/"+s.cosignTag())
	m.mu.Lock()
	defer m.mu.Unlock()
	q := modelQuestion{face: face, subject: s}
	m.note("%s is asked for the signature of %s: %d %s%s %s", face.name, s.tag, a.status, a.code, a.warnings, m.named(a.digest))
	window := m.window(q, a.status == http.StatusNotFound) + a.took
	if a.status == http.StatusOK {
		m.opened[digest.Digest(a.digest)]++ // it is kept, though nobody asked for it by its digest
	}
	switch {
	case a.status == http.StatusOK && a.warnings == "":
		if !slices.ContainsFunc(s.since(time.Now().Add(-window)), func(v modelView) bool { return v.may[digest.Digest(a.digest)] }) {
			m.fail("%s answers the signature of %s with %s, which is not there", face.name, s.tag, m.named(a.digest))
		}
	case a.status == http.StatusNotFound && a.warnings == "": // else it repeats what was true once, and says so
		for _, d := range m.signatures(s, window) {
			m.fail("%s says that there is no signature of %s, and there was %s for %s", face.name, s.tag, m.named(string(d)), window)
		}
	case a.status == http.StatusOK:
		if artifact := m.artifacts[digest.Digest(a.digest)]; artifact == nil || !m.wasAttached(s, artifact) {
			m.fail("%s answers the signature of %s with %s, which never was one", face.name, s.tag, m.named(a.digest))
		}
		m.judgeExcuse(q, "its signature is stale")
	default:
		m.judgeExcuse(q, fmt.Sprintf("its signature is %d %s", a.status, a.code))
	}
}

// signatures are those that were there for the whole of a time.
func (m *referrersModel) signatures(s *modelSubject, window time.Duration) (all []digest.Digest) {
	for d := range m.artifacts {
		views := s.since(time.Now().Add(-window))
		if strings.HasPrefix(m.artifacts[d].name, "sig") && m.wasAttached(s, m.artifacts[d]) &&
			!slices.ContainsFunc(views, func(v modelView) bool { return !v.must[d] }) {
			all = append(all, d)
		}
	}
	return all
}

func (m *referrersModel) named(d string) string {
	if a := m.artifacts[digest.Digest(d)]; a != nil {
		return a.name
	}
	return d
}

// operate is what an operator, or the power supply, does.
func (m *referrersModel) operate() {
	face := pick(m.random, m.faces...)
	switch how := pick(m.random, "purge", "purge", "stopped", "stopped", "killed", "damaged", "dated"); {
	case without(how):
	case how == "purge":
		s := pick(m.random, m.subjects...)
		ref := s.tag
		switch m.random.IntN(4) {
		case 0:
			ref = s.digest.String()
		case 1:
			if all := m.attachedTo(s); len(all) > 0 {
				ref = pick(m.random, all...).digest.String()
			}
		case 2:
			ref = s.fallbackTag()
		}
		_, err := face.mirror.Retention.Purge(context.Background(), retention.Target{Repository: metadata.Repository{Upstream: "hub.test", Name: modelRepo}, Ref: ref}, false)
		m.note("%s purges %.19s: %v", face.name, ref, err)
		face.forget()
	default:
		m.note("%s is %s", face.name, how)
		face.restart(how)
	}
}
