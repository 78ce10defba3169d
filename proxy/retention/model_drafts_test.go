package retention_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/retention"
)

const (
	draftsFolder = "drafts"
	mapSuffix    = ".map" // of the file with the map of a draft
)

// weightOf is what published content of these sizes and the drafts that are kept
// take on disk.
func (m *model) weightOf(sizes map[retention.Digest]int64) (total int64) {
	for _, size := range sizes {
		total += m.Store.Weight(size)
	}
	for _, kept := range m.Store.AllKept() {
		total += kept.Weight
	}
	return total
}

// checkDrafts checks that the drafts on disk are those that were kept, each with
// its map, whenever nothing is under way.
func (m *model) checkDrafts(dir string, kept []cache.KeptDraft) {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, draftsFolder))
	if err != nil {
		m.fail("%v", err)
	}
	there := map[string]int{} // files of a draft, by the name of the draft
	for _, e := range entries {
		there[strings.TrimSuffix(e.Name(), mapSuffix)]++
	}
	ofDigest := map[string]int{} // by the beginning of the digest
	for name, files := range there {
		if files != 2 {
			m.fail("nothing is under way, and of the draft %s there are %d files", name, files)
		}
		ofDigest[strings.SplitN(name, "-", 2)[0]]++
	}
	for _, k := range kept {
		if begins := k.Digest.Encoded()[:12]; ofDigest[begins] == 0 {
			m.fail("a draft of %s is kept, and there is no file", k.Digest)
		} else {
			ofDigest[begins]--
		}
	}
	for begins, more := range ofDigest {
		if more > 0 {
			m.fail("nothing is under way, and there are %d drafts of %s that are not kept", more, begins)
		}
	}
}

// checkSame checks that the drafts that are kept after a restart are those that
// were kept before.
func (m *model) checkSame(before, after []cache.KeptDraft) {
	m.t.Helper()
	byDigest := map[retention.Digest]cache.KeptDraft{}
	for _, k := range after {
		byDigest[k.Digest] = k
	}
	damaged := 0
	for _, k := range before {
		if m.damaged[k.Digest] { // less of it may be there, or nothing
			if _, ok := byDigest[k.Digest]; !ok {
				damaged++
			}
			continue
		}
		if now := byDigest[k.Digest]; now.Bytes != k.Bytes || now.Size != k.Size || string(now.Note) != string(k.Note) {
			m.fail("%+v was kept, and after a restart it is %+v", k, now)
		}
	}
	if len(before) != len(after)+damaged {
		m.fail("%d drafts were kept, and %d are after a restart", len(before), len(after))
	}
}

// kept are the blobs of which drafts are kept.
func (m *model) kept() (all []retention.Digest) {
	for _, k := range m.Store.AllKept() {
		all = append(all, k.Digest)
	}
	slices.Sort(all)
	return all
}

// hasRead notes what a client has got of a blob: it is served from then on.
func (m *model) hasRead(d retention.Digest, got cache.Spans) {
	if got.Len() == 0 {
		return
	}
	m.reading.Lock()
	defer m.reading.Unlock()
	read := slices.Clone(m.read[d])
	for _, span := range got {
		read.Add(span)
	}
	m.read = maps.Clone(m.read)
	m.read[d] = read
}

// forgetRead notes that what was read of a blob need not be here.
func (m *model) forgetRead(d retention.Digest) {
	m.read = maps.Clone(m.read)
	delete(m.read, d)
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.drafts.lose(d)
	delete(m.disk.drafts.atCut, d)
}

// mustHave says whether parts of a blob have to be served without an upstream.
func (m *model) mustHave(repo retention.Repository, d retention.Digest, parts []cache.Span) bool {
	if _, known := m.Ledger.Member(repo, d); !known || m.up.mood() != down || len(parts) == 0 {
		return false
	}
	for _, part := range parts {
		if m.read[d].Missing(part).Len() > 0 || part.From == 0 && m.isHeldBack(d, part) && !m.Store.Has(context.Background(), d) {
			return false
		}
	}
	return true
}

// isHeldBack says whether the end of a part is held back from an answer that
// begins at the start, until all is proven.
func (m *model) isHeldBack(d retention.Digest, part cache.Span) bool {
	return part.To > int64(len(m.up.bodies[d].Body))-heldBack
}

const heldBack = 4 << 10

// readEverything reads what was read of unfinished downloads once more. The
// caller has disconnected the upstream.
func (m *model) readEverything() {
	for _, d := range m.kept() {
		for _, repo := range m.up.repositories() {
			for _, part := range m.read[d] {
				if part.From == 0 && m.isHeldBack(d, part) {
					part.From++
				}
				r := rangeRequest{spans: []cache.Span{part}}
				if part.Len() == 0 || !m.mustHave(repo, d, r.spans) {
					continue
				}
				excused := m.excuses()
				a, err := m.readRanges(repo, d, r, -1, 0)
				m.checkAnswer(repo, d, a)
				if err != nil && !excused() && !m.up.blobs.hasLied(d) {
					m.fail("%v of %s was read in %s, and is not served without an upstream: %v", part, d, repo, err)
				}
				m.counts.served++
			}
		}
	}
}

