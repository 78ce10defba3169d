package e2e

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const ggcr = "github.com/google/go-containerregistry"

var craneKinds = []kind{
	{name: "referrers of an image", client: "go-containerregistry", tool: ggcr, push: pushReferrer, take: listReferrers, hangs: true},
}

// pushReferrer hangs a VEX document on an image.
func pushReferrer(e *errand) error {
	if _, err := e.pushImage("referred", "1", "referred"); err != nil {
		return err
	}
	subject, err := e.head("referred:1")
	if err != nil {
		return err
	}
	vex := static.NewLayer([]byte(`{"@context": "https://openvex.dev/ns/v0.2.0"}`), "application/vnd.openvex+json")
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example.vex"), vex)
	if err != nil {
		return err
	}
	img, _ = mutate.Annotations(img, map[string]string{"org.example.of": "go-containerregistry"}).(v1.Image)
	img, _ = mutate.Subject(img, *subject).(v1.Image)
	e.notes["vex"], err = e.pushAs("referred", "vex", img)
	return err
}

func (e *errand) head(rest string) (*v1.Descriptor, error) {
	ref, err := name.ParseReference(e.ref(rest), name.Insecure)
	if err != nil {
		return nil, err
	}
	return remote.Head(ref, remote.WithContext(e.context()))
}

func listReferrers(e *errand) error {
	subject, err := e.head("referred:1")
	if err != nil {
		return err
	}
	digest, err := name.NewDigest(e.ref("referred@"+subject.Digest.String()), name.Insecure)
	if err != nil {
		return err
	}
	index, err := remote.Referrers(digest, remote.WithContext(e.context()), remote.WithFilter("artifactType", "application/vnd.example.vex"))
	if err != nil {
		return err
	}
	listed, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(listed.Manifests) != 1 || listed.Manifests[0].Digest.String() != e.notes["vex"] || listed.Manifests[0].Annotations["org.example.of"] == "" {
		return fmt.Errorf("the referrers are %+v, want %s with its annotation", listed.Manifests, e.notes["vex"])
	}
	return nil
}
