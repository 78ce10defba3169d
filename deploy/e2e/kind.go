package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// kind is an artifact that registries hold, pushed and taken by its own client.
type kind struct {
	name   string
	client string // as the page of results calls it
	tool   string // the installed program; for a library, its module
	// push makes the artifact and pushes it straight to the upstream.
	push func(*errand) error
	// take takes it through the mirror. It fails where what arrives is not what
	// was pushed, by its bytes or by the client's own verification.
	take func(*errand) error
	// hangs says that it is found by what refers to an image, so that it must
	// not be taken for absent where that can't be known.
	hangs bool
	// named says that what came names all of it: it is found even there.
	named bool
}

// errand is a client on its way: to a registry, with what it carries.
type errand struct {
	suite    *suite
	t        *testing.T
	dir      string            // of the client, from the push to the last take
	registry string            // what the repository's name follows in a reference
	host     string            // of the registry or the mirror
	env      []string          // of the programs
	mirror   *mirror           // while it takes, for clients that entrepot configures
	pushed   map[string]string // digests, by repository and tag
	notes    map[string]string // what push leaves for take
}

// at is the errand to another registry.
func (e *errand) at(host, registry string) *errand {
	next := *e
	next.host, next.registry = host, registry
	return &next
}

// ref is a reference to something in the errand's registry.
func (e *errand) ref(rest string) string { return e.registry + "/" + rest }

// run runs an installed program in the client's folder, and returns its
// standard output.
func (e *errand) run(tool, program string, args ...string) (string, error) {
	path := e.suite.tool(e.t, tool).program(program)
	stdout, stderr, err := try(e.context(), e.dir, e.env, path, args...)
	if err != nil {
		return stdout, fmt.Errorf("%s %q: %w\n%s%s", program, args, err, stdout, stderr)
	}
	return stdout, nil
}

// write writes a file of the client's own, and returns its path.
func (e *errand) write(name, content string) (string, error) {
	path := filepath.Join(e.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// empty returns a folder of the errand's with nothing in it.
func (e *errand) empty(name string) (string, error) {
	path := filepath.Join(e.dir, name)
	return path, errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o755))
}

// same fails where a file does not have the wanted content.
func same(path, want string) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, []byte(want)) {
		return fmt.Errorf("%s has %d bytes that differ from the %d that were pushed", path, len(got), len(want))
	}
	return nil
}

// pushImage pushes a small image that says text, and returns its digest.
func (e *errand) pushImage(repository, tag, text string) (string, error) {
	layer := static.NewLayer([]byte(text), types.MediaType("application/vnd.oci.image.layer.v1.tar"))
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return "", err
	}
	return e.pushAs(repository, tag, img)
}

func (e *errand) pushAs(repository, tag string, img v1.Image) (string, error) {
	ref, err := name.ParseReference(e.ref(repository+":"+tag), name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remote.WithContext(e.context())); err != nil {
		return "", err
	}
	digest, err := img.Digest()
	e.pushed[repository+":"+tag] = digest.String()
	return digest.String(), err
}

// digest is that of the image which was pushed to a repository with the tag 1.
func (e *errand) digest(repository string) string { return e.pushed[repository+":1"] }

func (e *errand) context() context.Context { return e.t.Context() }
