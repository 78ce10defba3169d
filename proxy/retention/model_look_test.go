package retention_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

// snapshot is what a look found, to be compared with what the next one finds.
type snapshot struct {
	taken   bool
	evicted int64
	roots   map[string]root // by the key of their manifests
	kept    map[string]metadata.Manifest
	files   map[retention.Digest]int64
}

type root struct {
	own    int64 // its last use by itself
	use    int64 // the same, with what nothing else has of it
	kept   bool  // by an index or a subject
	pinned bool
}

// look holds what lies in the folder and stands in the records against what
// must be so whenever nothing is under way.
func (m *model) look() {
	m.t.Helper()
	m.lookAgain(false)
}

func (m *model) lookAgain(patient bool) {
	m.t.Helper()
	m.settle()
	counted := m.Store.State().Used
	w, err := m.Mirror.Retention.Look(context.Background())
	if err != nil {
		m.wrong("%v", err)
		return
	}
	if counted != w.Total {
		m.wrong("%d bytes lie on the disk, and %d are counted, after %s", w.Total, counted, strings.Join(m.power.trace, ", "))
	}
	if left := m.drafts(m.power.dir); len(left) > 0 {
		m.wrong("nothing is under way, and there are drafts: %v", left)
	}
	now := snapshot{taken: true, evicted: m.evicted.Load(), files: w.Sizes, roots: map[string]root{}, kept: map[string]metadata.Manifest{}}
	evictable := w.Unreferenced > 0
	for _, image := range w.Roots {
		r := root{own: image.Own, use: image.Use, kept: image.HasParents(), pinned: image.Pinned()}
		now.roots[image.Key()] = r
		evictable = evictable || !r.kept && !r.pinned
	}
	for key, n := range w.Nodes {
		now.kept[key] = n.Rec()
	}
	if w.Total > m.settings.maxBytes && evictable {
		if !patient {
			// What was in use when there was need may go at the next look around.
			time.Sleep(retention.CheckInterval)
			m.lookAgain(true)
			return
		}
		m.wrong("%d bytes are kept, and %d may be", w.Total, m.settings.maxBytes)
	}
	m.lookAtManifests(now)
	m.lookAtPins()
	m.lookAtMemory()
	if m.before.taken {
		m.lookAtWhatWent(w, now)
	}
	m.before = now
	m.power.learn(m.known)
}

