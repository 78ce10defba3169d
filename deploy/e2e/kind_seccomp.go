package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
)

const orasGo = "oras.land/oras-go/v2"

// The operator's own code is internal to it: what it asks oras-go for is asked
// for here in its order.
var seccompKinds = []kind{
	{name: "seccomp profiles, one a platform", client: "oras-go, as the Security Profiles Operator calls it", tool: orasGo, push: perPlatform.push, take: perPlatform.take},
	{name: "seccomp profiles, as runtimes read them", client: "oras-go, as the Security Profiles Operator calls it", tool: orasGo, push: forRuntimes.push, take: forRuntimes.take},
}

// profiles is an artifact of the operator's.
type profiles struct {
	repository string
	configType string            // of a config that is "{}"; empty: oras-go makes one
	layerType  string            // empty: as oras-go has it
	layers     map[string]string // contents by title
	platforms  map[string]string // of the titles, by architecture
	wanted     string            // title of the profile that this platform takes
}

var (
	perPlatform = profiles{
		repository: "profiles/nginx",
		layers: map[string]string{
			"profile-linux-amd64.yaml": "kind: SeccompProfile\nspec: {architectures: [SCMP_ARCH_X86_64]}\n" + strings.Repeat("# a line\n", 9000),
			"profile-linux-arm64.yaml": "kind: SeccompProfile\nspec: {architectures: [SCMP_ARCH_AARCH64]}\n",
		},
		platforms: map[string]string{"profile-linux-amd64.yaml": "amd64", "profile-linux-arm64.yaml": "arm64"},
		wanted:    "profile-linux-amd64.yaml",
	}
	forRuntimes = profiles{
		repository: "profiles/runtime",
		configType: "application/vnd.cncf.seccomp-profile.config.v1+json",
		layerType:  "application/json",
		layers:     map[string]string{"profile.json": `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]}`},
		wanted:     "profile.json",
	}
)

// orasRepository is a repository as tools that are made with oras-go see it.
func (e *errand) orasRepository(name string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(e.ref(name))
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP = true
	return repo, nil
}

// push packs the profiles in a folder's store, tags them there, and copies the
// tag to the repository.
func (p profiles) push(e *errand) error {
	store, err := file.New(e.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	packed, err := p.pack(e, store)
	if err != nil {
		return err
	}
	if err := store.Tag(e.context(), packed, "1"); err != nil {
		return err
	}
	repo, err := e.orasRepository(p.repository)
	if err != nil {
		return err
	}
	e.notes["digest"] = packed.Digest.String()
	_, err = oras.Copy(e.context(), store, "1", repo, "1", oras.DefaultCopyOptions)
	return err
}

func (p profiles) pack(e *errand, store *file.Store) (ocispec.Descriptor, error) {
	options := oras.PackManifestOptions{ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "1970-01-01T00:00:00Z"}}
	for title, profile := range p.layers {
		path, err := e.write(filepath.Join("profiles", title), profile)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layer, err := store.Add(e.context(), title, p.layerType, path)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if architecture := p.platforms[title]; architecture != "" {
			layer.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
		}
		options.Layers = append(options.Layers, layer)
	}
	artifactType := oras.MediaTypeUnknownConfig
	if p.configType != "" {
		artifactType = p.configType
		config := ocispec.Descriptor{MediaType: p.configType, Digest: digest.FromString("{}"), Size: 2}
		if err := store.Push(e.context(), config, bytes.NewReader([]byte("{}"))); err != nil {
			return ocispec.Descriptor{}, err
		}
		options.ConfigDescriptor = &config
	}
	return oras.PackManifest(e.context(), store, oras.PackManifestVersion1_1, artifactType, options)
}

// take resolves the tag, and copies by digest the manifest and the one layer
// that is this platform's.
func (p profiles) take(e *errand) error {
	repo, err := e.orasRepository(p.repository)
	if err != nil {
		return err
	}
	subject, err := repo.Resolve(e.context(), "1")
	if err != nil {
		return err
	}
	if subject.Digest.String() != e.notes["digest"] {
		return fmt.Errorf("the tag is resolved to %s, want %s", subject.Digest, e.notes["digest"])
	}
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	store, err := file.New(into)
	if err != nil {
		return err
	}
	defer store.Close()
	options := oras.DefaultCopyOptions
	options.FindSuccessors = p.layer
	if _, err := oras.Copy(e.context(), repo, subject.Digest.String(), store, subject.Digest.String(), options); err != nil {
		return err
	}
	taken, err := os.ReadDir(into)
	if len(taken) != 1 {
		err = errors.Join(err, fmt.Errorf("what is taken is %v, want %s alone", taken, p.wanted))
	}
	return errors.Join(err, same(filepath.Join(into, p.wanted), p.layers[p.wanted]))
}

// layer leads a copy from the manifest to the wanted layer alone.
func (p profiles) layer(ctx context.Context, from content.Fetcher, of ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if of.MediaType != ocispec.MediaTypeImageManifest {
		return nil, nil
	}
	raw, err := content.FetchAll(ctx, from, of)
	if err != nil {
		return nil, err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return nil, err
	}
	for _, layer := range manifest.Layers {
		if layer.Annotations[ocispec.AnnotationTitle] == p.wanted {
			return []ocispec.Descriptor{layer}, nil
		}
	}
	return nil, fmt.Errorf("%s is not in %s", p.wanted, raw)
}
