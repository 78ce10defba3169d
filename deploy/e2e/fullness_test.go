package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// A fullness is a file system that has less than what is pulled.
type fullness struct {
	name   string
	make   func(t *testing.T, s *suite, dir string) // mounts it at the folder
	layer  int                                      // bytes of an image's layer
	images int
	bound  string // that entrepot says was met
}

var fullnesses = []fullness{
	{"tmpfs without inodes", func(t *testing.T, _ *suite, dir string) {
		mount(t, "-t", "tmpfs", "-o", "size=64m,nr_inodes=160", "tmpfs", dir)
	}, 10 << 10, 60, "inodes"},
	{"ext4 without inodes", func(t *testing.T, s *suite, dir string) {
		mountImage(t, s, dir, "64M", s.tool(t, "e2fsprogs").program("mkfs.ext4"), "-q", "-N", "160")
	}, 10 << 10, 60, "inodes"},
	{"tmpfs without room", func(t *testing.T, _ *suite, dir string) {
		mount(t, "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir)
	}, 1 << 20, 40, "space"},
	{"ext4 without room", func(t *testing.T, s *suite, dir string) {
		mountImage(t, s, dir, "32M", s.tool(t, "e2fsprogs").program("mkfs.ext4"), "-q")
	}, 1 << 20, 40, "space"},
	{"btrfs with a quota", func(t *testing.T, s *suite, dir string) {
		root := filepath.Join(s.folder(t), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		mountImage(t, s, root, "256M", s.tool(t, "btrfs").program("mkfs.btrfs"), "-q")
		for _, args := range []string{"quota enable " + root, "subvolume create " + root + "/cache", "qgroup limit 24M " + root + "/cache"} {
			command(t, os.Environ(), s.tool(t, "btrfs").program("btrfs"), strings.Fields(args)...)
		}
		mount(t, "--bind", root+"/cache", dir)
	}, 1 << 20, 40, "quota"},
}

func mount(t *testing.T, args ...string) {
	t.Helper()
	command(t, os.Environ(), "/usr/bin/mount", args...)
}

// mountImage makes a file system in a file, and mounts it.
func mountImage(t *testing.T, s *suite, dir, size, program string, args ...string) {
	t.Helper()
	image := filepath.Join(s.folder(t), "image")
	command(t, os.Environ(), "/usr/bin/truncate", "-s", size, image)
	command(t, os.Environ(), program, append(args, image)...)
	mount(t, "-o", "loop", image, dir)
}

// keptWithin is how long it may take until what was pulled is kept.
const keptWithin = 5 * time.Second

// TestTheNewestContentIsKeptHoweverFullTheFileSystemIs pulls more than there is
// room for, of a kind of room that the kernel itself refuses.
func TestTheNewestContentIsKeptHoweverFullTheFileSystemIs(t *testing.T) {
	s := readSuite(t)
	for _, f := range fullnesses {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			up := withAPI.start(t, s)
			var all []*knownBlob
			for i := range f.images {
				content := bytes.Repeat([]byte(fmt.Sprintf("%s %06d\n", f.name, i)), f.layer/16)
				all = append(all, pushLayer(t, up.host, fmt.Sprintf("full/%d", i), content, mutate.Addendum{Layer: static.NewLayer(content, types.DockerUncompressedLayer)}))
			}
			m := s.newMirror(t, up)
			dir := filepath.Join(m.dir, "cache")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			f.make(t, s, dir)
			writeFile(t, m.config(), fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %s, max_size: 10GiB, min_free: 0}\nfreshness: {tag_ttl: 1h}\n"+
				"upstreams: [{name: docker.io, default: true, endpoints: [\"http://%s\"]}]\n", m.address, m.admin, dir, up.host))
			m.start(t)
			var slowest time.Duration
			for i, b := range all {
				content := pullKnown(t, m, b)
				began := time.Now()
				for !areKept(dir, content) {
					if time.Since(began) > keptWithin {
						t.Fatalf("image %d of %d is not kept after %s; %s", i, f.images, keptWithin, metricsOf(t, m, "cache"))
					}
					time.Sleep(10 * time.Millisecond)
				}
				slowest = max(slowest, time.Since(began))
			}
			if met := metricsOf(t, m, `full_total{bound="`+f.bound+`"`); !strings.Contains(met, f.bound) || strings.HasSuffix(strings.TrimSpace(met), " 0") {
				t.Errorf("the bound %s was not met: %s", f.bound, metricsOf(t, m, "full_total"))
			}
			t.Logf("kept after %s at most; %s", slowest.Round(time.Millisecond), metricsOf(t, m, "bypass_total"))
			up.stop(t)
			pullKnown(t, m, all[len(all)-1])
		})
	}
}

// pullKnown pulls an image as a runtime does, and returns its digests.
func pullKnown(t *testing.T, m *mirror, b *knownBlob) (all []string) {
	t.Helper()
	manifest := fetchWhole(t, m, b.manifest())
	all = append(all, digest.FromBytes(manifest).String())
	for d := range strings.SplitSeq(string(manifest), `"digest":"`) {
		if d, _, ok := strings.Cut(d, `"`); ok && strings.HasPrefix(d, "sha256:") {
			if content := fetchWhole(t, m, "/v2/"+b.repository+"/blobs/"+d); digest.FromBytes(content).String() != d {
				t.Errorf("%s has other bytes", d)
			}
			all = append(all, d)
		}
	}
	return all
}

func fetchWhole(t *testing.T, m *mirror, path string) []byte {
	t.Helper()
	resp, err := http.Get("http://" + m.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v, %.200s", path, resp.Status, err, body)
	}
	return body
}

// areKept says whether all of it is in a cache folder.
func areKept(dir string, digests []string) bool {
	for _, d := range digests {
		hex := strings.TrimPrefix(d, "sha256:")
		if _, err := os.Stat(filepath.Join(dir, "blobs", "sha256", hex[:2], hex)); err != nil {
			return false
		}
	}
	return true
}

// metricsOf are the lines about something.
func metricsOf(t *testing.T, m *mirror, about string) string {
	t.Helper()
	resp, err := http.Get("http://" + m.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(body)) {
		if strings.Contains(line, about) && !strings.HasPrefix(line, "#") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, ", ")
}
