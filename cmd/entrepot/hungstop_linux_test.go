package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// hungProgram is the program with records that are only in memory, because its
// disk hangs: a second repository has been found to hold a blob.
type hungProgram struct {
	cmd  *exec.Cmd
	log  *lockedBuffer
	dir  string
	d    digest.Digest
	mend func()
}

func startHungProgram(t *testing.T) *hungProgram {
	t.Helper()
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
	return &hungProgram{cmd, log, dir, d, mend}
}

func (h *hungProgram) signal(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasLearntWhileTheDiskHungSurvivesAStop has the program end just after
// its disk has come back, as at a restart of a storage and of all that uses it.
func TestWhatWasLearntWhileTheDiskHungSurvivesAStop(t *testing.T) {
	t.Parallel() // it waits for its process
	h := startHungProgram(t)
	h.mend()
	began := time.Now()
	h.signal(t)
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v:\n%s", err, h.log)
	}
	t.Logf("it ended after %s", time.Since(began))

	kept, err := disk.Open(h.dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	found := false
	if err := kept.Records().Scan("member", "", func(key string, _ []byte) bool {
		found = found || strings.Contains(key, "other") && strings.Contains(key, h.d.String())
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Errorf("that the other repository holds the blob was forgotten:\n%s", h.log)
	}
}

// A program whose disk stays away waits for it, because the next one would have
// to as well. Whoever cannot wait signals twice.
func TestASecondSignalEndsAProgramThatWaitsForItsDisk(t *testing.T) {
	t.Parallel() // it waits for its process
	h := startHungProgram(t)
	h.signal(t)
	ended := make(chan error, 1)
	go func() { ended <- h.cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("after one signal it ended with %v:\n%s", err, h.log)
	case <-time.After(3 * time.Second):
	}
	h.signal(t)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it did not end at the second signal")
	}
}
