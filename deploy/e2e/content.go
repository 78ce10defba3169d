package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// packages make the root file system, a layer each.
var packages = []string{"base-files", "busybox-static", "libc6", "tzdata", "ca-certificates"}

// architectures are the platforms of every image, linux each.
var architectures = []string{"amd64", "arm64"}

// image is an index of two platforms, as it was pushed to the upstream.
type image struct {
	registry   string // as clients name it
	repository string // as the upstream knows it
	tag        string
	greeting   string // what its command prints
	digest     string // of the index
	platforms  map[string]platform
}

// platform is one image of the index; all are digests.
type platform struct {
	manifest, config string
	layers           []string // compressed, as they are pulled
	diffIDs          []string
}

// reference is how clients name the image.
func (i image) reference() string { return i.registry + "/" + i.repository + ":" + i.tag }

// blobs are the configs and layers of the platforms.
func (i image) blobs(archs ...string) []string {
	var all []string
	for _, arch := range archs {
		p := i.platforms[arch]
		all = append(append(all, p.config), p.layers...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// content is everything that the platforms need, the index included.
func (i image) content(archs ...string) []string {
	all := append(i.blobs(archs...), i.digest)
	for _, arch := range archs {
		all = append(all, i.platforms[arch].manifest)
	}
	return all
}

// push makes an image of Debian's packages and one more layer, and pushes it.
// What differs between two images is only that last layer.
func (s *suite) push(t *testing.T, host, registry, repository string) image {
	t.Helper()
	img := image{registry: registry, repository: repository, tag: "1"}
	img.greeting = "This came from " + img.reference() + "."
	return img.push(t, host, func(arch string) []v1.Layer { return s.packageLayers(t, arch, img.greeting) })
}

// push makes an image of the layers of each platform, and pushes it.
func (img image) push(t *testing.T, host string, layers func(arch string) []v1.Layer) image {
	t.Helper()
	img.platforms = map[string]platform{}
	target, err := name.NewRepository(host+"/"+img.repository, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, arch := range architectures {
		made, p, manifest := platformImage(t, arch, layers(arch))
		manifest.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, manifest)
		img.platforms[arch] = p
		if err := remote.Write(target.Digest(p.manifest), made); err != nil {
			t.Fatalf("push %s for %s: %v", target, arch, err)
		}
	}
	written, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := v1.SHA256(bytes.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	img.digest = digest.String()
	if err := remote.Put(target.Tag(img.tag), ociIndex(written)); err != nil {
		t.Fatalf("push %s: %v", target, err)
	}
	return img
}

// ociIndex is an index as common build tools write it: mutate's would add an
// artifactType to each descriptor, which older clients drop, and with it the
// index's digest.
type ociIndex []byte

func (i ociIndex) RawManifest() ([]byte, error)        { return i, nil }
func (i ociIndex) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }

func (s *suite) packageLayers(t *testing.T, arch, greeting string) []v1.Layer {
	t.Helper()
	root := s.tool(t, "rootfs-"+arch).folder
	var layers []v1.Layer
	for _, pkg := range packages {
		layers = append(layers, layer(t, func(w *tar.Writer) error { return writeFolder(w, filepath.Join(root, pkg)) }))
	}
	return append(layers, layer(t, func(w *tar.Writer) error {
		text := greeting + "\n"
		if err := w.WriteHeader(&tar.Header{Name: "etc/greeting", Mode: 0o644, Size: int64(len(text)), ModTime: built}); err != nil {
			return err
		}
		_, err := io.WriteString(w, text)
		return err
	}))
}

func platformImage(t *testing.T, arch string, layers []v1.Layer) (v1.Image, platform, v1.Descriptor) {
	t.Helper()
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	made, err = mutate.ConfigFile(made, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: built},
		Config: v1.Config{Cmd: []string{"/bin/busybox", "cat", "/etc/greeting"}},
		RootFS: configFile(t, made).RootFS,
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := made.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := made.Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := made.Size()
	if err != nil {
		t.Fatal(err)
	}
	p := platform{manifest: digest.String(), config: manifest.Config.Digest.String()}
	for _, l := range manifest.Layers {
		p.layers = append(p.layers, l.Digest.String())
	}
	for _, d := range configFile(t, made).RootFS.DiffIDs {
		p.diffIDs = append(p.diffIDs, d.String())
	}
	return made, p, v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size}
}

func configFile(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// built is the time of every file, so that two runs make the same digests.
var built = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func layer(t *testing.T, write func(*tar.Writer) error) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	l, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// writeFolder writes all below a folder, owned by root.
func writeFolder(w *tar.Writer, folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == folder {
			return err
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{Mode: int64(stat.Mode().Perm()), ModTime: built}
		if header.Name, err = filepath.Rel(folder, path); err != nil {
			return err
		}
		switch {
		case stat.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		case stat.Mode()&fs.ModeSymlink != 0:
			header.Typeflag = tar.TypeSymlink
			if header.Linkname, err = os.Readlink(path); err != nil {
				return err
			}
		case stat.Mode().IsRegular():
			header.Typeflag, header.Size = tar.TypeReg, stat.Size()
		default:
			return fmt.Errorf("%s is neither a file, a folder nor a link", path)
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(w, file)
		return err
	})
}
