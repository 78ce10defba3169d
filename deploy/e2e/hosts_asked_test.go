package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	remotes "github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/pelletier/go-toml/v2"
	wharfie "github.com/rancher/wharfie/pkg/registries"
	dockerimage "go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/types"
)

// What a runtime makes of its files is asked of the library that it reads them
// with: the library resolves an image, and the network sees whom it asks. That
// takes a process of its own, because which proxy counts and whom the system
// trusts is read once in a process.

// reading is what such a process is told.
type reading struct {
	Library string // containerd, buildkit, wharfie or containers
	Path    string // the file or the folder that it reads
	Images  []string
}

const readingVariable = "ENTREPOT_E2E_QUESTION"

// answerReading has a library resolve images where this process was started for
// that. What it prints is one line for each image: why it was not found.
func answerReading() (answered bool, err error) {
	text := os.Getenv(readingVariable)
	if text == "" {
		return false, nil
	}
	var q reading
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		return true, err
	}
	resolve, err := q.reader()
	if err != nil {
		return true, err
	}
	for _, image := range q.Images {
		fmt.Fprintf(os.Stdout, "%s\n", oneLine(resolve(image)))
	}
	return true, nil
}

func (q reading) reader() (func(image string) error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	_ = cancel // the process ends before that
	switch q.Library {
	case "containerd":
		return resolveBy(ctx, dockerconfig.ConfigureHosts(ctx, dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(q.Path)})), nil
	case "buildkit":
		registries, err := buildkitRegistries(q.Path)
		return resolveBy(ctx, resolver.NewRegistryConfig(registries)), err
	case "wharfie":
		private, err := wharfie.GetPrivateRegistries(q.Path)
		return func(image string) error {
			ref, err := name.ParseReference(image)
			if err != nil {
				return err
			}
			_, err = private.Image(ref, remote.WithContext(ctx))
			return err
		}, err
	case "containers":
		return q.containersImage(ctx), nil
	}
	return nil, errors.New("no such library: " + q.Library)
}

// resolveBy is containerd's resolver, which BuildKit has as well.
func resolveBy(ctx context.Context, hosts remotes.RegistryHosts) func(string) error {
	r := remotes.NewResolver(remotes.ResolverOptions{Hosts: hosts})
	return func(image string) error {
		_, _, err := r.Resolve(ctx, image)
		return err
	}
}

// buildkitRegistries reads what buildkitd does of its file, by the type that it
// reads it into. The package that has the rest of buildkitd's configuration in it
// costs much more than it would show.
func buildkitRegistries(path string) (map[string]resolverconfig.RegistryConfig, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var read struct {
		Registries map[string]resolverconfig.RegistryConfig `toml:"registry"`
	}
	err = toml.Unmarshal(content, &read)
	return read.Registries, err
}

// containersImage reads what Podman, CRI-O, skopeo and buildah do, below a
// folder that stands for /etc/containers.
func (q reading) containersImage(ctx context.Context) func(string) error {
	sys := &types.SystemContext{
		SystemRegistriesConfPath:    filepath.Join(q.Path, "registries.conf"),
		SystemRegistriesConfDirPath: filepath.Join(q.Path, "registries.conf.d"),
		DockerPerHostCertDirPath:    filepath.Join(q.Path, "certs.d"),
		UserShortNameAliasConfPath:  filepath.Join(q.Path, "aliases.conf"),
		RegistriesDirPath:           filepath.Join(q.Path, "registries.d"),
		AuthFilePath:                filepath.Join(q.Path, "auth.json"),
	}
	return func(image string) error {
		ref, err := dockerimage.ParseReference("//" + image)
		if err != nil {
			return err
		}
		source, err := ref.NewImageSource(ctx, sys)
		if err != nil {
			return err
		}
		return source.Close()
	}
}
