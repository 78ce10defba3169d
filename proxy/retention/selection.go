package retention

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// A Selection is an image, and what of it is wanted.
type Selection struct {
	Image Reference
	// At is the digest that the tag in Image is to be at: of the two, it is what
	// is wanted. It is empty if any will do, or if Image is no tag.
	At Digest
	// Platforms are those that are wanted of an index; none means all of them.
	// Of each it is what a runtime of that platform would pull. Of a platform that
	// is left out the manifest is wanted, and its config and layers are not. An
	// image that is no index is wanted whatever they are.
	Platforms []ocispec.Platform
	// Referrers means that what refers to the image is wanted, to its selected
	// platforms, and to what refers to them.
	Referrers bool
}

// EverythingOf an image is all its platforms and all referrers.
func EverythingOf(image Reference) Selection { return Selection{Image: image, Referrers: true} }

// AllPlatforms is how all platforms are written.
const AllPlatforms = "all"

// ParsePlatforms parses platforms that are written as linux/arm64. All of them
// are none.
func ParsePlatforms(texts []string) ([]ocispec.Platform, error) {
	var all []ocispec.Platform
	for _, text := range texts {
		if text == AllPlatforms {
			return nil, nil
		}
		p, err := platforms.Parse(text)
		if err != nil || !strings.Contains(text, "/") { // which means those of this machine, and has no meaning here
			return nil, fmt.Errorf("%q is no platform: write it as linux/amd64, or %s", text, AllPlatforms)
		}
		all = append(all, platforms.Normalize(p))
	}
	return all, nil
}

// NoPlatformError means that an image has none of the platforms that are
// wanted of it.
type NoPlatformError struct {
	Image             Reference
	Wanted, Available []string // as they are written
}

func (e *NoPlatformError) Error() string {
	has := e.Available
	if more := len(has) - maxNamed; more > 0 {
		has = append(slices.Clone(has[:maxNamed]), fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%s has no %s: it has %s", e.Image, strings.Join(e.Wanted, ", "), strings.Join(has, ", "))
}

// maxNamed is how many platforms are named in an error. An index may list
// thousands.
const maxNamed = 16

// A chooser says which entries of one index are wanted. It sees all of them
// before it is asked about any.
type chooser struct {
	matchers []platforms.MatchComparer
	best     []*ocispec.Platform // for each of matchers, of those that it has seen
	entries  map[Digest]*ocispec.Platform
	attests  map[Digest]Digest // what entries attest, be it an entry or not
}

func newChooser(wanted []ocispec.Platform) *chooser {
	c := &chooser{best: make([]*ocispec.Platform, len(wanted)), entries: map[Digest]*ocispec.Platform{}, attests: map[Digest]Digest{}}
	for _, p := range wanted {
		c.matchers = append(c.matchers, platforms.Only(p))
	}
	return c
}

func (c *chooser) see(entry Descriptor) {
	if len(c.matchers) == 0 {
		return
	}
	if subject, ok := referrers.AttestedBy(entry); ok {
		c.attests[entry.Digest] = subject
	}
	p := platformOf(entry)
	if c.entries[entry.Digest] = p; p == nil {
		return
	}
	for i, m := range c.matchers {
		if m.Match(*p) && (c.best[i] == nil || m.Less(*p, *c.best[i])) {
			c.best[i] = p
		}
	}
}

// wants says whether an entry is wanted: it is as good as the best one for one
// of the platforms, or it is for none in particular. An attestation is wanted
// where what it attests is.
func (c *chooser) wants(entry Descriptor) bool {
	if len(c.matchers) == 0 {
		return true
	}
	of := entry.Digest
	if subject, ok := c.attested(of); ok {
		of = subject
	}
	p := c.entries[of]
	if p == nil {
		return true
	}
	for i, m := range c.matchers {
		if best := c.best[i]; best != nil && m.Match(*p) && !m.Less(*best, *p) {
			return true
		}
	}
	return false
}

// attested returns the entry that an entry attests.
func (c *chooser) attested(d Digest) (subject Digest, ok bool) {
	subject = c.attests[d]
	_, ok = c.entries[subject]
	return subject, ok
}

// hasNone says whether there are platforms, and none of them is wanted.
func (c *chooser) hasNone() bool {
	none := len(c.matchers) > 0
	for d, p := range c.entries {
		_, isAttestation := c.attested(d)
		none = none && (p != nil || isAttestation)
	}
	return none && len(c.entries) > 0 && !slices.ContainsFunc(c.best, func(p *ocispec.Platform) bool { return p != nil })
}

// available returns the platforms that there are, sorted.
func (c *chooser) available() []string {
	var all []string
	for _, p := range c.entries {
		if p != nil {
			all = append(all, platforms.FormatAll(*p))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// platformOf is the platform of an entry; nil if it is for none in particular.
// BuildKit writes unknown/unknown.
func platformOf(entry Descriptor) *ocispec.Platform {
	p := entry.Platform
	if p == nil || p.OS == "" && p.Architecture == "" || p.OS == "unknown" && p.Architecture == "unknown" {
		return nil
	}
	normal := platforms.Normalize(*p)
	return &normal
}

// FormatPlatforms writes platforms as ParsePlatforms reads them.
func FormatPlatforms(of []ocispec.Platform) (all []string) {
	for _, p := range of {
		all = append(all, platforms.FormatAll(p))
	}
	return all
}