func (m *model) drafts(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, "drafts"))
	if err != nil {
		m.wrong("%v", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// lookAtManifests sees to it that of each manifest that would be served
// everything is here that ever was.
func (m *model) lookAtManifests(now snapshot) {
	m.power.mu.Lock()
	next := m.power.returned(m.known).clone()
	m.power.mu.Unlock()
	for key := range next.had {
		_, digest, _ := metadata.SplitKey(key)
		if _, ok := now.kept[key]; !ok || now.files[retention.Digest(digest)] == 0 {
			delete(next.had, key)
		}
	}
	for key, rec := range now.kept {
		repo, digest, _ := metadata.SplitKey(key)
		if now.files[retention.Digest(digest)] == 0 {
			continue // its bytes could not be kept: it is not served
		}
		if next.had[key] == nil {
			next.had[key] = map[retention.Digest]bool{}
		}
		here := map[retention.Digest]bool{}
		for _, b := range rec.Blobs {
			if len(b.URLs) > 0 {
				continue
			}
			here[b.Digest] = now.files[b.Digest] > 0
			if _, known := m.Ledger.Member(repo, b.Digest); !known {
				m.wrong("%s names %s, which is not known to belong to %s", digest, b.Digest, repo)
			}
		}
		for _, c := range rec.Children {
			_, kept := now.kept[metadata.Key(repo, c.Digest.String())]
			here[c.Digest] = kept && now.files[c.Digest] > 0
		}
		for d := range next.had[key] {
			if !here[d] {
				_, onRecord := now.kept[metadata.Key(repo, d.String())]
				m.wrong("%s of %s is kept, and its part %s has gone (it has %d bytes, on record %v), after %s",
					digest, repo, d, now.files[d], onRecord, strings.Join(m.power.trace, ", "))
			}
		}
		for d, is := range here {
			if is {
				next.had[key][d] = true
			}
		}
	}
	m.known = next
}

func (m *model) lookAtPins() {
	pins, err := m.Pins()
	if err != nil {
		m.wrong("pins: %v", err)
	}
	for _, r := range pins {
		if m.known.pins[r] == nil && m.Mirror.Retention.IsComplete(context.Background(), r, false) {
			next := m.known.clone()
			next.pins[r] = m.everythingOf(r)
			m.known = next
		}
	}
	for r, parts := range m.known.pins {
		if !m.Ledger.HasPin(r.Repository, r.Ref) {
			m.wrong("the pin on %s is gone", r)
		}
		if rec, ok := m.Ledger.Tag(r.Repository, r.Ref); retention.Digest(r.Ref).Validate() != nil && (!ok || !parts[rec.Descriptor.Digest]) {
			// The tag has moved: another image is pinned now.
			next := m.known.clone()
			delete(next.pins, r)
			m.known = next
			continue
		}
		for d := range parts {
			if !m.Store.Has(context.Background(), d) {
				m.wrong("%s is pinned and was whole, and %s has gone", r, d)
			}
		}
	}
}

// lookAtMemory holds what is remembered of the records against them.
func (m *model) lookAtMemory() {
	if err := m.Ledger.Check(); err != nil {
		m.wrong("%v", err)
	}
}

func (m *model) isManifest(key string) bool {
	_, err := m.records.Get(bucketManifest, key)
	return err == nil
}

// lookAtWhatWent sees to it that only eviction takes anything away, and takes
// what was pulled least recently.
func (m *model) lookAtWhatWent(w retention.View, now snapshot) {
	if m.before.evicted == now.evicted {
		for key := range m.before.kept {
			if _, ok := now.kept[key]; !ok {
				m.wrong("%q went, and nothing was evicted", key)
			}
		}
		for d := range m.before.files {
			if _, ok := now.files[d]; !ok {
				m.wrong("%s went, and nothing was evicted", d)
			}
		}
		return
	}
	for gone, e := range m.before.roots {
		if _, still := now.kept[gone]; still || e.kept {
			continue
		}
		for stays, s := range m.before.roots {
			after, still := now.roots[stays]
			// A blob of what stays may have become its own, and with it its use.
			if still && !s.kept && !s.pinned && !after.kept && !after.pinned && s.use == after.use && s.use < e.own && !m.wanted(w.Nodes[stays]) {
				m.wrong("%q went, which was used %d ns after %q, which stays, after %s", gone, e.own-s.use, stays, strings.Join(m.power.trace, ", "))
			}
		}
	}
	for key, rec := range now.kept {
		// A referrer goes with its subject, unless somebody wanted it by itself.
		repo, _, _ := metadata.SplitKey(key)
		before, was := m.before.kept[key]
		subject := metadata.Key(repo, rec.Subject.String())
		_, had := m.before.kept[subject]
		_, has := now.kept[subject]
		if _, isRoot := m.before.roots[key]; was && before.Subject != "" && had && !has && !isRoot && now.roots[key].use == m.before.roots[key].use && !now.roots[key].pinned && w.Nodes[key] != nil && !w.Nodes[key].Tagged() && !w.Nodes[key].HasParents() {
			m.wrong("%q stays, and what it refers to went", key)
		}
	}
}

// wanted says whether anything of an image was used or named in this step, or
// something was here for a moment that kept it.
func (m *model) wanted(root *retention.Node) bool {
	for _, d := range m.power.wentNow() {
		children, _, _, err := referrers.Names(m.up.bodies[d].MediaType, m.up.bodies[d].Body)
		if err != nil || d == root.Rec().Subject || slices.ContainsFunc(children, func(c retention.Descriptor) bool { return c.Digest == root.Digest() }) {
			return true
		}
	}
	since := m.began.UnixNano()
	for _, n := range root.All() {
		if m.power.cameNow(n.Digest()) || m.Ledger.ManifestUse(n.Repo(), n.Digest()) >= since {
			return true
		}
		for _, b := range n.Rec().Blobs {
			if m.Ledger.BlobUse(b.Digest) >= since {
				return true
			}
		}
	}
	return false
}
