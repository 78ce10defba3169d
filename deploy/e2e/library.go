package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/errs"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// library is a client library as the programs that are made of it use it.
type library struct {
	name, module string
	open         func(at place) (puller, error)
}

// libraries are those whose pulls are the yardstick.
var libraries = []library{
	{"containerd", "github.com/containerd/containerd/v2", openContainerd},
	{"go-containerregistry", "github.com/google/go-containerregistry", openGGCR},
	{"oras-go", "oras.land/oras-go/v2", openOras},
	{"regclient", "github.com/regclient/regclient", openRegclient},
	{"containers/image", "go.podman.io/image/v5", openContainersImage},
}

// place is a repository as one of the libraries is led to it.
type place struct {
	host       string // that is dialled
	upstream   string // as the mirror knows it; empty: the host is the registry itself
	repository string // as the registry knows it
	username   string // empty: nobody
	password   string
	scratch    string // a folder
}

// path is the repository below the host, for clients that know no mirrors.
func (p place) path() string {
	if p.upstream == "" {
		return p.repository
	}
	return p.upstream + "/" + p.repository
}

// puller is one run of a client.
type puller interface {
	// Head is the digest of a tag, without its content.
	Head(ctx context.Context, tag string) (digest.Digest, error)
	// Tagged is what a tag names, had as the library has it at a pull.
	Tagged(ctx context.Context, tag string) (manifestContent, error)
	Manifest(ctx context.Context, d ocispec.Descriptor) (manifestContent, error)
	// HeadBlob says whether a blob is there.
	HeadBlob(ctx context.Context, d ocispec.Descriptor) error
	Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	Tags(ctx context.Context, n int) ([]string, error) // n on a page; 0 says nothing
	Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) ([]ocispec.Descriptor, error)
	Close()
}

type manifestContent struct {
	mediaType string
	body      []byte
}

// errNoCall means that a library cannot ask for this.
var errNoCall = errors.New("the library has no such call")

// absent says whether a library took an answer for "there is no such thing".
func absent(err error) bool {
	var ggcr *transport.Error
	var oras *errcode.ErrorResponse
	switch {
	case errors.As(err, &ggcr):
		return ggcr.StatusCode == http.StatusNotFound
	case errors.As(err, &oras):
		return oras.StatusCode == http.StatusNotFound
	case errdefs.IsNotFound(err), errors.Is(err, errdef.ErrNotFound), errors.Is(err, errs.ErrNotFound):
		return true
	}
	text := strings.ToLower(err.Error()) // containers/image has errors of distribution's, and texts.
	for _, sign := range []string{"404", "manifest unknown", "name unknown", "repository name not known", "blob unknown"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

// transportOf is a new one for a client, so that no run finds the connections
// of another.
func newTransport() *http.Transport {
	return http.DefaultTransport.(*http.Transport).Clone()
}
