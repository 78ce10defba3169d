package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestAHungDiskHoldsFewThreads has the kernel itself hang when what is kept is
// opened: instead of the files there are pipes, which nobody writes to. 1,000
// clients come and leave; others are served meanwhile, and all is well again
// when the files are back.
func TestAHungDiskHoldsFewThreads(t *testing.T) {
	t.Parallel() // it waits for its process
	const clients, mostThreads = 1000, 64
	fake := upstreamtest.New(t)
	layer := upstreamtest.Bytes(1, 1<<20)
	_, image := fake.AddImage("app", "1", layer)
	d := image.Layers[0].Digest
	dir := filepath.Join(t.TempDir(), "cache")
	listen, admin := freeAddress(t), freeAddress(t)
	config := filepath.Join(t.TempDir(), "c.yaml")
	content := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %s}\nupstreams: [{name: hub.test, default: true, endpoints: [%q]}]\n", listen, admin, dir, fake.URL())
	cmd, log := startChild(t, config, content)
	isRight := func(body []byte) bool { return digest.FromBytes(body) == d }
	manifest, blob := "http://"+listen+"/v2/app/manifests/1", "http://"+listen+"/v2/app/blobs/"+d.String()
	path := filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	eventually(t, "the mirror serves and keeps", func() bool {
		status, _, err := get(t.Context(), manifest)
		if err != nil || status != http.StatusOK {
			return false
		}
		_, body, err := get(t.Context(), blob)
		_, statErr := os.Stat(path)
		return err == nil && isRight(body) && statErr == nil
	})

	mend := hangAt(t, path, filepath.Join(dir, "format"))
	var left sync.WaitGroup
	slots := make(chan struct{}, 200)
	for range clients {
		left.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, _, _ = get(ctx, blob)
		})
	}
	left.Wait()
	if n := threads(t, cmd.Process.Pid); n >= mostThreads {
		t.Errorf("%d threads after %d clients have left", n, clients)
	} else {
		t.Logf("%d threads after %d clients have left", n, clients)
	}
	began := time.Now()
	before := fake.BlobBytes()
	for range 3 {
		if status, body, err := get(t.Context(), blob); status != http.StatusOK || !isRight(body) || err != nil {
			t.Errorf("while the disk hangs: %d, %d bytes, %v", status, len(body), err)
		}
	}
	t.Logf("three pulls took %s, and the upstream sent %d bytes", time.Since(began), fake.BlobBytes()-before)
	if status, _, err := get(t.Context(), manifest); status != http.StatusOK || err != nil {
		t.Errorf("what is in memory: %d, %v", status, err)
	}
	if _, body, err := get(t.Context(), "http://"+admin+"/readyz"); err != nil || !strings.Contains(string(body), "disk is down") {
		t.Errorf("/readyz says %q, %v", body, err)
	}
	if _, body, err := get(t.Context(), "http://"+admin+"/metrics"); err != nil || !strings.Contains(string(body), "\nentrepot_disk_down 1\n") {
		t.Errorf("/metrics does not have entrepot_disk_down 1: %v", err)
	}
	if n := strings.Count(log.String(), "disk is down"); n != 1 {
		t.Errorf("%d lines say that the disk is down:\n%s", n, log.String())
	}
	mend()
	eventually(t, "the disk is up again", func() bool {
		_, body, err := get(t.Context(), "http://"+admin+"/metrics")
		return err == nil && strings.Contains(string(body), "\nentrepot_disk_down 0\n")
	})
	before = fake.BlobBytes()
	if status, body, err := get(t.Context(), blob); status != http.StatusOK || !isRight(body) || err != nil || fake.BlobBytes() != before {
		t.Errorf("mended: %d, %d bytes, %v; the upstream sent %d", status, len(body), err, fake.BlobBytes()-before)
	}
}

func get(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// hangAt has who opens one of the files hang, until it is mended.
func hangAt(t *testing.T, paths ...string) (mend func()) {
	t.Helper()
	mend = func() {}
	for _, file := range paths {
		aside, before := file+".aside", mend
		if err := os.Rename(file, aside); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
		mend = func() {
			before()
			pipe, err := os.OpenFile(file, os.O_RDWR, 0) // who waits for it goes on
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(aside, file); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			pipe.Close()
		}
	}
	return mend
}

// startChild runs the program until the end of the test.
func startChild(t *testing.T, config, content string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, log := exec.Command(os.Args[0], "-test.run=^TestKillChild$"), &lockedBuffer{}
	cmd.Env = append(otherVariables(), killChild+"="+config)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, log
}

// threads is how many threads a process has.
func threads(t *testing.T, pid int) (n int) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(raw, []byte("\nThreads:"))
	if _, err := fmt.Sscan(string(after), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// lockedBuffer is a buffer that is written to meanwhile.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
