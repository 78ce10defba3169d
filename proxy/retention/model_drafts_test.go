package retention_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/cache"
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
		total += m.Store.Weight(kept.Bytes)
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
	for _, k := range before {
		if now := byDigest[k.Digest]; now.Bytes != k.Bytes || now.Size != k.Size || string(now.Note) != string(k.Note) {
			m.fail("%+v was kept, and after a restart it is %+v", k, now)
		}
	}
	if len(before) != len(after) {
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
		if m.read[d].Missing(part).Len() > 0 {
			return false
		}
	}
	return true
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
		case !excused && !m.up.blobs.hasLied(d) && !m.up.blobs.hasChanged(d):
			m.fail("of %s %v was read, and %d bytes are kept, after %s", d, read, kept.Bytes, strings.Join(m.disk.trace, ", "))
		}
	}
	m.read = still
	m.up.blobs.settle(m.Store.AllKept())
	m.sinceRead = m.excuses()
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.drafts.read = still
}
