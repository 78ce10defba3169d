package bundle

import (
	"encoding/json"
	"slices"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations by which other tools find the names of images.
const (
	refName        = ocispec.AnnotationRefName
	containerdName = "io.containerd.image.name"
)

// Loadable is one platform of an image, as manifest.json has it for those that
// read no index.json.
type Loadable struct {
	Config Digest
	Layers []Digest
	Names  []string // full, with their tags
}

// indexOf makes index.json. Its order matters: some readers stop at the first
// entry that they do not know, so images come first, then artifacts with names,
// then what refers to them.
func indexOf(c *Contents) ocispec.Index {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []Descriptor{}}
	named := make(map[Digest]bool, len(c.Images))
	add := func(artifacts bool) {
		for _, i := range c.Images {
			if (i.Artifact != "") != artifacts {
				continue
			}
			entry := Descriptor{MediaType: i.Manifest.MediaType, Digest: i.Manifest.Digest, Size: i.Manifest.Size, ArtifactType: i.Artifact}
			if i.Tag != "" { // a name with a digest is refused by several
				entry.Annotations = map[string]string{refName: i.Name(), containerdName: i.Name()}
			} else if named[entry.Digest] {
				continue
			}
			named[entry.Digest] = true
			index.Manifests = append(index.Manifests, entry)
		}
	}
	add(false)
	add(true)
	carried := make(map[Digest]bool, len(c.Content)+len(c.Assumed))
	for _, content := range slices.Concat(c.Content, c.Assumed) {
		carried[content.Digest] = true
	}
	for _, a := range c.Referrers {
		for _, d := range a.Manifests {
			if carried[d.Digest] && !named[d.Digest] {
				named[d.Digest] = true
				index.Manifests = append(index.Manifests, Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
			}
		}
	}
	return index
}

// dockerOf makes manifest.json.
func dockerOf(all []Loadable) ([]byte, error) {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	entries := []entry{}
	for _, l := range all {
		e := entry{Config: blobName(l.Config), RepoTags: l.Names, Layers: []string{}}
		for _, d := range l.Layers {
			e.Layers = append(e.Layers, blobName(d))
		}
		entries = append(entries, e)
	}
	return json.Marshal(entries)
}
