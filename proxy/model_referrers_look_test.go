package proxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// modelView is what is to be known of a subject from a moment on.
type modelView struct {
	at time.Time
	// must are the artifacts that a complete list has, and may those that it may
	// have.
	must, may map[digest.Digest]bool
	// cannot are the sources that can't be asked, read or believed, and why.
	cannot map[string]string
	// hidden are the registries that say that they have no API.
	hidden []*modelEndpoint
	// unclear are registries that say in the same words that they list nothing.
	// They are set if nothing else has a list.
	unclear []*modelEndpoint
	// byAPI are registries that have only their API to tell, as no tag has a list.
	byAPI []*modelEndpoint
	// withheld says that a registry refuses a tag under which it had something
	// else, which a mirror may keep and can't ask about.
	withheld bool
	// failing says that an answer may be stale or an error for another reason.
	failing bool
}

// look notes what is to be known now. The world has changed.
func (m *referrersModel) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.isFailing() {
		m.failedAt = now
	}
	if m.isSlow() {
		m.slowAt = now
	}
	for _, s := range m.subjects {
		v := m.viewOf(s)
		if n := len(s.views); n > 0 && s.views[n-1].at.Equal(now) {
			s.views = s.views[:n-1]
		}
		s.views = append(s.views, v)
		for len(s.views) > 2 && now.Sub(s.views[1].at) > time.Hour {
			s.views = s.views[1:]
		}
		for _, face := range m.faces {
			maps.DeleteFunc(face.known[s].listed, func(d digest.Digest, _ bool) bool { return !v.must[d] })
		}
	}
}

// anySource is what cannot be asked where nothing has a list.
const anySource = "any source"

func (w *modelWorld) viewOf(s *modelSubject) modelView {
	v := modelView{at: time.Now(), must: map[digest.Digest]bool{}, may: map[digest.Digest]bool{}, cannot: map[string]string{}, failing: w.isFailing()}
	asked, listed := false, false
	var unclear []*modelEndpoint
	for _, e := range w.endpoints {
		if e.api {
			v.byAPI = append(v.byAPI, e)
			list := e.apiList(s.digest)
			if e.quay && len(list) == 0 {
				unclear = append(unclear, e)
			} else {
				asked = true
			}
			paged := e.pageSize > 0 && len(list) > e.pageSize
			if e.fails("everything", "the API") || paged && (e.fails("later pages") || e.brokenLink()) {
				v.cannot["the API of "+e.name] = fmt.Sprintf("%v, link %q", e.faults, e.link)
			}
			w.viewEntries(&v, s, list, true)
		} else {
			v.hidden = append(v.hidden, e)
		}
		tag := e.tags[s.digest]
		if e.fails("everything", "tags") && (tag == nil || !tag.refused || !e.onlyWarns("tags")) {
			v.cannot["the tag of "+e.name] = fmt.Sprint(e.faults)
		}
		v.withheld = v.withheld || tag != nil && tag.refused && e.hadOther[s.digest]
		if tag == nil {
			listed = true
		} else if tag.foreign == nil && !tag.refused {
			listed = true
			w.viewEntries(&v, s, tag.entries, false)
		}
	}
	if listed {
		asked, v.byAPI = true, nil
	}
	if !asked && len(unclear) == 0 {
		v.cannot[anySource] = "something else is under the tag"
	} else if !asked {
		v.unclear = unclear
	}
	for _, a := range w.attachedTo(s) {
		if w.held(a.digest) || v.failing {
			v.may[a.digest] = true
		}
	}
	// What an index lists is attached for as long as the index is there.
	if s.index != nil && (w.buildKit || s.attestation.subject != "") && w.held(s.index.digest) {
		v.may[s.attestation.digest] = true
	}
	if w.cosign {
		w.viewCosign(&v, s)
	}
	return v
}

// viewEntries adds what a source lists.
func (w *modelWorld) viewEntries(v *modelView, s *modelSubject, list []modelEntry, api bool) {
	for _, entry := range list {
		a := entry.artifact
		switch {
		case entry.odd != "":
			v.cannot["an entry"] = entry.odd
			continue
		case a.digest == s.digest:
			continue
		}
		s.claimed[a.digest] = true
		if !w.opens(a.digest) {
			v.cannot["the manifest "+string(a.digest)] = a.name
		}
		if !w.held(a.digest) {
			v.failing = true
		}
		if a.subject != s.digest && (!api || a.subject != "") {
			continue // it is no referrer
		}
		v.may[a.digest] = true
		if w.held(a.digest) {
			v.must[a.digest] = true
		}
	}
}

