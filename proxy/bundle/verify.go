package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
)

const (
	// maxManifest is the size in bytes of the largest manifest that is read.
	maxManifest = 8 << 20
	// maxNames is how many names of all manifests together are remembered.
	maxNames = 4 << 20
	// maxMissing is how many missing parts of an image are reported.
	maxMissing = 20
)

// Report is what a file holds.
type Report struct {
	Contents *Contents `json:"contents,omitempty"` // nil for a layout of another tool
	Images   []Verdict `json:"images"`
	Blobs    int       `json:"blobs"` // manifests included
	Bytes    int64     `json:"bytes"` // of these
	// NotThere is what the file assumes to be on the other side, and is not.
	NotThere []Digest `json:"notThere,omitempty"`
}

// Verdict is what was found out about an image.
type Verdict struct {
	Name   string `json:"name"`
	Digest Digest `json:"digest"`
	// Manifests and Blobs are how many of them the image has, and Bytes their
	// size, each once; Assumed is how many of these are not in the file.
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Assumed   int   `json:"assumed"`
	// LeftOut is how many manifests are there without what they name.
	LeftOut   int `json:"leftOut"`
	Referrers int `json:"referrers"`
	// Missing is why it is not whole; the first reasons of many.
	Missing []string `json:"missing,omitempty"`
}

// Whole says whether all images are.
func (r Report) Whole() bool {
	for _, v := range r.Images {
		if len(v.Missing) > 0 {
			return false
		}
	}
	return len(r.NotThere) == 0
}

// NamesOf returns what the bytes of a manifest name. The media type that they give
// counts first, and then the one of whoever names the manifest. It is an error if
// others could read something else.
func NamesOf(mediaType string, content []byte) (names Names, err error) {
	doc := referrers.Parse(content)
	var own string
	if json.Unmarshal(doc.Member("mediaType"), &own) != nil {
		own = ""
	}
	for _, as := range []string{own, mediaType} {
		if err := referrers.CheckReading(as, doc); err != nil {
			return Names{}, err
		}
		names.Manifests, names.Blobs, _, err = referrers.Names(as, doc)
		if err != nil || len(names.Manifests)+len(names.Blobs) > 0 {
			return names, err
		}
	}
	return names, nil
}

// Verify reads a file to its end, and proves every byte of its content. It
// returns ErrNotBundle, ErrDamaged, ErrHostile or ErrNewer for a file that is
// none. Whether each image is whole is in the report: has says what is on the
// other side; nil means that what the file assumes to be there is.
func Verify(r io.Reader, has func(Digest) bool) (Report, error) {
	in := NewReader(r)
	c, err := in.Contents()
	if err != nil {
		return Report{}, err
	}
	v := verification{sizes: make(map[Digest]int64), names: make(map[Digest]Names)}
	if c != nil {
		v.types = make(map[Digest]string, len(c.Content))
		for _, content := range c.Content {
			v.types[content.Digest] = content.MediaType
		}
	}
	for {
		b, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = v.read(b)
		}
		if err != nil {
			return Report{}, err
		}
	}
	report := Report{Contents: in.contents, Blobs: len(v.sizes)}
	for _, size := range v.sizes {
		report.Bytes += size
	}
	if c = in.contents; c == nil {
		c = contentsOf(in.Index())
	} else if !reflect.DeepEqual(in.Index().Manifests, indexOf(c).Manifests) {
		return Report{}, fmt.Errorf("%w: %s and %s name different images", ErrDamaged, indexName, contentsName)
	}
	v.judge(&report, c, has)
	return report, nil
}

// verification is what is remembered of a file that is verified.
type verification struct {
	types   map[Digest]string // of its manifests, as it says; nil for other layouts
	sizes   map[Digest]int64
	names   map[Digest]Names
	named   int
	assumed map[Digest]bool
	has     func(Digest) bool
}

// read proves a blob, and remembers what a manifest names. A layout of another
// tool does not say which blobs are manifests before they come.
func (v *verification) read(b *Blob) error {
	mediaType := v.types[b.Digest]
	if mediaType == "" && v.types != nil || b.Size > maxManifest {
		v.sizes[b.Digest] = b.Size
		return b.Prove(io.Discard)
	}
	content := new(bytes.Buffer)
	if err := b.Prove(content); err != nil {
		return err
	}
	v.sizes[b.Digest] = b.Size
	names, err := NamesOf(mediaType, content.Bytes())
	if err != nil {
		return nil //nolint:nilerr // it may be a blob; if it is a manifest, its image is not whole
	}
	if v.named += len(names.Manifests) + len(names.Blobs); v.named > maxNames {
		return fmt.Errorf("%w: its manifests name more than %d parts", ErrHostile, maxNames)
	}
	v.names[b.Digest] = Names{Manifests: bare(names.Manifests), Blobs: bare(names.Blobs)}
	return nil
}

// bare are descriptors without what nobody needs to find content.
func bare(all []Descriptor) []Descriptor {
	out := make([]Descriptor, 0, len(all))
	for _, d := range all {
		out = append(out, Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs})
	}
	return out
}

// judge finds out which images are whole.
func (v *verification) judge(report *Report, c *Contents, has func(Digest) bool) {
	v.has, v.assumed = has, make(map[Digest]bool, len(c.Assumed))
	for _, a := range c.Assumed {
		v.assumed[a.Digest] = true
		if has != nil && !has(a.Digest) {
			report.NotThere = append(report.NotThere, a.Digest)
		}
	}
	g := c.Graph()
	report.Images = []Verdict{}
	for _, image := range c.Images {
		verdict := Verdict{Name: image.Name(), Digest: image.Manifest.Digest}
		_ = g.Walk(image, func(p Part) (Names, error) { return v.visit(&verdict, g, image, p) })
		report.Images = append(report.Images, verdict)
	}
}

func (v *verification) visit(to *Verdict, g Graph, image Image, p Part) (Names, error) {
	kind := "blob"
	if p.IsManifest {
		kind = "manifest"
		to.Manifests++
		if p.LeftOut {
			to.LeftOut++
		}
		if image.Referrers {
			answer, _ := g.Answer(image, p.Digest)
			to.Referrers += len(answer.Manifests)
		}
	} else {
		to.Blobs++
	}
	missing := func(format string, a ...any) {
		if len(to.Missing) < maxMissing {
			to.Missing = append(to.Missing, kind+" "+p.Digest.String()+" "+fmt.Sprintf(format, a...))
		}
	}
	size, here := v.sizes[p.Digest]
	switch {
	case here && p.Size >= 0 && size != p.Size:
		missing("has %d bytes and not %d", size, p.Size)
	case here:
		to.Bytes += size
	case v.assumed[p.Digest] && (v.has == nil || v.has(p.Digest)):
		to.Assumed++
		return Names{}, ErrSkip // what it names is not known here; all of that is listed too
	case v.assumed[p.Digest]:
		missing("is assumed to be on the other side, and is not")
		return Names{}, ErrSkip
	default:
		missing("is missing")
		return Names{}, ErrSkip
	}
	if !p.IsManifest {
		return Names{}, nil
	}
	names, ok := v.names[p.Digest]
	if !ok {
		missing("can't be read")
		return Names{}, ErrSkip
	}
	return names, nil
}

// contentsOf is what index.json of a layout of another tool says.
func contentsOf(index *ocispec.Index) *Contents {
	c := &Contents{}
	for _, d := range index.Manifests {
		name := d.Annotations[containerdName]
		if name == "" {
			name = d.Annotations[refName]
		}
		c.Images = append(c.Images, foreignImage(name, d))
	}
	return c
}
