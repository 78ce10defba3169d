// Package bundle is the format of one file that carries images across a gap: an
// OCI image layout in a plain tar that other tools read as it is, with one JSON
// file of ours that says what else is known of the images.
//
// It writes ([Writer]), reads ([Reader]) and checks ([Verify]) such files. It
// knows no cache and asks nobody. What it reads may have been made by anybody.
//
// What it promises, each with the test that guards it:
//
//   - The same contents make the same bytes (TestTheBytesOfASmallBundle).
//   - A file is written and read in one pass, and neither takes memory that
//     grows with its blobs (TestReadingTakesNoMemoryForBlobs).
//   - What is returned from a file was proven, or is an error
//     (TestWhatIsWrongWithAFileIsSaid, FuzzVerify).
package bundle

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = digest.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrNotBundle says that a file is of another kind.
	ErrNotBundle = errors.New("not a bundle")
	// ErrDamaged says that a file is not as it was written.
	ErrDamaged = errors.New("the bundle is damaged")
	// ErrTruncated says, together with ErrDamaged, that the end of a file is
	// missing.
	ErrTruncated = errors.New("its end is missing")
	// ErrHostile says that a file has something in it that no such file has, and
	// that would do harm elsewhere.
	ErrHostile = errors.New("no tool writes such a bundle")
	// ErrNewer says that a file has a later version of the format.
	ErrNewer = errors.New("the bundle was made by a later version")
)

// FormatVersion is the version of the format that this package writes. It reads
// those up to this one.
const FormatVersion = 1

// Contents are what the JSON file of ours says.
type Contents struct {
	FormatVersion int       `json:"formatVersion"`
	Created       time.Time `json:"created"`
	// Asked is what was asked for, as it was written.
	Asked  []string `json:"asked,omitempty"`
	Images []Image  `json:"images"`
	// Referrers are the answers about the manifests of the images.
	Referrers []Answer `json:"referrers,omitempty"`
	// Content is what the file has, in the order in which it has it: manifests
	// first.
	Content []Content `json:"content"`
	// Assumed is what the images need and the file does not have, because it is
	// on the other side already.
	Assumed []Content `json:"assumed,omitempty"`
}

// Image is an image, a chart or another artifact that was asked for by name.
type Image struct {
	Upstream   string     `json:"upstream"`   // as in docker.io
	Repository string     `json:"repository"` // as in library/alpine
	Tag        string     `json:"tag,omitempty"`
	Manifest   Descriptor `json:"manifest"`
	// TagAt is when the upstream said that the tag points at it.
	TagAt time.Time `json:"tagAt,omitzero"`
	// Artifact is the artifact type of what is no container image.
	Artifact string `json:"artifact,omitempty"`
	// Platforms are those that were asked for; none means all. Of the others the
	// manifests are there. LeftOut are these: their config and layers are
	// missing on purpose, and what refers to them.
	Platforms []string `json:"platforms,omitempty"`
	LeftOut   []Digest `json:"leftOut,omitempty"`
	// Referrers says whether what refers to it was asked for.
	Referrers bool `json:"referrers,omitempty"`
}

// Answer is what is known of the referrers of a manifest.
type Answer struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Subject    Digest `json:"subject"`
	// Complete says that there are no others. If it is not set, there may be.
	Complete  bool         `json:"complete"`
	At        time.Time    `json:"at,omitzero"` // when the upstream said so
	Manifests []Descriptor `json:"manifests,omitempty"`
}

// Content is a manifest or a blob. Only manifests have a media type.
type Content struct {
	MediaType string `json:"mediaType,omitempty"`
	Digest    Digest `json:"digest"`
	Size      int64  `json:"size"` // in bytes
	// Private means that it was fetched with credentials: it is for the
	// repositories that are named here, and for no others.
	Private bool `json:"private,omitempty"`
}

// Repo is the repository as clients write it: docker.io/library/alpine.
func (i Image) Repo() string { return i.Upstream + "/" + i.Repository }

// Name is how clients name it: docker.io/library/alpine:3.20, or with its digest
// if it has no tag.
func (i Image) Name() string {
	switch {
	case i.Upstream == "": // in a layout of another tool
		return cmp.Or(i.Tag, i.Manifest.Digest.String())
	case i.Tag == "":
		return i.Repo() + "@" + i.Manifest.Digest.String()
	}
	return i.Repo() + ":" + i.Tag
}

// Bytes is the size of all content in bytes.
func (c Contents) Bytes() (n int64) {
	for _, content := range c.Content {
		n += content.Size
	}
	return n
}

// The names that contents may have: those of the distribution-spec.
var (
	upstreamName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$`)
	repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

const maxRepository = 255 // bytes of a repository's name

// decodeContents reads the JSON file of ours.
func decodeContents(raw []byte) (*Contents, error) {
	var version struct {
		FormatVersion int `json:"formatVersion"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", contentsName, ErrDamaged, err)
	}
	if version.FormatVersion > FormatVersion {
		return nil, fmt.Errorf("%s: %w: format %d, and this one knows %d", contentsName, ErrNewer, version.FormatVersion, FormatVersion)
	}
	var c Contents
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", contentsName, ErrDamaged, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", contentsName, ErrDamaged, err)
	}
	return &c, nil
}

// check checks all that others rely on: that names can be names, and digests
// digests.
func (c *Contents) check() error {
	if c.FormatVersion < 1 {
		return errors.New("it has no format version")
	}
	for _, i := range c.Images {
		if err := checkRepository(i.Upstream, i.Repository); err != nil {
			return err
		}
		if i.Tag != "" && !tagName.MatchString(i.Tag) {
			return fmt.Errorf("%q is no tag", i.Tag)
		}
		if err := checkDescriptor(i.Manifest); err != nil {
			return err
		}
		for _, d := range i.LeftOut {
			if err := checkDigest(d); err != nil {
				return err
			}
		}
	}
	for _, a := range c.Referrers {
		if err := errors.Join(checkRepository(a.Upstream, a.Repository), checkDigest(a.Subject)); err != nil {
			return err
		}
		for _, d := range a.Manifests {
			if err := checkDescriptor(d); err != nil {
				return err
			}
		}
	}
	return errors.Join(checkContent(c.Content), checkContent(c.Assumed))
}

func checkContent(all []Content) error {
	seen := make(map[Digest]bool, len(all))
	var total int64
	for _, content := range all {
		if err := checkDescriptor(Descriptor{Digest: content.Digest, Size: content.Size}); err != nil {
			return err
		}
		if seen[content.Digest] {
			return fmt.Errorf("%s is listed twice", content.Digest)
		}
		seen[content.Digest] = true
		if total += content.Size; total < 0 {
			return errors.New("the sizes have no sum")
		}
	}
	return nil
}

func checkDescriptor(d Descriptor) error {
	if d.Size < 0 {
		return fmt.Errorf("%s has a size of %d bytes", d.Digest, d.Size)
	}
	return checkDigest(d.Digest)
}

// checkDigest checks that content can be proven by a digest.
func checkDigest(d Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%q is no digest: %w", d, err)
	}
	return nil
}

func checkRepository(upstream, repository string) error {
	if !upstreamName.MatchString(upstream) {
		return fmt.Errorf("%q is no name of an upstream", upstream)
	}
	if len(repository) > maxRepository || !repositoryName.MatchString(repository) {
		return fmt.Errorf("%q is no name of a repository", repository)
	}
	return nil
}
