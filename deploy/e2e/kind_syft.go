package e2e

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/anchore/stereoscope/pkg/file"
	stereoscope "github.com/anchore/stereoscope/pkg/image"
	"github.com/anchore/stereoscope/pkg/image/oci"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Syft itself is not built: the library below it reads all that it asks of a
// registry.
var syftKinds = []kind{
	{name: "images' SBOMs", client: "Syft's library and oras", tool: "github.com/anchore/stereoscope", push: attachSBOM, take: makeSBOM, hangs: true},
}

// installed is what dpkg says is in the image.
const installed = `Package: entrepot-e2e
Status: install ok installed
Maintainer: Nobody <nobody@example.org>
Architecture: amd64
Version: 2:1.2.3-4
Description: a package that is nowhere else
`

const sbom = `{"spdxVersion": "SPDX-2.3", "name": "entrepot-e2e", "packages": [{"name": "entrepot-e2e", "versionInfo": "2:1.2.3-4"}]}`

// attachSBOM attaches an image's SBOM to it.
func attachSBOM(e *errand) error {
	database := layer(e.t, func(w *tar.Writer) error {
		for name, content := range map[string]string{
			"etc/os-release":      "ID=debian\nVERSION_ID=12\n",
			"var/lib/dpkg/status": installed,
		} {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: built}); err != nil {
				return err
			}
			if _, err := io.WriteString(w, content); err != nil {
				return err
			}
		}
		return nil
	})
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), database)
	if err != nil {
		return err
	}
	if _, err := e.pushAs("described", "1", img); err != nil {
		return err
	}
	if _, err := e.write("sbom.spdx.json", sbom); err != nil {
		return err
	}
	_, err = e.run("oras", "oras", "attach", "--plain-http", "--artifact-type", "application/spdx+json", e.ref("described:1"), "sbom.spdx.json:application/spdx+json")
	return err
}

// makeSBOM reads the image as Syft does to find its packages, and then the SBOM
// that is attached.
func makeSBOM(e *errand) error {
	if err := e.catalog("described"); err != nil {
		return err
	}
	out, err := e.run("oras", "oras", "discover", "--plain-http", "--format", "json", "--artifact-type", "application/spdx+json", e.ref("described:1"))
	if err != nil {
		return err
	}
	var found struct{ Referrers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return fmt.Errorf("oras discover says %q: %w", out, err)
	}
	if len(found.Referrers) != 1 {
		return fmt.Errorf("the SBOMs are %s, want one", out)
	}
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	if _, err := e.run("oras", "oras", "pull", "--plain-http", "--output", into, e.ref("described@"+found.Referrers[0].Digest)); err != nil {
		return err
	}
	return same(filepath.Join(into, "sbom.spdx.json"), sbom)
}

// catalog reads what dpkg says is in an image.
func (e *errand) catalog(repository string) error {
	temporary := file.NewTempDirGenerator("e2e")
	defer func() { _ = temporary.Cleanup() }() // Nothing depends on it.
	img, err := oci.NewRegistryProvider(temporary, stereoscope.RegistryOptions{InsecureUseHTTP: true}, e.ref(repository+":1"), nil).Provide(e.context())
	if err != nil {
		return err
	}
	defer func() { _ = img.Cleanup() }()
	if len(img.Metadata.RepoDigests) != 1 || !strings.HasSuffix(img.Metadata.RepoDigests[0], "@"+e.digest(repository)) {
		return fmt.Errorf("the image is %v, want %s", img.Metadata.RepoDigests, e.digest(repository))
	}
	database, err := img.OpenPathFromSquash("/var/lib/dpkg/status")
	if err != nil {
		return err
	}
	defer database.Close()
	got, err := io.ReadAll(database)
	if err == nil && string(got) != installed {
		err = fmt.Errorf("what is installed is %q, want %q", got, installed)
	}
	return err
}
