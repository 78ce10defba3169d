package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// updated are two images of one zstd:chunked layer each, of which the newer has a
// third of the files anew.
type updated struct{ older, newer *knownBlob }

const (
	chunkedFiles = 600
	chunkedFile  = 70_000 // bytes of each
)

// pushUpdated pushes both.
func (s *suite) pushUpdated(t *testing.T, host string) updated {
	t.Helper()
	return updated{
		older: s.pushChunked(t, host, "library/chunked-older", false),
		newer: s.pushChunked(t, host, "library/chunked-newer", true),
	}
}

func chunkedName(i int) string { return fmt.Sprintf("file-%03d", i) }

// chunkedContent is what a file has in the older image or the newer.
func chunkedContent(i int, newer bool) []byte {
	seed := [32]byte{byte(i), byte(i >> 8)}
	if newer && i%3 == 0 {
		seed[2] = 1
	}
	content := make([]byte, chunkedFile)
	_, _ = rand.NewChaCha8(seed).Read(content) // It never fails.
	return content
}

// unreadFile is part of a file that the newer image has from the older.
var unreadFile = span{21_120_000, 21_160_000}

// pushChunked pushes an image whose one layer is zstd:chunked.
func (s *suite) pushChunked(t *testing.T, host, repository string, newer bool) *knownBlob {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for i := range chunkedFiles {
		header := &tar.Header{Name: chunkedName(i), Mode: 0o644, Size: chunkedFile, ModTime: built}
		if err := errors.Join(w.WriteHeader(header), writeAll(w, chunkedContent(i, newer))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	annotations := map[string]string{}
	content := s.mapped(t, func(to io.Writer) error {
		fastest := 1
		chunked, err := compressor.ZstdCompressor(to, annotations, &fastest)
		if err != nil {
			return err
		}
		return errors.Join(writeAll(chunked, archive.Bytes()), chunked.Close())
	})
	// Podman before 4.4 knows them by other names.
	for key, value := range maps.Clone(annotations) {
		annotations[strings.Replace(key, "io.github.containers.", "io.containers.", 1)] = value
	}
	unpacked, _, err := v1.SHA256(&archive)
	if err != nil {
		t.Fatal(err)
	}
	layer := packed{static.NewLayer(content, types.OCILayerZStd), unpacked}
	return pushLayer(t, host, repository, content, mutate.Addendum{Layer: layer, Annotations: annotations})
}

// packed is a layer that is known by another digest once it is unpacked.
type packed struct {
	v1.Layer
	unpacked v1.Hash
}

func (l packed) DiffID() (v1.Hash, error) { return l.unpacked, nil }

// partialPodman is a Podman that pulls the older of two images, and then of the
// newer what it lacks.
func partialPodman(images updated) func(*testing.T, *suite, *mirror, string) pieceReading {
	return func(t *testing.T, s *suite, m *mirror, host string) pieceReading {
		var dir string
		if m != nil {
			dir, _ = s.containersHome(t, m, "podman")
		} else {
			dir = s.folder(t)
			settings := filepath.Join(dir, ".config", "containers")
			writeFile(t, filepath.Join(settings, "policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
			writeFile(t, filepath.Join(settings, "registries.conf.d", "straight.conf"),
				fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = %q\ninsecure = true\n", host))
		}
		stores := 0
		return func(t *testing.T, when string) int64 {
			t.Helper()
			stores++
			store := filepath.Join(dir, fmt.Sprintf("store-%d", stores))
			settings := filepath.Join(store, "storage.conf")
			writeFile(t, settings, fmt.Sprintf(`[storage]
driver = "overlay"
graphroot = %q
runroot = %q
[storage.options]
pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}
`, filepath.Join(store, "root"), filepath.Join(store, "run")))
			podman := func(args ...string) string {
				t.Helper()
				args = append([]string{"--cgroup-manager", "cgroupfs", "--events-backend", "none"}, args...)
				return command(t, append(environment(dir), "CONTAINERS_STORAGE_CONF="+settings), s.tool(t, "podman").program("podman"), args...)
			}
			podman("pull", "docker.io/"+images.older.repository+":1")
			podman("pull", "docker.io/"+images.newer.repository+":1")
			mounted := strings.TrimSpace(podman("image", "mount", "docker.io/"+images.newer.repository+":1"))
			for i := range chunkedFiles {
				got, err := os.ReadFile(filepath.Join(mounted, chunkedName(i)))
				if err != nil || !bytes.Equal(got, chunkedContent(i, true)) {
					t.Errorf("%s: %s is not what was pushed: %v", when, chunkedName(i), err)
				}
			}
			podman("image", "unmount", "--all", "--force")
			return 0 // The upstream says what Podman asks for, without a mirror.
		}
	}
}
