package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var wasmKinds = []kind{
	{name: "Wasm modules, as images", client: "containerd 2", tool: "containerd", push: pushModuleImages, take: pullModuleImage},
	{name: "Wasm modules, as artifacts", client: "oras", tool: "oras", push: pushModule, take: pullModule},
}

// module is the smallest WebAssembly module, with a section that nobody reads.
var module = "\x00asm\x01\x00\x00\x00" + "\x00\x85\x80\x04\x04note" + noise("a module", 1<<16)

const moduleConfig = `{"created": "2025-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip1", "layerDigests": []}`

func pushModule(e *errand) error {
	for file, content := range map[string]string{"module.wasm": module, "config.json": moduleConfig} {
		if _, err := e.write(file, content); err != nil {
			return err
		}
	}
	_, err := e.run("oras", "oras", "push", "--plain-http", "--config", "config.json:application/vnd.wasm.config.v0+json",
		e.ref("wasm/module:1"), "module.wasm:application/wasm")
	return err
}

func pullModule(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	_, err = e.run("oras", "oras", "pull", "--plain-http", "--output", into,
		"--config", "taken.json:application/vnd.wasm.config.v0+json", e.ref("wasm/module:1"))
	return errors.Join(err, same(filepath.Join(into, "module.wasm"), module), same(filepath.Join(into, "taken.json"), moduleConfig))
}

// modulePlatforms are what the images are for; only the second holds a module.
var modulePlatforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "wasi", Architecture: "wasm"}}

// pushModuleImages pushes an index with an image for a machine and one for a
// runtime of WebAssembly.
func pushModuleImages(e *errand) error {
	repository, err := name.NewRepository(e.ref("wasm/image"), name.Insecure)
	if err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, platform := range modulePlatforms {
		img, err := e.moduleImage(platform)
		if err != nil {
			return err
		}
		listed, err := partial.Descriptor(img)
		if err != nil {
			return err
		}
		if err := remote.Write(repository.Digest(listed.Digest.String()), img, remote.WithContext(e.context())); err != nil {
			return err
		}
		manifest, err := img.Manifest()
		if err != nil {
			return err
		}
		e.notes[platform.OS] = strings.Join([]string{listed.Digest.String(), manifest.Config.Digest.String(), manifest.Layers[0].Digest.String()}, " ")
		index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: listed.MediaType, Digest: listed.Digest, Size: listed.Size, Platform: &platform})
	}
	written, err := json.Marshal(index)
	if err != nil {
		return err
	}
	digest, err := partial.Digest(ociIndex(written))
	if err != nil {
		return err
	}
	e.notes["index"] = digest.String()
	return remote.Put(repository.Tag("1"), ociIndex(written), remote.WithContext(e.context()))
}

func (e *errand) moduleImage(platform v1.Platform) (v1.Image, error) {
	content := module
	if platform.OS != "wasi" {
		content = "a program for " + platform.String()
	}
	files := layer(e.t, func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Name: "module.wasm", Mode: 0o755, Size: int64(len(content)), ModTime: built}); err != nil {
			return err
		}
		_, err := io.WriteString(w, content)
		return err
	})
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), files)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture,
		Config: v1.Config{Entrypoint: []string{"/module.wasm"}}, RootFS: configFile(e.t, img).RootFS,
	})
}

// pullModuleImage pulls the image for WebAssembly into a containerd that holds
// nothing, through its hosts.toml, and looks at what it unpacks.
func pullModuleImage(e *errand) error {
	passed := e.t.Run("containerd", func(t *testing.T) {
		c, _ := e.suite.startContainerd(t, e.mirror, "containerd", nil, nil).(*containerd)
		ref := "registry.example/wasm/image:1"
		// Its transfer service unpacks for no platform but its own.
		c.ctr(t, "images", "pull", "--local", "--platform", "wasi/wasm", "--hosts-dir", c.hostsDir, ref)
		if listed := c.ctr(t, "images", "ls", "name=="+ref); !strings.Contains(listed, e.notes["index"]) {
			t.Errorf("ctr lists\n%s\nwant %s", listed, e.notes["index"])
		}
		checkBlobs(t, c.blobs(), append(strings.Fields(e.notes["wasi"]), e.notes["index"]))
		// Of other platforms it takes what describes them, and nothing more.
		other := strings.Fields(e.notes["linux"])[2]
		if _, err := os.Stat(filepath.Join(c.blobs(), strings.TrimPrefix(other, "sha256:"))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the layer %s was pulled, which is for another platform (%v)", other, err)
		}
		root := filepath.Join(c.dir, "unpacked")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		c.ctr(t, "images", "mount", "--platform", "wasi/wasm", ref, root)
		if err := same(filepath.Join(root, "module.wasm"), module); err != nil {
			t.Error(err)
		}
	})
	if !passed {
		return errors.New("containerd does not pull the module")
	}
	return nil
}