func (w *modelWorld) viewCosign(v *modelView, s *modelSubject) {
	fail := true
	for _, e := range w.endpoints {
		fail = fail && e.fails("everything", "cosign's tags")
		if a := e.cosign[s.cosignTag()]; a != nil {
			v.may[a.digest], v.must[a.digest] = true, true
			if !w.opens(a.digest) {
				v.cannot["the manifest "+string(a.digest)] = a.name
			}
		}
	}
	if fail {
		v.cannot["cosign's tag"] = "it fails"
	}
}

func (w *modelWorld) opens(d digest.Digest) bool {
	return slices.ContainsFunc(w.endpoints, func(e *modelEndpoint) bool { return e.opens(d) })
}

// since are the views that held at some moment after a time.
func (s *modelSubject) since(t time.Time) []modelView {
	first := 0
	for i, v := range s.views {
		if !v.at.After(t) {
			first = i
		}
	}
	return s.views[first:]
}

// unable are the sources that could not be asked throughout, as a mirror has
// to see it.
func (m *referrersModel) unable(face *modelMirror, views []modelView) []string {
	var all map[string]string
	for _, v := range views {
		now := maps.Clone(v.cannot)
		for _, e := range v.hidden {
			if face.hasSeen(e, v.at) {
				now["the API of "+e.name] = "it had one"
			}
		}
		if len(v.unclear) > 0 && !slices.ContainsFunc(v.unclear, face.mayHaveSeen) {
			now[anySource] = "a registry that is not known to have the API says 400"
		}
		maps.DeleteFunc(now, func(source, _ string) bool {
			d, isManifest := strings.CutPrefix(source, "the manifest ")
			return isManifest && m.opened[digest.Digest(d)] > 0
		})
		if all == nil {
			all = now
			continue
		}
		maps.DeleteFunc(all, func(source, _ string) bool { return now[source] == "" })
	}
	var list []string
	for source, why := range all {
		list = append(list, fmt.Sprintf("%s (%s)", source, why))
	}
	return list
}

// openedOnLowQuota is how many manifests that are not kept a mirror opens for one
// question while the quota of an upstream is low (issue 12, point 22).
const openedOnLowQuota = 16

// How long a mirror remembers that something failed, once it has not failed for
// longer: its gates are closed for half a minute at most, with jitter, and let one
// request pass at a time until they have not been asked for a minute.
const (
	gateClosed    = 45 * time.Second
	gateForgotten = time.Minute
	// withoutAPIFor is how long it remembers that a registry has no API.
	withoutAPIFor = 30 * time.Second
)

// rest is how long an answer may be incomplete after the end of a failure. What a
// child has learnt from its parent it has learnt later.
func (m *referrersModel) rest(face *modelMirror) time.Duration {
	rest := max(gateClosed+gateForgotten, min(m.settings.referrersTTL, m.settings.negativeTTL))
	if face.parent != nil {
		rest *= 2
	}
	return rest
}

// isExcused says whether an answer may be stale or an error: something fails, or
// has failed so short a time ago that a rest may not be over.
func (m *referrersModel) isExcused(face *modelMirror, s *modelSubject) bool {
	rest, missed, now := m.rest(face), withoutAPIFor, time.Now()
	if face.parent != nil {
		missed += gateClosed + gateForgotten
	}
	if s.long && !m.recovered {
		return true // not all of it is read at once
	}
	if m.settings.lowQuota && len(s.claimed) > openedOnLowQuota {
		return true
	}
	if face.parent != nil && !m.goneAt.IsZero() && now.Sub(m.goneAt) < m.settings.referrersTTL {
		return true // the parent's list may be older
	}
	if !m.failedAt.IsZero() && now.Sub(m.failedAt) < rest {
		return true
	}
	about := []*modelSubject{s}
	if face.parent != nil {
		about = m.subjects // what a parent cannot answer closes its API for a while
	}
	return slices.ContainsFunc(about, func(s *modelSubject) bool {
		return slices.ContainsFunc(s.since(now.Add(-rest)), func(v modelView) bool {
			return v.failing || len(v.cannot) > 0 || slices.ContainsFunc(v.hidden, face.mayHaveSeen) ||
				len(v.unclear) > 0 && !slices.ContainsFunc(v.unclear, func(e *modelEndpoint) bool { return face.isSureOf(e, v.at) }) ||
				v.withheld && face.parent != nil ||
				slices.ContainsFunc(v.byAPI, func(e *modelEndpoint) bool { return now.Sub(e.gainedAt) < missed })
		})
	})
}
