//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// onDisk is how many bytes a folder takes, as du says.
func onDisk(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		if info, err := entry.Info(); err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Manifests that name ten thousand layers each, and questions about what does
// not exist.
func TestTheWholeFolderStaysWithinItsBound(t *testing.T) {
	const bound, inFlight = 4 << 20, 1 << 20
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	p := newPlace(t, fake, "")
	t.Setenv("ENTREPOT_CACHE_MAX_SIZE", "4MiB")
	admin := p.serve()
	defer p.stop()
	var most int64
	for i := range 8 {
		repo := fmt.Sprint("team/wide", i)
		var layers []string
		for n := range 10_000 {
			layers = append(layers, fmt.Sprintf(`{"digest":"%s","size":%d}`, digest.FromString(fmt.Sprint(i, n)), n))
		}
		fake.AddManifest(repo, ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[`+strings.Join(layers, ",")+`]}`), "1")
		if status, body := p.get("/v2/" + repo + "/manifests/1"); status != http.StatusOK {
			t.Fatalf("%d %.200s", status, body)
		}
		most = max(most, onDisk(t, p.cache))
	}
	// The fake reads all manifests of a repository for each of its answers.
	fake.AddImage("team/small", "1", []byte("layer"))
	before := p.list([]string{"--admin", admin}).Records
	for i := range 2000 {
		if status, body := p.get("/v2/team/small/referrers/" + digest.FromString(fmt.Sprint("none ", i)).String()); status != http.StatusOK {
			t.Fatalf("%d %.200s", status, body)
		}
	}
	most = max(most, onDisk(t, p.cache))
	if most > bound+2*inFlight {
		t.Errorf("%d bytes were in the folder", most)
	}
	list := p.list([]string{"--admin", admin})
	// A database that is written to has some free pages, however little is in it;
	// 2000 answers on record would take more than a megabyte, with the journal.
	if list.Records == 0 || list.Records > before+512<<10 {
		t.Errorf("the records take %d bytes, and took %d before 2000 questions", list.Records, before)
	}
	for end := time.Now().Add(20 * time.Second); onDisk(t, p.cache) > bound; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are in the folder", onDisk(t, p.cache))
		}
	}
	p.stop()
	if n := onDisk(t, p.cache); n > bound {
		t.Errorf("%d bytes are left in the folder", n)
	}
}
