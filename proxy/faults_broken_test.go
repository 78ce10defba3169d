package proxy_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

// A row about a disk that breaks under a mirror that runs.
type brokenRow struct {
	name  string
	broke func(b *breakable, t *testing.T)
}

func brokenRows() []brokenRow {
	hang := func(of filestest.Operations) func(*breakable, *testing.T) {
		return func(b *breakable, _ *testing.T) { b.disk.Hang(of) }
	}
	fail := func(of filestest.Operations, err error) func(*breakable, *testing.T) {
		return func(b *breakable, _ *testing.T) { b.disk.Fail(of, err) }
	}
	remove := func(names ...string) func(*breakable, *testing.T) {
		return func(b *breakable, t *testing.T) {
			for _, name := range names {
				found, err := filepath.Glob(filepath.Join(b.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range found {
					if err := os.RemoveAll(path); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	rows := []brokenRow{
		{"reads hang", hang(filestest.Reads)},
		{"everything hangs", hang(filestest.All)},
		{"reads fail (EIO)", fail(filestest.Reads, syscall.EIO)},
		{"writes fail (EIO)", fail(filestest.Writes, syscall.EIO)},
		{"reads and writes fail (EIO)", fail(filestest.All, syscall.EIO)},
		{"writes find no room (ENOSPC)", fail(filestest.Creates|filestest.Changes, syscall.ENOSPC)},
		{"writes meet a quota (EDQUOT)", fail(filestest.Creates|filestest.Changes, syscall.EDQUOT)},
		{"there are no inodes", func(b *breakable, _ *testing.T) { b.disk.NoInodes() }},
		{"it can only be read (EROFS)", fail(filestest.Writes, syscall.EROFS)},
		{"reads and writes find nothing (ENOENT)", fail(filestest.All, fs.ErrNotExist)},
		{"statfs tells nothing", func(b *breakable, _ *testing.T) {
			b.disk.SetSpace(func(files.Space) files.Space { return files.Space{} })
		}},
	}
	if runtime.GOOS != "windows" { // where files that are open can't be removed
		rows = append(rows, []brokenRow{
			{"what is in the folder is removed", remove("*")},
			{"the folder is removed", remove("")},
			{"the drafts are removed", remove("drafts")},
			{"the blobs are removed", remove("blobs")},
			{"the records are removed", remove("records.db")},
		}...)
	}
	return rows
}

// brokenFaults has three clients at once ask for what is kept and for what is
// not.
func brokenFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range brokenRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				b := newBreakable(t, nil)
				row.broke(b, t)
				kept, fresh := b.served(b.kept[0], 3), b.served(b.fresh[0], 3)
				if kept != 3 || fresh != 3 {
					t.Errorf("%d of what is kept and %d of what is not were whole", kept, fresh)
				}
				b.wantLanded()
				again := b.isKeptAgain(t)
				if !again {
					t.Error("what is pulled is not kept again")
				}
				lines.add(i, row.name, fmt.Sprintf("%d of 3 whole", kept), fmt.Sprintf("%d of 3 whole", fresh), yes(again))
			})
		}
	})
	return "### A disk that breaks\n\nA large blob is kept, and another is not, when the disk breaks; three clients ask for each. Then it is mended, or has been made again: " +
		"the next pull is kept, and served without the upstream.\n\n" + lines.table("what happens", "of what is kept", "of what is not", "recovers")
}

// served is how many of n clients get a path whole.
func (b *breakable) served(path string, n int) (whole int) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			a := b.get(path)
			mu.Lock()
			defer mu.Unlock()
			if a.status == http.StatusOK && a.broken == nil && string(a.body) == string(b.has[path]) {
				whole++
			}
		})
	}
	group.Wait()
	return whole
}

// isKeptAgain mends the disk, pulls both blobs, and reports whether the mirror
// has them without its upstream.
func (b *breakable) isKeptAgain(t *testing.T) bool {
	outage := b.store.Outage()
	b.disk.Mend()
	if outage != nil {
		<-outage
	}
	for range 2 {
		for _, path := range []string{b.kept[0], b.fresh[0]} {
			b.served(path, 1)
			b.wantLanded()
		}
	}
	b.fake.Stop()
	return b.served(b.kept[0], 1) == 1 && b.served(b.fresh[0], 1) == 1
}
