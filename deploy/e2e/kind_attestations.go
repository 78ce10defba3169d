package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// attestations are what BuildKit puts beside an image in its index.
type attestations struct {
	output string // what the build's output is told besides
	// refer says that each names its image as its subject. No fallback tag is
	// written: an upstream without the API has nothing but the index.
	refer bool
}

var (
	subjects   = attestations{refer: true}
	noSubjects = attestations{output: ",oci-artifact=false"}
)

var attestationKinds = []kind{
	{name: "provenance and SBOMs, as BuildKit writes them", client: "BuildKit, read by regctl and crane", tool: "buildkit", push: subjects.push, take: subjects.take, hangs: true, named: true},
	{name: "provenance and SBOMs, as BuildKit before 0.32 wrote them", client: "BuildKit, read by regctl and crane", tool: "buildkit", push: noSubjects.push, take: noSubjects.take},
	{name: "images with provenance and SBOMs, pulled with what refers to that", client: "Docker, the newest", tool: "moby", push: subjects.push, take: pullAttested},
}

const attestationType = "application/vnd.docker.attestation.manifest.v1+json"

// scan is a scanner for BuildKit: it lists the files of what was built.
const scan = `cd "$BUILDKIT_SCAN_SOURCE" && {
	echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {"spdxVersion": "SPDX-2.3", "files": ['
	/bin/busybox find . -type f | /bin/busybox sed 's/.*/{"fileName": "&"},/'
	echo '{"fileName": "./"}]}}'
} > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"`

// pushScanner pushes an image that runs scan.
func (e *errand) pushScanner() error {
	busybox := filepath.Join(e.suite.tool(e.t, "rootfs-amd64").folder, "busybox-static")
	files := layer(e.t, func(w *tar.Writer) error { return writeFolder(w, busybox) })
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), files)
	if err != nil {
		return err
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: configFile(e.t, img).RootFS,
		Config: v1.Config{Cmd: []string{"/bin/busybox", "sh", "-euc", scan}},
	})
	if err != nil {
		return err
	}
	_, err = e.pushAs("attested/scanner", "1", img)
	return err
}

// push has BuildKit build an image for two platforms, and push it with what it
// attests of each.
func (a attestations) push(e *errand) error {
	if err := e.pushScanner(); err != nil {
		return err
	}
	context, metadata := filepath.Join(e.dir, "context"), filepath.Join(e.dir, "metadata.json")
	for file, content := range map[string]string{"Dockerfile": "FROM scratch\nCOPY note /note\n", "note": "attested"} {
		if _, err := e.write(filepath.Join("context", file), content); err != nil {
			return err
		}
	}
	passed := e.t.Run("buildkit", func(t *testing.T) {
		b := e.suite.startBuildKit(t, os.DevNull)
		b.build(t, context, "--opt", "platform=linux/amd64,linux/arm64", "--metadata-file", metadata,
			"--opt", "attest:provenance=mode=max", "--opt", "attest:sbom=generator="+e.ref("attested/scanner:1"),
			"--output", "type=image,push=true,name="+e.ref("attested/app:1")+a.output)
	})
	if !passed {
		return errors.New("BuildKit does not build")
	}
	content, err := os.ReadFile(metadata)
	if err != nil {
		return err
	}
	var built struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(content, &built); err != nil || built.Digest == "" {
		return fmt.Errorf("BuildKit says %s: %w", content, err)
	}
	e.pushed["attested/app:1"] = built.Digest
	return nil
}

// take reads with two clients all that the index names, and finds what BuildKit
// attests by the image that it is of.
func (a attestations) take(e *errand) error {
	for client, read := range map[string]reader{
		"crane": {
			manifest: func(ref string) (string, error) { return e.run("crane", "crane", "manifest", ref) },
			blob: func(repository, digest string) (string, error) {
				return e.run("crane", "crane", "blob", repository+"@"+digest)
			},
		},
		"regctl": {
			manifest: func(ref string) (string, error) { return e.regctl("manifest", "get", "--format", "raw-body", ref) },
			blob:     func(repository, digest string) (string, error) { return e.regctl("blob", "get", repository, digest) },
		},
	} {
		attested, err := read.attested(e.ref("attested/app"), e.digest("attested/app"))
		if err != nil {
			return fmt.Errorf("%s: %w", client, err)
		}
		if len(attested) != 2 {
			return fmt.Errorf("%s: attestations are of %v, want of two images", client, attested)
		}
		if !a.refer {
			continue
		}
		for image, attestation := range attested {
			if err := e.refers(image, attestation); err != nil {
				return err
			}
		}
	}
	return nil
}

