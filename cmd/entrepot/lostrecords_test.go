package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// recordImages puts n images on record in a folder: a manifest, a tag and seven
// blobs each. None of their content is there.
func recordImages(t *testing.T, dir string, n int) {
	t.Helper()
	files, err := disk.Open(dir, disk.Options{Journal: metadata.Durable()})
	if err != nil {
		t.Fatal(err)
	}
	ledger := metadata.New(files.Records(), nil)
	for i := range n {
		repo := metadata.Repository{Upstream: "up.test", Name: fmt.Sprintf("org%d/app%d", i%100, i)}
		d := digest.FromString(fmt.Sprint("manifest ", i))
		m := metadata.Manifest{MediaType: ocispec.MediaTypeImageManifest, Size: 2000}
		for j := range 7 {
			m.Blobs = append(m.Blobs, metadata.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(fmt.Sprint("blob ", i, j)), Size: 1 << 20})
		}
		ledger.PutManifest(repo, d, m)
		ledger.PutTag(repo, "v1", metadata.Tag{Descriptor: metadata.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size}, CheckedAt: time.Now()})
		if i%1000 == 999 {
			if err := ledger.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
}

const lostImages = "ENTREPOT_LOST_IMAGES"

// A probe of whether the process lives is answered while the records are
// restored, and that takes the same memory however many they are.
func TestLostRecordsAreRestoredWhileTheProcessIsKnownToLive(t *testing.T) {
	images := 2000
	if text := os.Getenv(lostImages); text != "" {
		var err error
		if images, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "cache")
	recordImages(t, dir, images)
	if err := os.Remove(filepath.Join(dir, "records.db")); err != nil {
		t.Fatal(err)
	}
	admin := freeAddress(t)
	config := filepath.Join(t.TempDir(), "c.yaml")
	content := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: %s\noffline: true\ncache: {dir: %s}\nupstreams: [{name: up.test}]\n", admin, dir)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(otherVariables(), killChild+"="+config)
	var log bytes.Buffer
	cmd.Stderr = &log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var lives, ready time.Duration
	waited := false
	for ready == 0 {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("it is not ready: %s", log.String())
		}
		if lives == 0 && probe(admin, "/healthz") == http.StatusOK {
			lives = time.Since(began)
		}
		switch probe(admin, "/readyz") {
		case http.StatusOK:
			ready = time.Since(began)
		case http.StatusServiceUnavailable:
			waited = true
		}
		time.Sleep(2 * time.Millisecond) // of another process, which has its own clock
	}
	peak := peakMemory(t, cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d images: it lives after %s and is ready after %s; %d KiB at most", images, lives, ready, peak>>10)
	if !waited || lives > ready {
		t.Errorf("nobody heard that it is starting: it lives after %s, and is ready after %s", lives, ready)
	}
	if peak > 128<<20 {
		t.Errorf("it took %d bytes of memory", peak)
	}
	if want := fmt.Sprintf("manifests=%d error=<nil>", images); !strings.Contains(log.String(), want) || strings.Contains(log.String(), "dropped") {
		t.Errorf("want %s in %s", want, log.String())
	}
}

// probe returns the status of an answer; 0 if there is none.
func probe(address, path string) int {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// peakMemory is the most that a process has had of memory, with what is mapped;
// 0 on systems that do not tell.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	return 0
}
