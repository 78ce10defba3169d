package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Tekton's own modules can't be had: what its command line and its resolver ask
// go-containerregistry for is asked for here in their order.
var tektonKinds = []kind{
	{name: "Tekton's bundles", client: "go-containerregistry, as Tekton calls it", tool: ggcr, push: pushTektonBundle, take: resolveTektonBundle},
}

// bundled is an object in a bundle.
type bundled struct{ kind, name, content string }

var bundle = []bundled{
	{"task", "build", "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: build}\n" + strings.Repeat("# a line of the task\n", 5000)},
	{"pipeline", "release", "apiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {name: release}\n"},
}

// pushTektonBundle pushes a layer for each object, a tar of one file, on an image
// that has nothing else.
func pushTektonBundle(e *errand) error {
	img := empty.Image
	for _, object := range bundle {
		var packed bytes.Buffer
		w := tar.NewWriter(&packed)
		if err := w.WriteHeader(&tar.Header{Name: object.name, Mode: 0o600, Size: int64(len(object.content)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, object.content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil })
		if err != nil {
			return err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, Annotations: map[string]string{
			"dev.tekton.image.apiVersion": "v1", "dev.tekton.image.kind": object.kind, "dev.tekton.image.name": object.name,
		}})
		if err != nil {
			return err
		}
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	e.notes["manifest"] = string(raw)
	_, err = e.pushAs("tekton/bundle", "1", img)
	return err
}

// resolveTektonBundle resolves each object by the bundle's tag, and by its digest.
func resolveTektonBundle(e *errand) error {
	var err error
	for _, ref := range []string{"tekton/bundle:1", "tekton/bundle@" + e.digest("tekton/bundle")} {
		for _, object := range bundle {
			if problem := e.resolve(ref, object); problem != nil {
				err = errors.Join(err, fmt.Errorf("%s %s of %s: %w", object.kind, object.name, ref, problem))
			}
		}
	}
	return err
}

func (e *errand) resolve(rest string, want bundled) error {
	ref, err := name.ParseReference(e.ref(rest))
	if err != nil {
		return err
	}
	img, err := remote.Image(ref, remote.WithContext(e.context()))
	if err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	if string(raw) != e.notes["manifest"] {
		return fmt.Errorf("the manifest is %s, want %s", raw, e.notes["manifest"])
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, l := range manifest.Layers {
		if l.Annotations["dev.tekton.image.kind"] != want.kind || l.Annotations["dev.tekton.image.name"] != want.name {
			continue
		}
		content, err := untar(layers[i])
		if err == nil && content != want.content {
			err = fmt.Errorf("it has %d bytes that differ from the %d that were pushed", len(content), len(want.content))
		}
		return err
	}
	return fmt.Errorf("it is in no layer of %s", raw)
}

// untar reads the one file of a layer.
func untar(layer v1.Layer) (string, error) {
	unpacked, err := layer.Uncompressed()
	if err != nil {
		return "", err
	}
	defer unpacked.Close()
	files := tar.NewReader(unpacked)
	if _, err := files.Next(); err != nil {
		return "", err
	}
	content, err := io.ReadAll(files)
	return string(content), err
}
