package metadata

import (
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = digest.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

// Repository is a repository of a configured upstream, with the name that the
// upstream uses (for docker.io, including "library/").
type Repository struct{ Upstream, Name string }

func (r Repository) String() string { return r.Upstream + "/" + r.Name }

// Reference is a tag or a digest in a repository.
type Reference struct {
	Repository Repository
	Ref        string
}

func (r Reference) String() string {
	if _, err := digest.Parse(r.Ref); err == nil {
		return r.Repository.String() + "@" + r.Ref
	}
	return r.Repository.String() + ":" + r.Ref
}

// Key joins a repository and a tag, a digest or a query to a key of the
// records. The parts cannot contain the separator: names, tags and digests have
// been checked against their grammars.
func Key(repo Repository, last string) string {
	return repo.Upstream + "\x00" + repo.Name + "\x00" + last
}

// SplitKey splits a key made by [Key].
func SplitKey(key string) (repo Repository, last string, ok bool) {
	parts := strings.SplitN(key, "\x00", 3)
	if len(parts) != 3 {
		return Repository{}, "", false
	}
	return Repository{parts[0], parts[1]}, parts[2], true
}
