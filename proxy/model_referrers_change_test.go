package proxy_test

import (
	"fmt"
	"slices"
	"time"
)

// changeWorld lets somebody push, delete or reconfigure something, and says what.
func (m *referrersModel) changeWorld() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, e := pick(m.random, m.subjects...), pick(m.random, m.endpoints...)
	switch n := m.random.IntN(40); {
	case n < 14:
		return m.attach(s)
	case n < 19:
		return m.detach(s)
	case n < 23 && !without("odd"):
		return m.oddity(s, e)
	case n < 29:
		return m.mendLists(s, e)
	case n < 31 && !without("foreign"):
		tag := &modelTag{refused: true}
		if m.random.IntN(2) == 0 {
			tag = &modelTag{foreign: m.newArtifact(nil)}
			tag.foreign.name = fmt.Sprint("foreign ", tag.foreign.name)
		}
		e.setTag(s, tag)
		return fmt.Sprintf("%s has something else under the tag of %s", e.name, s.tag)
	case n < 33:
		return m.sign(s)
	case n < 36 && !without("upgrades"):
		if e.api = !e.api; e.api {
			e.gainedAt = time.Now()
		}
		return fmt.Sprintf("%s has the API: %v (%s)", e.name, e.api, e.noAPI)
	case n < 39:
		e.change()
		return fmt.Sprintf("%s changes: %s", e.name, e.ways())
	}
	return "nothing happens"
}

// attach pushes an artifact, as clients do: to a registry without the API they
// write the tag too.
func (m *referrersModel) attach(s *modelSubject) string {
	a := m.newArtifact(s)
	if all := m.attachedTo(s); m.random.IntN(4) == 0 {
		a = pick(m.random, all...) // one that was there before, or that somebody has asked for
	}
	how := ""
	for _, e := range m.endpoints {
		if len(m.endpoints) > 1 && m.random.IntN(3) == 0 {
			continue
		}
		e.put(a)
		how += " to " + e.name
		if e.api && m.random.IntN(4) > 0 || e.api && m.random.IntN(8) == 0 {
			continue
		}
		if m.random.IntN(10) == 0 && !e.api {
			how += ", not listed"
			continue
		}
		how += ", with the tag"
		m.list(e, s, modelEntry{artifact: a})
	}
	return fmt.Sprintf("%s is attached to %s:%s", a.name, s.tag, how)
}

// attachMany attaches more than are read at once.
func (m *referrersModel) attachMany(s *modelSubject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.long = true
	for range 600 {
		a := m.newArtifact(s)
		for _, e := range m.endpoints {
			e.put(a)
		}
	}
	for _, e := range m.endpoints {
		e.api, e.pageSize = true, 0
	}
}

func (m *referrersModel) list(e *modelEndpoint, s *modelSubject, entry modelEntry) {
	tag := e.tags[s.digest]
	if tag == nil || tag.foreign != nil || tag.refused {
		tag = &modelTag{}
	}
	tag.entries = append(slices.DeleteFunc(tag.entries, func(other modelEntry) bool { return other == entry }), entry)
	e.setTag(s, tag)
}

// detach deletes an artifact, and perhaps its entry under the tag.
func (m *referrersModel) detach(s *modelSubject) string {
	all := slices.DeleteFunc(m.attachedTo(s), func(a *modelArtifact) bool { return !m.held(a.digest) })
	if len(all) == 0 {
		return "nothing is there to detach"
	}
	a := pick(m.random, all...)
	entry, manifest, how := m.random.IntN(4) > 0, m.random.IntN(4) > 0, ""
	for _, e := range m.endpoints {
		if len(m.endpoints) > 1 && m.random.IntN(4) == 0 {
			continue
		}
		how += " from " + e.name
		if tag := e.tags[s.digest]; entry && tag != nil && tag.foreign == nil && !tag.refused {
			how += ", from the tag"
			tag.entries = slices.DeleteFunc(tag.entries, func(other modelEntry) bool { return other.artifact == a })
			if len(tag.entries) == 0 && m.random.IntN(2) == 0 {
				tag = nil
			}
			e.setTag(s, tag)
		}
		if manifest {
			how += ", with its manifest"
			e.remove(a)
		}
	}
	return fmt.Sprintf("%s is detached from %s:%s", a.name, s.tag, how)
}

// oddity lists what should not be listed.
func (m *referrersModel) oddity(s *modelSubject, e *modelEndpoint) string {
	entry, what := modelEntry{}, pick(m.random, "blake3", "no digest", "dangling", "accessory", "of another subject", "itself")
	switch what {
	case "blake3":
		entry.odd = fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"blake3:%064x","size":7}`, m.made)
	case "no digest":
		entry.odd = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"annotations":{}}`
	case "dangling":
		entry.artifact = m.newArtifact(s)
	case "accessory":
		entry.artifact = m.newArtifact(nil)
		entry.artifact.name += " of " + s.tag
		e.put(entry.artifact)
	case "of another subject":
		entry.artifact = m.newArtifact(pick(m.random, m.subjects...))
		e.put(entry.artifact)
	case "itself":
		entry.artifact = s.modelArtifact
	}
	if e.api && (what == "accessory" || m.random.IntN(2) == 0) {
		e.extra[s.digest] = append(e.extra[s.digest], entry)
		return fmt.Sprintf("the API of %s lists %s for %s: %s", e.name, what, s.tag, nameOf(entry))
	}
	m.list(e, s, entry)
	return fmt.Sprintf("the tag of %s lists %s for %s: %s", e.name, what, s.tag, nameOf(entry))
}

func nameOf(entry modelEntry) string {
	if entry.artifact != nil {
		return entry.artifact.name
	}
	return entry.odd
}

// mendLists takes out of lists what nobody can read.
func (m *referrersModel) mendLists(s *modelSubject, e *modelEndpoint) string {
	delete(e.extra, s.digest)
	if e.brokenLink() {
		e.link = "usual"
	}
	if tag := e.tags[s.digest]; tag != nil {
		if tag.foreign != nil || tag.refused {
			tag = nil
		} else {
			tag.entries = slices.DeleteFunc(tag.entries, func(entry modelEntry) bool { return entry.odd != "" || !m.held(entry.artifact.digest) })
		}
		e.setTag(s, tag)
	}
	return fmt.Sprintf("the lists of %s for %s are mended", e.name, s.tag)
}

// sign puts a signature under cosign's tag, at all registries, or deletes it.
func (m *referrersModel) sign(s *modelSubject) string {
	a := m.signature(s)
	if m.random.IntN(4) == 0 {
		a = nil
	}
	for _, e := range m.endpoints {
		e.setCosign(s, a)
	}
	if a == nil {
		return "the signature of " + s.tag + " is deleted"
	}
	return a.name + " is put under cosign's tag"
}
