package retention_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// purge removes something, and checks that it is gone.
func (m *model) purge() {
	target := retention.Target(m.anyTag())
	switch m.random.IntN(6) {
	case 5:
		if kept := m.kept(); len(kept) > 0 {
			target = retention.Target{Ref: choose(m.random, kept).String()}
		}
	case 0:
		target = retention.Target(m.anyManifest())
	case 1:
		target.Ref = ""
	case 2:
		target = retention.Target{Ref: choose(m.random, m.onDisk()).String()}
	}
	if target == (retention.Target{}) {
		return
	}
	m.note("purge %s", retention.Reference(target))
	m.counts.purges++
	if retention.Digest(target.Ref).Validate() == nil {
		m.markMissing(retention.Digest(target.Ref))
	}
	m.before = observation{}
	dry, dryErr := m.Purge(context.Background(), target, true)
	done, err := m.Purge(context.Background(), target, false)
	if m.disk.full {
		return // what can't be written down is tried again
	}
	if fmt.Sprint(dry, dryErr) != fmt.Sprint(done, err) {
		m.fail("a dry run says %+v, %v, and the purge says %+v, %v", dry, dryErr, done, err)
	}
	if err == nil || errors.Is(err, retention.ErrNotCached) {
		m.checkPurged(target)
	}
	switch {
	case errors.Is(err, retention.ErrPinned) && len(m.disk.put[bucketPin]) > 0, errors.Is(err, retention.ErrNotCached):
		return
	case err != nil:
		m.fail("purge %s: %v", retention.Reference(target), err)
		return
	}
	was := m.up.mood()
	m.up.be(down)
	for _, repo := range m.up.repositories() {
		if target.Repository != (retention.Repository{}) && target.Repository != repo {
			continue
		}
		refs := []string{target.Ref}
		if target.Ref == "" {
			refs = m.up.names()
			for _, d := range m.up.manifests(repo) {
				refs = append(refs, d.String())
			}
		}
		for _, ref := range refs {
			if got, err := m.Manifest(context.Background(), repo, ref); err == nil && !isGenerated(ref, got) {
				m.fail("%s is purged, and served", retention.Reference{Repository: repo, Ref: ref})
			}
			if d := retention.Digest(ref); d.Validate() == nil && m.verify(repo, d, 0, -1, 0) == nil {
				m.fail("%s is purged, and served as a blob", retention.Reference{Repository: repo, Ref: ref})
			}
		}
	}
	m.wait()
	m.up.be(was)
}

// forgetOldPins forgets what was pinned when the records were last durable, and
// is not among these pins any more: on a full disk it may be removed before that
// is written down.
func (m *model) forgetOldPins(now map[retention.Reference]map[retention.Digest]bool) {
	m.disk.mu.Lock()
	sizes := maps.Clone(m.disk.sizes)
	m.disk.mu.Unlock()
	m.revise(func(k *known) {
		maps.DeleteFunc(k.pins, func(r retention.Reference, parts map[retention.Digest]bool) bool {
			for d := range parts {
				if sizes[d] == 0 && !maps.Equal(parts, now[r]) {
					return true
				}
			}
			return false
		})
	})
}

func (m *model) onDisk() []retention.Digest {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return sorted(m.disk.sizes)
}

func (m *model) pin() {
	pins, err := m.Pins()
	if err != nil {
		m.fail("pins: %v", err)
	}
	if len(pins) > 1 || len(pins) == 1 && m.random.IntN(2) == 0 {
		r := choose(m.random, pins)
		m.note("unpin %s", r)
		m.revise(func(k *known) { delete(k.pins, r) })
		if was, err := m.Unpin(context.Background(), r); !was && err == nil {
			m.fail("%s was not pinned, and is among the pins", r)
		}
		return
	}
	r := m.anyTag()
	if m.random.IntN(3) == 0 {
		r = m.anyManifest()
	}
	m.note("pin %s", r)
	evicted := m.evicted.Load()
	_, err = m.Pin(context.Background(), r)
	m.wait()
	switch {
	case err == nil && m.up.mood() == up && !m.Mirror.Retention.IsComplete(context.Background(), r, false):
		m.fail("%s is pinned and not whole: there is no %v, after %s", r, m.missing(r), strings.Join(m.disk.trace, ", "))
	case err == nil:
	case errors.Is(err, warm.ErrIncomplete) && m.evicted.Load() > evicted: // it went again as it came
	case m.up.blobs.hasLied(): // a part fails loudly, once
	case m.up.mood() == up && !m.disk.full && !errors.Is(err, cache.ErrFull) && !errors.Is(err, upstream.ErrNotFound):
		m.fail("pin %s: %v", r, err)
	}
}

