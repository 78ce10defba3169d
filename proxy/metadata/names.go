package metadata

import (
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = digest.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

// Repository names a repository of a configured upstream, in the words of that
// upstream ("library/" is already there for docker.io's one-word names).
type Repository struct{ Upstream, Name string }

func (r Repository) String() string { return r.Upstream + "/" + r.Name }

// Reference names an image: by a tag, or by a digest.
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

// Key joins a repository with a tag, a digest or a query to one string, as the
// records do. No part can hold the separator: names, tags and digests are
// checked against their grammars before they come here.
func Key(repo Repository, last string) string {
	return repo.Upstream + "\x00" + repo.Name + "\x00" + last
}

// SplitKey takes apart what [Key] joined.
func SplitKey(key string) (repo Repository, last string, ok bool) {
	parts := strings.SplitN(key, "\x00", 3)
	if len(parts) != 3 {
		return Repository{}, "", false
	}
	return Repository{parts[0], parts[1]}, parts[2], true
}
