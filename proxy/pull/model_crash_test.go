package pull

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

// sweep unplugs the upstream and pulls everything that is kept.
func (m *model) sweep() {
	m.t.Helper()
	was := m.up.mood()
	m.up.be(down)
	m.earlier = m.known
	m.say("sweep")
	for key, had := range maps.Clone(m.known.had) {
		repo, digest, _ := metadata.SplitKey(key)
		root, err := m.Manifest(context.Background(), repo, digest)
		if err != nil {
			m.wrong("%s of %s is kept, and not served without an upstream: %v", digest, repo, err)
			continue
		}
		m.proveManifest(repo, root)
		for part := range had {
			if m.isManifest(metadata.Key(repo, part.String())) {
				if _, err = m.Manifest(context.Background(), repo, part.String()); err == nil {
					continue
				}
			}
			if err = m.prove(repo, part, 0, -1, 0); err != nil {
				m.wrong("%s of %s is kept, and its part %s not served without an upstream: %v", digest, repo, part, err)
			}
		}
	}
	for _, ref := range m.tagsThereWere() {
		must := m.mustServe(ref)
		root, err := m.Manifest(context.Background(), ref.Repository, ref.Ref)
		m.judgeManifest(ref, root, err, time.Now())
		if err != nil && must {
			m.wrong("%s is kept, and not served without an upstream: %v", ref, err)
		}
	}
	m.settle()
	m.up.be(was)
}

// restart ends the process in good order, and begins another.
func (m *model) restart() {
	m.say("restart")
	m.told.restarts++
	m.stop()
	m.start(m.power.dir, m.power.put)
	m.look()
	if m.random.IntN(3) == 0 {
		m.sweep()
	}
}

// crash goes on with what a power cut leaves.
func (m *model) crash() {
	m.told.crashes++
	m.power.mu.Lock()
	when := "in the middle"
	if m.power.cut == "" {
		when = "at rest"
		m.power.cutNow()
	}
	old, dir, records := m.power.dir, m.power.cut, m.power.flushedAtCut
	m.known = m.power.atCut
	m.power.mu.Unlock()
	m.stop()
	if err := os.RemoveAll(old); err != nil {
		m.wrong("%v", err)
	}
	lost := m.random.IntN(6) == 0
	m.say("the power is cut %s, records lost %v", when, lost)
	if lost {
		m.loseRecords(dir)
		kept := map[cache.Bucket]map[string]string{}
		for _, b := range metadata.Durable() {
			kept[b] = records[b]
		}
		records = kept
	}
	before := m.power
	m.start(dir, records)
	m.power.goOn(before)
	if m.broken != "" {
		// The copy may have been made before the damage was noticed.
		if !m.has(context.Background(), m.broken) {
			m.power.lost(m.broken)
		}
		m.settle()
		if _, err := m.Inventory(context.Background()); err != nil {
			m.wrong("inventory: %v", err)
		}
	}
	m.look()
	m.power.still(m.known)
	if m.random.IntN(2) == 0 {
		m.sweep()
	}
}

// loseRecords takes the database away, or breaks it.
func (m *model) loseRecords(dir string) {
	path := filepath.Join(dir, "records.db")
	var err error
	if m.random.IntN(2) == 0 {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, []byte(strings.Repeat("broken ", 10_000)), 0o600)
	}
	if err != nil {
		m.wrong("%v", err)
	}
}

func (m *model) readRecords() map[cache.Bucket]map[string]string {
	all := map[cache.Bucket]map[string]string{}
	for _, b := range []cache.Bucket{
		bucketTag, bucketChecked, bucketManifest, bucketMember, bucketTagList,
		bucketReferrers, bucketPassed, bucketAttached, bucketUsed, bucketPin,
	} {
		all[b] = map[string]string{}
		err := m.store.Records().Scan(b, "", func(key string, value []byte) bool {
			all[b][key] = string(value)
			return true
		})
		if err != nil {
			m.wrong("%v", err)
		}
	}
	return all
}

// holdRecords sees to it that the records are those that lasted, no more and
// no less.
func (m *model) holdRecords(want map[cache.Bucket]map[string]string) {
	m.t.Helper()
	for b, got := range m.readRecords() {
		if len(got) == 0 && len(want[b]) == 0 || maps.Equal(got, want[b]) {
			continue
		}
		m.wrong("at the start the records of %s are wrong: %s", b, differences(got, want[b]))
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
