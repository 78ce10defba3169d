package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestWhatWasLearntWhileTheDiskHungSurvivesAStop has the program end just after
// its disk has come back, as at a restart of a storage and of all that uses it.
func TestWhatWasLearntWhileTheDiskHungSurvivesAStop(t *testing.T) {
	t.Parallel() // it waits for its process
	fake := upstreamtest.New(t)
	layer := upstreamtest.Bytes(1, 1<<20)
	_, image := fake.AddImage("app", "1", layer)
	fake.AddImage("other", "1", layer)
	d := image.Layers[0].Digest
	dir := filepath.Join(t.TempDir(), "cache")
	listen, admin := freeAddress(t), freeAddress(t)
	cmd, log := startChild(t, filepath.Join(t.TempDir(), "c.yaml"), fmt.Sprintf(
		"listen: %s\nadmin: %s\ncache: {dir: %s}\nupstreams: [{name: hub.test, default: true, endpoints: [%q]}]\n", listen, admin, dir, fake.URL()))
	path := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	blob := func(ctx context.Context, repo string) bool {
		status, body, err := get(ctx, "http://"+listen+"/v2/"+repo+"/blobs/"+d.String())
		return err == nil && status == http.StatusOK && digest.FromBytes(body) == d
	}
	eventually(t, "the mirror serves and keeps", func() bool {
		_, err := os.Stat(path)
		return blob(t.Context(), "app") && err == nil
	})
	mend := hangAt(t, path, filepath.Join(dir, "format"))
	for _, repo := range []string{"app", "other"} {
		if !blob(t.Context(), repo) {
			t.Errorf("while the disk hangs, %s is not served", repo)
		}
	}
	if !strings.Contains(log.String(), "the disk is down") {
		t.Fatalf("it is not down:\n%s", log)
	}
	mend()
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v:\n%s", err, log)
	}
	t.Logf("it ended after %s", time.Since(began))

	kept, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	found := false
	if err := kept.Records().Scan("member", "", func(key string, _ []byte) bool {
		found = found || strings.Contains(key, "other") && strings.Contains(key, d.String())
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Errorf("that the other repository holds the blob was forgotten:\n%s", log)
	}
}