// pullAttested has Docker pull the image. It then asks the mirror what refers to
// the attestation of this platform: its pull fails where it is not told (F21).
func pullAttested(e *errand) error {
	asked := func() int { return strings.Count(tail(e.mirror.process.log, 1<<20), "kind=referrers") }
	before := asked()
	passed := e.t.Run("moby", func(t *testing.T) {
		d := e.suite.startMoby(t, e.mirror).(*moby)
		img := image{registry: "registry.example", repository: "attested/app", tag: "1", digest: e.digest("attested/app")}
		d.pull(t, img)
		checkBlobs(t, d.blobs(), []string{img.digest})
	})
	if !passed {
		return errors.New("docker does not pull what is attested")
	}
	if asked() == before {
		return errors.New("docker does not ask what refers to the attestation")
	}
	return nil
}

// refers fails where anything but the attestation is listed for an image.
func (e *errand) refers(image, attestation string) error {
	out, err := e.regctl("artifact", "list", "--format", "{{json .}}", e.ref("attested/app@"+image))
	if err != nil {
		return err
	}
	var listed struct {
		Descriptors []ocispec.Descriptor `json:"descriptors"`
	}
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		return err
	}
	if len(listed.Descriptors) != 1 || listed.Descriptors[0].Digest.String() != attestation || listed.Descriptors[0].ArtifactType != attestationType {
		return fmt.Errorf("the referrers of %s are %s, want %s of %s", image, out, attestation, attestationType)
	}
	return nil
}

// reader reads the bytes of a repository with a client.
type reader struct {
	manifest func(ref string) (string, error)
	blob     func(repository, digest string) (string, error)
}

// attested reads everything that an index leads to, holds each against its
// digest, and returns the attestations by the images that they are of.
func (r reader) attested(repository, index string) (map[string]string, error) {
	raw, err := r.manifest(repository + ":1")
	if err != nil {
		return nil, err
	}
	var listed ocispec.Index
	if err := proven(raw, index, &listed); err != nil {
		return nil, err
	}
	attested := map[string]string{}
	for _, entry := range listed.Manifests {
		raw, err := r.manifest(repository + "@" + entry.Digest.String())
		if err != nil {
			return nil, err
		}
		var manifest ocispec.Manifest
		if err := proven(raw, entry.Digest.String(), &manifest); err != nil {
			return nil, err
		}
		contents := map[string]string{} // by predicate
		for _, d := range append(manifest.Layers, manifest.Config) {
			content, err := r.blob(repository, d.Digest.String())
			if err != nil {
				return nil, err
			}
			if err := proven(content, d.Digest.String(), nil); err != nil {
				return nil, err
			}
			contents[d.Annotations["in-toto.io/predicate-type"]] = content
		}
		if entry.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			continue
		}
		if entry.Platform == nil || entry.Platform.OS != "unknown" || entry.Platform.Architecture != "unknown" {
			return nil, fmt.Errorf("the attestation %s is for %+v", entry.Digest, entry.Platform)
		}
		if !strings.Contains(contents["https://spdx.dev/Document"], `"./note"`) || contents["https://slsa.dev/provenance/v1"] == "" {
			return nil, fmt.Errorf("the attestation %s is of %v, want provenance and an SBOM with the image's file", entry.Digest, slices.Sorted(maps.Keys(contents)))
		}
		attested[entry.Annotations["vnd.docker.reference.digest"]] = entry.Digest.String()
	}
	return attested, nil
}

// proven fails where content has not the wanted digest, and reads it as JSON
// into something, unless that is nil.
func proven(content, wanted string, into any) error {
	if got := digest.FromString(content).String(); got != wanted {
		return fmt.Errorf("what arrives as %s has %d bytes with the digest %s", wanted, len(content), got)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal([]byte(content), into)
}
