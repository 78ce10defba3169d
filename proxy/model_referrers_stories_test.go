package proxy_test

import (
	"fmt"
	"net/http"
	"time"
)

// Some faults of a mirror show only where several things happen in one order and
// at certain times. Chance alone hardly ever brings them about.

// a moment is so short that nothing becomes old by it.
const moment = 100 * time.Millisecond

func (m *referrersModel) stories() []func(face *modelMirror, s *modelSubject) {
	all := []func(face *modelMirror, s *modelSubject){m.askedForBeforeItIsPushed, m.pushedAfterAnEmptyAnswer, m.pushedWhileAPageFails}
	if m.settings.cosign {
		all = append(all, m.signedAfterItWasAskedFor, m.signedAnew)
	}
	return all
}

// alter changes the world.
func (m *referrersModel) alter(how func() string) {
	m.mu.Lock()
	what := how()
	m.mu.Unlock()
	m.look()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("%s", what)
}

// push attaches an artifact at all registries, as clients do.
func (m *referrersModel) push(s *modelSubject, a *modelArtifact) string {
	for _, e := range m.endpoints {
		e.put(a)
		if !e.api {
			m.list(e, s, modelEntry{artifact: a})
		}
	}
	return fmt.Sprintf("%s is attached to %s everywhere", a.name, s.tag)
}

// askedForBeforeItIsPushed: that a referrer was not there is not remembered when
// a list names it (12.3).
func (m *referrersModel) askedForBeforeItIsPushed(face *modelMirror, s *modelSubject) {
	var a *modelArtifact
	m.alter(func() string {
		a = m.newArtifact(s)
		return a.name + " is made"
	})
	got := face.ask(http.MethodGet, "manifests/"+a.digest.String())
	m.note("%s is asked for %s: %d %s", face.name, a.name, got.status, got.code)
	time.Sleep(moment)
	m.alter(func() string { return m.push(s, a) })
	m.askAbout(modelQuestion{face: face, subject: s, noCache: true})
	m.askAbout(modelQuestion{face: face, subject: s, tag: true})
}

// pushedAfterAnEmptyAnswer: an answer is as old as the oldest of what it is made
// of, whichever way was asked first (12.14).
func (m *referrersModel) pushedAfterAnEmptyAnswer(face *modelMirror, s *modelSubject) {
	tagFirst := m.random.IntN(2) == 0
	m.askAbout(modelQuestion{face: face, subject: s, tag: tagFirst})
	m.alter(func() string { return m.push(s, m.newArtifact(s)) })
	for _, wait := range []time.Duration{min(m.settings.negativeTTL, m.settings.referrersTTL), m.settings.referrersTTL} {
		time.Sleep(wait - moment)
		m.askAbout(modelQuestion{face: face, subject: s, tag: !tagFirst})
	}
	time.Sleep(2 * moment)
	m.askAbout(modelQuestion{face: face, subject: s, tag: tagFirst})
}

// pushedWhileAPageFails: the pages that came before one that failed are kept, and
// are no newer than they were when all of them have come (12.15).
func (m *referrersModel) pushedWhileAPageFails(face *modelMirror, s *modelSubject) {
	e := pick(m.random, m.endpoints...)
	if !e.api || s.long {
		return
	}
	m.mend(true)
	m.alter(func() string {
		e.pageSize, e.link = 1, "usual"
		return m.push(s, m.newArtifact(s)) + ", and " + m.push(s, m.newArtifact(s))
	})
	time.Sleep(gateClosed + gateForgotten)
	m.alter(func() string {
		f := &modelFault{scope: "later pages", how: pick(m.random, "503", "a hang-up", "half")}
		e.faults = append(e.faults, f)
		return e.name + ": " + f.String()
	})
	m.askAbout(modelQuestion{face: face, subject: s, noCache: true})
	time.Sleep(moment)
	m.alter(func() string { return m.push(s, m.newArtifact(s)) + ", and " + m.push(s, m.newArtifact(s)) })
	time.Sleep(max(m.settings.referrersTTL, gateClosed) + moment)
	m.mend(true)
	m.look()
	m.askAbout(modelQuestion{face: face, subject: s, noCache: m.random.IntN(4) == 0})
}

// signedAfterItWasAskedFor: that there was no signature is no newer in a list
// than it was when it was said (12.14).
func (m *referrersModel) signedAfterItWasAskedFor(face *modelMirror, s *modelSubject) {
	m.alter(func() string {
		for _, e := range m.endpoints {
			e.setCosign(s, nil)
		}
		return "the signature of " + s.tag + " is deleted"
	})
	time.Sleep(m.settings.referrersTTL + moment)
	m.askCosign(face, s)
	m.alter(func() string {
		a := m.signature(s)
		for _, e := range m.endpoints {
			e.setCosign(s, a)
		}
		return a.name + " is put under cosign's tag"
	})
	for _, wait := range []time.Duration{min(m.settings.negativeTTL, m.settings.referrersTTL), m.settings.negativeTTL, m.settings.referrersTTL} {
		time.Sleep(wait - moment)
		m.askAbout(modelQuestion{face: face, subject: s})
	}
}

// signedAnew: cosign's tag is as fresh as a list, whatever tag_ttl is (12.7).
func (m *referrersModel) signedAnew(face *modelMirror, s *modelSubject) {
	for range 2 {
		m.alter(func() string { return m.sign(s) })
		m.askCosign(face, s)
		time.Sleep(max(m.settings.referrersTTL, m.settings.negativeTTL) + moment)
		m.askCosign(face, s)
	}
}
