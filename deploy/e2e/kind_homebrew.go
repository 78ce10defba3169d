package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var homebrewKinds = []kind{
	{name: "Homebrew's bottles", client: "curl, as Homebrew calls it", tool: "curl", push: pushBottles, take: pourBottle},
}

// bottles are the platforms that a bottle is built for.
var bottles = map[string]v1.Platform{
	"arm64_sequoia": {OS: "darwin", Architecture: "arm64", OSVersion: "macOS 15"},
	"x86_64_linux":  {OS: "linux", Architecture: "amd64", OSVersion: "Ubuntu 22.04.5 LTS"},
}

// bottle is a gzipped tar of a keg, large enough to be interrupted in.
func (e *errand) bottle(platform string) v1.Layer {
	return layer(e.t, func(w *tar.Writer) error {
		content := noise(platform, 8<<20)
		if err := w.WriteHeader(&tar.Header{Name: "tool/1.0/bin/tool", Mode: 0o755, Size: int64(len(content)), ModTime: built}); err != nil {
			return err
		}
		_, err := io.WriteString(w, content)
		return err
	})
}

// noise is n bytes that compression makes no fewer, others for another seed.
func noise(seed string, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(b) // It never fails.
	return string(b)
}

// pushBottles pushes what "brew bottle" makes for two platforms.
func pushBottles(e *errand) error {
	repository, err := name.NewRepository(e.ref("homebrew/core/tool"), name.Insecure)
	if err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for platform, of := range bottles {
		layer := e.bottle(platform)
		bottle, err := partial.Descriptor(layer)
		if err != nil {
			return err
		}
		img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
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
		listed.Platform = &of
		listed.Annotations = map[string]string{
			"org.opencontainers.image.ref.name": "1.0." + platform,
			"sh.brew.bottle.digest":             bottle.Digest.Hex,
			"sh.brew.bottle.size":               strconv.FormatInt(bottle.Size, 10),
			"sh.brew.tab":                       `{"homebrew_version": "4.6.0", "arch": "` + of.Architecture + `"}`,
		}
		index.Manifests = append(index.Manifests, *listed)
	}
	written, err := json.Marshal(index)
	if err != nil {
		return err
	}
	e.notes["index"] = string(written)
	return remote.Put(repository.Tag("1.0"), ociIndex(written), remote.WithContext(e.context()))
}

// asking is what Homebrew tells curl whatever it asks for. There is no token in
// it, as where HOMEBREW_ARTIFACT_DOMAIN is set.
var asking = []string{"--disable", "--cookie", "/dev/null", "--globoff", "--fail", "--location", "--silent", "--show-error"}

func (e *errand) curl(rest string, args ...string) (string, error) {
	return e.run("curl", "curl", slices.Concat(asking, args, []string{e.url(rest)})...)
}

// url is where the registry's API has something.
func (e *errand) url(rest string) string {
	return "http://" + e.host + "/v2" + strings.TrimPrefix(e.registry, e.host) + "/" + rest
}

// pourBottle finds a platform's bottle in the index, is interrupted while it
// downloads it, and resumes.
func pourBottle(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	index, incomplete := filepath.Join(into, "index.json"), filepath.Join(into, "bottle.incomplete")
	if _, err := e.curl("homebrew/core/tool/manifests/1.0", "--header", "Accept: application/vnd.oci.image.index.v1+json", "--output", index); err != nil {
		return err
	}
	if err := same(index, e.notes["index"]); err != nil {
		return err
	}
	digest, size, err := bottleIn(index, "1.0.x86_64_linux")
	if err != nil {
		return err
	}
	blob := "homebrew/core/tool/blobs/sha256:" + digest
	if err := e.interrupted(blob, incomplete); err != nil {
		return err
	}
	headers, err := e.curl(blob, "--head")
	if err != nil {
		return err
	}
	// Homebrew begins anew where it is not told that it can go on.
	for _, wanted := range []string{"accept-ranges: bytes\r\n", "content-length: " + size + "\r\n"} {
		if !strings.Contains(strings.ToLower(headers), wanted) {
			return fmt.Errorf("the bottle's headers lack %q:\n%s", wanted, headers)
		}
	}
	status, err := e.curl(blob, "--continue-at", "-", "--remote-time", "--output", incomplete, "--write-out", "%{http_code}")
	if err != nil {
		return err
	}
	if status != "206" {
		return fmt.Errorf("the download is resumed with %s, want 206", status)
	}
	poured, err := os.ReadFile(incomplete)
	if err != nil {
		return err
	}
	if got := sha256.Sum256(poured); hex.EncodeToString(got[:]) != digest {
		return fmt.Errorf("the bottle is %x, %d bytes, want %s, %s bytes", got, len(poured), digest, size)
	}
	return nil
}

// bottleIn is a bottle's digest and size by an index.
func bottleIn(file, ref string) (digest, size string, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(content, &index); err != nil {
		return "", "", err
	}
	for _, m := range index.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == ref {
			return m.Annotations["sh.brew.bottle.digest"], m.Annotations["sh.brew.bottle.size"], nil
		}
	}
	return "", "", fmt.Errorf("%s is not in the index %s", ref, content)
}

// interrupted kills curl as soon as the beginning of a download is in a file.
func (e *errand) interrupted(rest, into string) error {
	file, err := os.Create(into)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.CommandContext(e.context(), e.suite.tool(e.t, "curl").program("curl"), append(slices.Clone(asking), e.url(rest))...)
	cmd.Env = e.env
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = io.CopyN(file, stdout, 100_000)
	err = errors.Join(err, cmd.Process.Kill())
	if problem := cmd.Wait(); problem == nil {
		err = errors.Join(err, errors.New("the download is whole before it can be interrupted"))
	}
	return err
}
