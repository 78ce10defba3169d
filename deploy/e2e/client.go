package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// client pulls with a real program, into a store of its own.
type client interface {
	// pull pulls an image through the mirror.
	pull(t *testing.T, img image)
	// check fails the test where the store does not hold what was pushed.
	check(t *testing.T, img image)
	// forget empties the store.
	forget(t *testing.T)
}

// runner is a client that can also run an image's command.
type runner interface {
	run(t *testing.T, img image) (stdout string)
}

// checkBlobs checks each of the wanted digests in a folder blobs/sha256, as OCI
// layouts and containerd have it.
func checkBlobs(t *testing.T, blobs string, wanted []string) {
	t.Helper()
	for _, digest := range wanted {
		checkFile(t, filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:")), digest)
	}
}

// checkFile checks that a file's bytes have a digest.
func checkFile(t *testing.T, path, wanted string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Errorf("%s did not arrive: %v", wanted, err)
		return
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		t.Errorf("read what arrived as %s: %v", wanted, err)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != wanted {
		t.Errorf("%s arrived with the bytes of %s", wanted, got)
	}
}

// checkLayout checks an OCI image layout that holds the whole of an image.
func checkLayout(t *testing.T, folder string, img image) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err != nil {
		t.Error(err)
		return
	}
	var index struct {
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(content, &index); err != nil {
		t.Errorf("index.json: %v", err)
	}
	if !slices.ContainsFunc(index.Manifests, func(m struct{ Digest string }) bool { return m.Digest == img.digest }) {
		t.Errorf("index.json names %v, not %s", index.Manifests, img.digest)
	}
	checkBlobs(t, filepath.Join(folder, "blobs", "sha256"), img.content(architectures...))
}

// inspected is what Docker and Podman say of an image they hold.
type inspected struct {
	ID          string `json:"Id"`
	RepoDigests []string
	RootFS      struct{ Layers []string }
}

// checkInspected checks the answer of "image inspect", for this platform. The id is
// the digest of the config, or of the index where whole images are kept.
func checkInspected(t *testing.T, answer string, img image, id string) {
	t.Helper()
	var found []inspected
	if err := json.Unmarshal([]byte(answer), &found); err != nil || len(found) != 1 {
		t.Fatalf("inspect: %v, %d images", err, len(found))
	}
	want := img.platforms["amd64"]
	if got := "sha256:" + strings.TrimPrefix(found[0].ID, "sha256:"); got != id {
		t.Errorf("the image's id is %s, want %s", got, id)
	}
	if !slices.Equal(found[0].RootFS.Layers, want.diffIDs) {
		t.Errorf("the layers are\n%v, want\n%v", found[0].RootFS.Layers, want.diffIDs)
	}
	if !slices.ContainsFunc(found[0].RepoDigests, func(d string) bool { return strings.HasSuffix(d, "@"+img.digest) }) {
		t.Errorf("the image is known as %v, want %s", found[0].RepoDigests, img.digest)
	}
}
