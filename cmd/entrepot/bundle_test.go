package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/bundle"
)

// writeBundle writes a bundle of one image with one layer. It may lack the layer,
// and assume that the other side has it.
func writeBundle(t *testing.T, layer string, lacks, assumes bool) (file string) {
	t.Helper()
	config := []byte(`{}`)
	manifest, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(layer), Size: int64(len(layer))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	root := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	parts := [][]byte{manifest, config}
	c := bundle.Contents{
		Created: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		Images:  []bundle.Image{{Upstream: "hub.test", Repository: "app", Tag: "1", Manifest: root}},
		Content: []bundle.Content{{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, {Digest: digest.FromBytes(config), Size: int64(len(config))}},
	}
	of := bundle.Content{Digest: digest.FromString(layer), Size: int64(len(layer))}
	switch {
	case assumes:
		c.Assumed = append(c.Assumed, of)
	case !lacks:
		c.Content, parts = append(c.Content, of), append(parts, []byte(layer))
	}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, c, nil)
	for _, part := range parts {
		if err == nil {
			err = w.WriteBlob(bytes.NewReader(part))
		}
	}
	if err == nil {
		err = w.Close()
	}
	file = filepath.Join(t.TempDir(), "images.tar")
	if err == nil {
		err = os.WriteFile(file, out.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestABundleIsVerifiedAndListedWithoutACache(t *testing.T) {
	clean(t)
	sound, lacking, delta := writeBundle(t, "layer", false, false), writeBundle(t, "layer", true, false), writeBundle(t, "layer", false, true)
	raw, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	layer := digest.FromString("layer").String()
	has, hasNot := filepath.Join(t.TempDir(), "has"), filepath.Join(t.TempDir(), "hasnot")
	damaged := filepath.Join(t.TempDir(), "damaged.tar")
	flipped := bytes.Clone(raw)
	flipped[bytes.LastIndex(raw, []byte("layer"))] ^= 1
	for name, content := range map[string]string{has: layer + "\n", hasNot: "", damaged: string(flipped)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args   string
		code   int
		says   string
		stderr string
	}{
		{"verify " + sound, 0, "The digest of the file is " + digest.FromBytes(raw).String(), ""},
		{"verify " + sound, 0, "IMAGE           MANIFESTS  BLOBS  SIZE   REFERRERS  WHOLE\n", ""},
		{"verify " + delta, 0, "REFERRERS  ASSUMED  WHOLE\n", ""},
		{"verify -o json " + sound, 0, `"whole": true`, ""},
		{"verify " + lacking, 1, "hub.test/app:1: blob " + layer + " is missing", "not every image is whole"},
		{"verify " + delta, 0, "", ""},
		{"verify --against " + has + " " + delta, 0, "", ""},
		{"verify --against " + sound + " " + delta, 0, "", ""},
		{"verify --against " + hasNot + " " + delta, 1, layer + " is assumed to be on the other side, and is not", "not every image is whole"},
		{"verify " + damaged, 1, "", layer + ": the bundle is damaged"},
		{"verify " + has, 1, "", "not a bundle"},
		{"verify", 2, "", "name one file"},
		{"ls " + sound, 0, "hub.test/app:1", ""},
		{"ls " + delta, 0, "1 more have to be on the other side", ""},
		{"ls -o json " + sound, 0, `"formatVersion": 1`, ""},
		{"ls -o yaml " + sound, 2, "", "unknown output"},
	} {
		code, stdout, stderr := entrepot(t, append([]string{"bundle"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stdout, c.says) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit %d, %s%s", c.args, code, stdout, stderr)
		}
	}
}