// excuses returns a function that says whether content may have gone since then:
// something was evicted or purged, or there was no room.
func (m *model) excuses() func() bool {
	m.disk.mu.Lock()
	full, refused, notKept := m.disk.full, m.disk.refused, m.disk.drafts.notKept
	m.disk.mu.Unlock()
	bypassed, evicted, purges := m.bypassed.Load(), m.evicted.Load(), m.counts.purges
	return func() bool {
		m.disk.mu.Lock()
		defer m.disk.mu.Unlock()
		return full || m.disk.full || m.disk.refused != refused || m.disk.drafts.notKept != notKept ||
			m.bypassed.Load() != bypassed || m.evicted.Load() != evicted || m.counts.purges != purges
	}
}

// checkRead checks that what was read of blobs is still here, unless there is a
// reason. excused is one for all.
func (m *model) checkRead(excused bool) {
	still := map[retention.Digest]cache.Spans{}
	for d, read := range m.read {
		kept, ok := m.Store.Kept(d)
		switch {
		case m.Store.Has(context.Background(), d), ok && kept.Bytes >= read.Len() && !m.up.blobs.hasChanged(d):
			still[d] = read
		case m.up.blobs.noSize && !ok: // a part of who knows how much is not kept
		case !excused && !m.up.blobs.hasLied(d) && !m.up.blobs.hasChanged(d):
			m.fail("of %s %v was read, and %d bytes are kept, after %s", d, read, kept.Bytes, strings.Join(m.disk.trace, ", "))
		}
	}
	m.read = still
	m.counts.drafts = max(m.counts.drafts, len(m.Store.AllKept()))
	m.up.blobs.settle(m.Store.AllKept())
	m.sinceRead = m.excuses()
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.drafts.read = still
}

// damageDraft damages a file of a draft that is kept. Whoever resumes it finds
// that, and fetches what is lost.
func (m *model) damageDraft() {
	entries, err := os.ReadDir(filepath.Join(m.disk.dir, draftsFolder))
	if err != nil {
		m.fail("%v", err)
	}
	name := ""
	if len(entries) > 0 {
		name = choose(m.random, entries).Name()
	}
	for _, d := range m.kept() {
		if !strings.HasPrefix(name, d.Encoded()[:12]) {
			continue
		}
		path := filepath.Join(m.disk.dir, draftsFolder, name)
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			m.fail("%s has %d bytes: %v", name, len(content), err)
			return
		}
		cutShort := m.random.IntN(3) == 0
		m.note("damage the draft %s, cut short %v", name, cutShort)
		if cutShort {
			content = content[:m.random.IntN(len(content))]
		} else {
			content[m.random.IntN(len(content))] ^= 1
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			m.fail("%v", err)
		}
		m.counts.damages++
		m.forgetRead(d)
		m.damaged[d] = true
		return
	}
}

// checkPurged checks that a purge leaves no draft of what it removed, unless a
// pinned image may need it.
func (m *model) checkPurged(target retention.Target) {
	if pins, err := m.Pins(); err != nil || len(pins) > 0 {
		return
	}
	for _, k := range m.Store.AllKept() {
		switch of, err := flight.OriginOf(k.Note); {
		case err != nil:
			m.fail("the note of %s: %v", k.Digest, err)
		case target.Repository == retention.Repository{} && target.Ref == k.Digest.String():
			m.fail("%s is purged, and a draft of it is kept", k.Digest)
		case target.Ref == "" && target.Repository == retention.Repository{Upstream: of.Upstream, Name: of.Repository}:
			m.fail("%s is purged, and its draft of %s is kept", target.Repository, k.Digest)
		}
	}
}

// finish checks that, with the upstream up again, everything of which pieces are
// here is pulled whole: at once, or after one loud failure if they are wrong.
func (m *model) finish() {
	m.up.be(up)
	m.up.blobs.noRanges.Store(false)
	if m.disk.full {
		m.fill()
	}
	time.Sleep(time.Hour) // what is remembered as not found is asked again
	m.observe()
	for _, d := range m.kept() {
		lied := m.up.blobs.hasLied(d)
		for _, repo := range m.up.repositories() {
			if _, held := m.up.held[repo][d]; !held {
				continue
			}
			err := m.verify(repo, d, 0, -1, 0)
			m.wait()
			if err != nil && lied {
				err = m.verify(repo, d, 0, -1, 0)
			}
			if err != nil {
				m.fail("%s of %s was here in pieces, and is not pulled in the end: %v", d, repo, err)
			}
			lied = false
		}
	}
	m.observe()
}