// missing is what an image lacks.
func (m *model) missing(r retention.Reference) (all []retention.Digest) {
	for d := range m.everythingOf(r) {
		if !m.Store.Has(context.Background(), d) {
			all = append(all, d)
		}
	}
	return all
}

// everythingOf is everything that an image consists of according to the
// records.
func (m *model) everythingOf(r retention.Reference) map[retention.Digest]bool {
	d := retention.Digest(r.Ref)
	if d.Validate() != nil {
		rec, _ := m.Ledger.Tag(r.Repository, r.Ref)
		d = rec.Descriptor.Digest
	}
	parts := map[retention.Digest]bool{d: true}
	for queue := []retention.Digest{d}; len(queue) > 0; queue = queue[1:] {
		children, blobs, _, err := referrers.Names(m.up.bodies[queue[0]].MediaType, referrers.Parse(m.up.bodies[queue[0]].Body))
		if err != nil {
			m.fail("%s: %v", queue[0], err)
		}
		for _, c := range children {
			parts[c.Digest] = true
			queue = append(queue, c.Digest)
		}
		for _, b := range blobs {
			if len(b.URLs) == 0 {
				parts[b.Digest] = true
			}
		}
	}
	return parts
}

// damage damages a file, and has the damage detected.
func (m *model) damage() {
	d := choose(m.random, m.onDisk())
	if d == "" {
		return
	}
	path := filepath.Join(m.disk.dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	content, err := os.ReadFile(path)
	if err != nil {
		m.fail("%v", err)
		return
	}
	m.counts.damages++
	m.broken = d
	m.markMissing(d)
	m.forgetRead(d)
	m.revise(func(k *known) {
		maps.DeleteFunc(k.pins, func(_ retention.Reference, parts map[retention.Digest]bool) bool { return parts[d] })
	})
	cutShort := m.random.IntN(2) == 0
	m.note("damage %s, cut short %v", mirrortest.Short(d.String()), cutShort)
	if cutShort {
		err = os.Truncate(path, int64(m.random.IntN(len(content))))
	} else {
		content[m.random.IntN(len(content))] ^= 1
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		m.fail("%v", err)
	}
	if !cutShort || m.random.IntN(2) == 0 {
		s, err := m.Scrub(context.Background(), 0, nil)
		if err != nil || len(s.Damaged) != 1 || s.Damaged[0] != d || s.Unreadable > 0 {
			m.fail("scrubbed: %+v, %v", s, err)
		}
	} else {
		m.memory.Delete(d) // or nobody would look at the file
		m.runAll(m.pull(m.anyTag(), 0))
		m.Store.Has(context.Background(), d) // notices it
		// Files that others remove from the directory are counted at the next
		// observation.
		if _, err := m.Inventory(context.Background()); err != nil {
			m.fail("inventory: %v", err)
		}
	}
	m.memory.Delete(d)
	if !m.Store.Has(context.Background(), d) {
		m.disk.quarantined(d)
	}
	if now, err := os.ReadFile(path); err == nil && digest.FromBytes(now) != d { // it may have been fetched again
		m.fail("%s is damaged and still served", d)
	}
	m.before = observation{}
}

// fill makes the disk full, or gives it room again. The records are retried
// automatically.
func (m *model) fill() {
	m.disk.mu.Lock()
	m.disk.full = !m.disk.full
	full := m.disk.full
	m.disk.mu.Unlock()
	m.note("the disk is full: %v", full)
	if !full {
		if err := m.records.Flush(context.Background()); err != nil {
			m.fail("flush: %v", err)
		}
	}
}
