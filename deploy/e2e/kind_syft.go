package e2e

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var syftKinds = []kind{
	{name: "images' SBOMs", client: "Syft and oras", tool: "syft", push: attachSBOM, take: makeSBOM, hangs: true},
}

// installed is what dpkg says is in the image.
const installed = `Package: entrepot-e2e
Status: install ok installed
Maintainer: Nobody <nobody@example.org>
Architecture: amd64
Version: 2:1.2.3-4
Description: a package that is nowhere else
`

// syft reads an image, and writes its SBOM in a format.
func (e *errand) syft(format string) (string, error) {
	here := *e
	here.env = append(e.env[:len(e.env):len(e.env)], "SYFT_REGISTRY_INSECURE_USE_HTTP=true", "SYFT_CHECK_FOR_APP_UPDATE=false")
	return here.run("syft", "syft", "registry:"+e.ref("described:1"), "--output", format)
}

// attachSBOM attaches an image's SBOM to it.
func attachSBOM(e *errand) error {
	database := layer(e.t, func(w *tar.Writer) error {
		for file, content := range map[string]string{
			"etc/os-release":      "ID=debian\nVERSION_ID=12\n",
			"var/lib/dpkg/status": installed,
		} {
			if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(content)), ModTime: built}); err != nil {
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
	if e.notes["sbom"], err = e.syft("spdx-json"); err != nil {
		return err
	}
	if _, err := e.write("sbom.spdx.json", e.notes["sbom"]); err != nil {
		return err
	}
	_, err = e.run("oras", "oras", "attach", "--plain-http", "--artifact-type", "application/spdx+json", e.ref("described:1"), "sbom.spdx.json:application/spdx+json")
	return err
}

// makeSBOM finds the package in the image, and then the SBOM that is attached.
func makeSBOM(e *errand) error {
	out, err := e.syft("syft-json")
	if err != nil {
		return err
	}
	var made struct {
		Artifacts []struct{ Name, Version, Type string }
		Source    struct {
			Metadata struct{ ManifestDigest string }
		}
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return fmt.Errorf("syft says %q: %w", out, err)
	}
	if len(made.Artifacts) != 1 || made.Artifacts[0].Name != "entrepot-e2e" || made.Artifacts[0].Version != "2:1.2.3-4" || made.Artifacts[0].Type != "deb" {
		return fmt.Errorf("the packages in the image are %+v, want\n%s", made.Artifacts, installed)
	}
	if made.Source.Metadata.ManifestDigest != e.digest("described") {
		return fmt.Errorf("the image is %s, want %s", made.Source.Metadata.ManifestDigest, e.digest("described"))
	}
	out, err = e.run("oras", "oras", "discover", "--plain-http", "--format", "json", "--artifact-type", "application/spdx+json", e.ref("described:1"))
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
	return same(filepath.Join(into, "sbom.spdx.json"), e.notes["sbom"])
}
