package retention_test

import (
	"os"
	"path/filepath"
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
