package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// What Podman, CRI-O, skopeo and buildah make of the files is asked of the
// library that all of them read these with.
func TestRegistriesConfMeansWhatItShould(t *testing.T) {
	const mirrored = "mirror.lan:5000/"
	for _, c := range []struct {
		name  string
		files map[string]string // below /etc/containers
		from  map[string][]string
		block []string
	}{
		{
			name: "with nothing there",
			from: map[string][]string{
				"docker.io/library/a:1":         {mirrored + "docker.io/library/a:1", "docker.io/library/a:1"},
				"alias.lan/a:1":                 {mirrored + "ghcr.io/a:1", "ghcr.io/a:1"},
				"corp.lan:5443/a@" + someDigest: {mirrored + "corp.lan_5443/a@" + someDigest, "corp.lan:5443/a@" + someDigest},
				"other.lan/a:1":                 {},
			},
		},
		{
			name: "with entries of theirs",
			files: map[string]string{
				"registries.conf":           "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"ghcr.io\"\nblocked = true\n",
				"registries.conf.d/zz.conf": "[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.office.lan\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"a.lan/hub\"\ninsecure = true\n",
				"registries.conf.d/aa.conf": "[[registry]]\nprefix = \"*.lan\"\n[[registry.mirror]]\nlocation = \"all.lan\"\n",
			},
			from: map[string][]string{
				"docker.io/library/a:1":             {"hub.office.lan/library/a:1"},
				"docker.io/library/a@" + someDigest: {mirrored + "docker.io/library/a@" + someDigest, "a.lan/hub/library/a@" + someDigest, "hub.office.lan/library/a@" + someDigest},
				"corp.lan:5443/a:1":                 {mirrored + "corp.lan_5443/a:1", "all.lan:5443/a:1", "corp.lan:5443/a:1"},
				"other.lan/a:1":                     {"all.lan/a:1", "other.lan/a:1"},
			},
			block: []string{"ghcr.io/a:1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := filepath.Join(t.TempDir(), "containers")
			for name, content := range c.files {
				writeFile(t, filepath.Join(etc, name), content)
			}
			if c.files["registries.conf"] == "" {
				writeFile(t, filepath.Join(etc, "registries.conf"), "")
			}
			drops := filepath.Join(etc, "registries.conf.d")
			hostsWritten(t, "podman", drops)
			sys := &types.SystemContext{SystemRegistriesConfPath: filepath.Join(etc, "registries.conf"), SystemRegistriesConfDirPath: drops}
			for _, image := range slices.Concat(slices.Collect(maps.Keys(c.from)), c.block) {
				ref, err := reference.ParseNormalizedNamed(image)
				if err != nil {
					t.Fatal(err)
				}
				registry, err := sysregistriesv2.FindRegistry(sys, ref.Name())
				if err != nil {
					t.Fatal(err)
				}
				if registry == nil {
					if len(c.from[image]) > 0 {
						t.Errorf("%s has no entry", image)
					}
					continue
				}
				// Of a blocked one a mirror would be asked all the same.
				if want := slices.Contains(c.block, image); registry.Blocked != want || want && len(registry.Mirrors) > 0 {
					t.Errorf("%s: blocked is %v, with mirrors %v", image, registry.Blocked, registry.Mirrors)
				}
				sources, err := registry.PullSourcesFromReference(ref)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, source := range sources {
					got = append(got, source.Reference.String())
					if plain := source.Endpoint.Location == "a.lan/hub"; source.Endpoint.Insecure != (plain || source.Reference.String()[:8] == mirrored[:8]) {
						t.Errorf("%s: insecure is %v", source.Reference, source.Endpoint.Insecure)
					}
				}
				if want := c.from[image]; want != nil && !slices.Equal(got, want) {
					t.Errorf("%s is asked of %q, want %q", image, got, want)
				}
			}
		})
	}
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
