package retention_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// pullEverything disconnects the upstream and pulls everything that is cached.
func (m *model) pullEverything() {
	m.t.Helper()
	was := m.up.mood()
	m.up.be(down)
	m.earlier = m.known
	m.note("sweep")
	for key, had := range maps.Clone(m.known.had) {
		repo, digest, _ := metadata.SplitKey(key)
		root, err := m.Manifest(context.Background(), repo, digest)
		if err != nil {
			m.fail("%s of %s is cached, and not served without an upstream: %v", digest, repo, err)
			continue
		}
		m.verifyManifest(repo, root)
		for part := range had {
			if m.isManifest(metadata.Key(repo, part.String())) {
				if _, err = m.Manifest(context.Background(), repo, part.String()); err == nil {
					continue
				}
			}
			if err = m.verify(repo, part, 0, -1, 0); err != nil {
				m.fail("%s of %s is cached, and its part %s not served without an upstream: %v", digest, repo, part, err)
			}
		}
	}
	for _, ref := range m.allTags() {
		must := m.mustServe(ref)
		root, err := m.Manifest(context.Background(), ref.Repository, ref.Ref)
		m.judgeManifest(ref, root, err, time.Now())
		if err != nil && must {
			m.fail("%s is cached, and not served without an upstream: %v", ref, err)
		}
	}
	m.readEverything() // last: what is kept anew may make eviction due
	m.wait()
	m.up.be(was)
}

// restart stops the process cleanly, and starts another.
func (m *model) restart() {
	m.note("restart")
	m.counts.restarts++
	m.stop()
	excused, kept := m.sinceRead(), m.files.Blobs().AllKept()
	m.start(m.disk.dir, m.disk.put)
	m.checkSame(kept, m.Store.AllKept())
	m.wait()
	m.checkRead(excused || m.sinceRead())
	m.observe()
	if m.random.IntN(3) == 0 {
		m.pullEverything()
	}
}

// crash continues with what a power cut leaves.
func (m *model) crash() {
	m.counts.crashes++
	m.disk.mu.Lock()
	when := "in the middle"
	if m.disk.cut == "" {
		when = "at rest"
		m.disk.cutPower()
	}
	old, dir, records := m.disk.dir, m.disk.cut, m.disk.flushedAtCut
	full, pins := m.disk.full, m.known.pins
	m.known, m.read = m.disk.atCut, m.disk.drafts.atCut
	m.disk.mu.Unlock()
	m.stop()
	if err := os.RemoveAll(old); err != nil {
		m.fail("%v", err)
	}
	lost := m.random.IntN(6) == 0
	m.note("the power is cut %s, records lost %v", when, lost)
	if lost {
		m.loseRecords(dir)
		kept := map[cache.Bucket]map[string]string{}
		for _, b := range metadata.Durable() {
			kept[b] = records[b]
		}
		records = kept
	}
	before := m.disk
	m.start(dir, records)
	m.disk.inheritNotes(before)
	if full {
		m.forgetOldPins(pins)
	}
	m.wait()
	m.checkRead(m.sinceRead())
	if m.broken != "" {
		// The copy may have been made before the damage was noticed.
		if !m.Store.Has(context.Background(), m.broken) {
			m.disk.quarantined(m.broken)
		}
		m.wait()
		if _, err := m.Inventory(context.Background()); err != nil {
			m.fail("inventory: %v", err)
		}
	}
	m.observe()
	m.disk.confirm(m.known)
	if m.random.IntN(2) == 0 {
		m.pullEverything()
	}
}

// loseRecords deletes the database, or damages it.
func (m *model) loseRecords(dir string) {
	path := filepath.Join(dir, "records.db")
	var err error
	if m.random.IntN(2) == 0 {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, []byte(strings.Repeat("broken ", 10_000)), 0o600)
	}
	if err != nil {
		m.fail("%v", err)
	}
}

func (m *model) readRecords() map[cache.Bucket]map[string]string {
	all := map[cache.Bucket]map[string]string{}
	for _, b := range []cache.Bucket{
		bucketTag, bucketChecked, bucketManifest, bucketMember, bucketTagList,
		bucketReferrers, bucketPassed, bucketAttached, bucketUsed, bucketPin,
	} {
		all[b] = map[string]string{}
		err := m.files.Records().Scan(b, "", func(key string, value []byte) bool {
			all[b][key] = string(value)
			return true
		})
		if err != nil {
			m.fail("%v", err)
		}
	}
	return all
}

// checkRecords checks that the records are exactly those that were durable.
func (m *model) checkRecords(want map[cache.Bucket]map[string]string) {
	m.t.Helper()
	for b, got := range m.readRecords() {
		if len(got) == 0 && len(want[b]) == 0 || maps.Equal(got, want[b]) {
			continue
		}
		m.fail("at the start the records of %s are wrong: %s", b, differences(got, want[b]))
	}
}

func differences(got, want map[string]string) string {
	var all []string
	for key := range got {
		if got[key] != want[key] {
			all = append(all, fmt.Sprintf("%q is %q, not %q", key, got[key], want[key]))
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			all = append(all, fmt.Sprintf("%q is missing", key))
		}
	}
	return strings.Join(all, ", ")
}
