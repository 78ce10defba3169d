package retention_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

// observation is the state that the model observed, to be compared with the
// next one.
type observation struct {
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

// observe compares the cache directory and the records with what must hold
// whenever nothing is under way.
func (m *model) observe() {
	m.t.Helper()
	m.observeAgain(false)
}

func (m *model) observeAgain(patient bool) {
	m.t.Helper()
	m.wait()
	counted := m.Store.State().Used
	w, err := m.Mirror.Retention.Look(context.Background())
	if err != nil {
		m.fail("%v", err)
		return
	}
	total := m.weightOf(w.Sizes)
	if counted != total {
		m.fail("%d bytes lie on the disk, and %d are counted, after %s", total, counted, strings.Join(m.disk.trace, ", "))
	}
	m.checkDrafts(m.disk.dir, m.Store.AllKept())
	m.checkRead(m.sinceRead())
	now := observation{taken: true, evicted: m.evicted.Load(), files: w.Sizes, roots: map[string]root{}, kept: map[string]metadata.Manifest{}}
	evictable := w.Unreferenced > 0 || w.Drafts > 0
	for _, image := range w.Roots {
		r := root{own: image.Own, use: image.Use, kept: image.HasParents(), pinned: image.Pinned()}
		now.roots[image.Key()] = r
		evictable = evictable || !r.kept && !r.pinned
	}
	for key, n := range w.Nodes {
		now.kept[key] = n.Rec()
	}
	if total > m.settings.maxBytes && evictable {
		if !patient {
			// Content that was in use when room was needed may be evicted at
			// the next check.
			time.Sleep(retention.CheckInterval)
			m.observeAgain(true)
			return
		}
		m.fail("%d bytes are cached, and %d may be", total, m.settings.maxBytes)
	}
	m.checkManifests(now)
	m.checkPins()
	m.checkMemory()
	if m.before.taken {
		m.checkEvictions(w, now)
	}
	m.before = now
	m.disk.update(m.known)
}

// checkManifests checks that a manifest that would be served still has
// everything that it ever had here.
func (m *model) checkManifests(now observation) {
	m.disk.mu.Lock()
	next := m.disk.returned(m.known).clone()
	m.disk.mu.Unlock()
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
				m.fail("%s names %s, which is not known to belong to %s", digest, b.Digest, repo)
			}
		}
		for _, c := range rec.Children {
			_, kept := now.kept[metadata.Key(repo, c.Digest.String())]
			here[c.Digest] = kept && now.files[c.Digest] > 0
		}
		for d := range next.had[key] {
			if !here[d] {
				_, onRecord := now.kept[metadata.Key(repo, d.String())]
				m.fail("%s of %s is cached, and its part %s has gone (it has %d bytes, on record %v), after %s",
					digest, repo, d, now.files[d], onRecord, strings.Join(m.disk.trace, ", "))
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

func (m *model) checkPins() {
	pins, err := m.Pins()
	if err != nil {
		m.fail("pins: %v", err)
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
			m.fail("the pin on %s is gone", r)
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
				m.fail("%s is pinned and was whole, and %s has gone", r, d)
			}
		}
	}
}

// checkMemory compares the decoded records in memory with the records.
func (m *model) checkMemory() {
	if err := m.Ledger.Check(); err != nil {
		m.fail("%v", err)
	}
}

func (m *model) isManifest(key string) bool {
	_, err := m.records.Get(bucketManifest, key)
	return err == nil
}

// checkEvictions checks that content is removed only by eviction, least
// recently pulled first.
func (m *model) checkEvictions(w retention.View, now observation) {
	if m.before.evicted == now.evicted {
		for key := range m.before.kept {
			if _, ok := now.kept[key]; !ok {
				m.fail("%q went, and nothing was evicted", key)
			}
		}
		for d := range m.before.files {
			if _, ok := now.files[d]; !ok {
				m.fail("%s went, and nothing was evicted", d)
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
			// A blob of an image that stays may belong to it alone now, and its
			// use with it.
			if still && !s.kept && !s.pinned && !after.kept && !after.pinned && s.use == after.use && s.use < e.own && !m.wanted(w.Nodes[stays]) {
				m.fail("%q went, which was used %d ns after %q, which stays, after %s", gone, e.own-s.use, stays, strings.Join(m.disk.trace, ", "))
			}
		}
	}
	for key, rec := range now.kept {
		// A referrer is evicted with its subject, unless it was requested by
		// itself, or has gone and come back, perhaps while its subject went.
		repo, digest, _ := metadata.SplitKey(key)
		before, was := m.before.kept[key]
		subject := metadata.Key(repo, rec.Subject.String())
		_, had := m.before.kept[subject]
		_, has := now.kept[subject]
		if _, isRoot := m.before.roots[key]; was && before.Subject != "" && had && !has && !isRoot && now.roots[key].use == m.before.roots[key].use && !now.roots[key].pinned && w.Nodes[key] != nil && !w.Nodes[key].Tagged() && !w.Nodes[key].HasParents() && !m.disk.isNew(retention.Digest(digest)) {
			m.fail("%q stays, and what it refers to went", key)
		}
	}
}

// wanted says whether any part of an image was used or tagged in this step, or
// was referenced by something that existed for a moment.
func (m *model) wanted(root *retention.Node) bool {
	for _, d := range m.disk.removed() {
		children, _, _, err := referrers.Names(m.up.bodies[d].MediaType, referrers.Parse(m.up.bodies[d].Body))
		if err != nil || d == root.Rec().Subject || slices.ContainsFunc(children, func(c retention.Descriptor) bool { return c.Digest == root.Digest() }) {
			return true
		}
	}
	since := m.began.UnixNano()
	for _, n := range root.All() {
		if m.disk.isNew(n.Digest()) || m.Ledger.ManifestUse(n.Repo(), n.Digest()) >= since {
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
