package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Foreign is a layout that another tool has written, in a file that can be read
// twice: its index may come last.
type Foreign struct {
	Contents Contents
	file     io.ReadSeeker
	places   map[Digest]place
}

// place is where content is in a file.
type place struct{ at, size int64 }

// ErrUnnamed says that an image of another tool's layout has no name, or only a
// part of one.
var ErrUnnamed = errors.New("an image has no full name")

// OpenForeign reads the layout of another tool. as completes names: in front of one
// that has no registry, docker.io for instance; or, if it has a repository
// (docker.io/library/alpine), as the name of those that have only a tag. Created is
// what counts as the time of the tags. Its entries without a name are left out,
// unless as names the repository and a tag, and there is no other entry.
func OpenForeign(file io.ReadSeeker, as string, created time.Time) (*Foreign, error) {
	f := &Foreign{file: file, places: make(map[Digest]place)}
	if err := f.locate(); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	in := NewReader(file)
	v := verification{sizes: make(map[Digest]int64), names: make(map[Digest]Names)}
	for {
		b, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = v.read(b)
		}
		if err != nil {
			return nil, err
		}
	}
	f.Contents = Contents{FormatVersion: FormatVersion, Created: created.UTC()}
	images, err := named(contentsOf(in.Index()).Images, as)
	if err != nil {
		return nil, err
	}
	f.Contents.Images = images
	return f, f.collect(&v)
}

// locate finds where content is.
func (f *Foreign) locate() error {
	for in := tar.NewReader(f.file); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotBundle, err)
		}
		rest, isBlob := strings.CutPrefix(strings.TrimPrefix(h.Name, "./"), blobsName)
		if !isBlob || h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := f.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		algorithm, hex, _ := strings.Cut(rest, "/")
		f.places[digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)] = place{at, h.Size}
	}
}

// named completes the names of images.
func named(all []Image, as string) (images []Image, err error) {
	host, repository, _ := strings.Cut(strings.TrimSuffix(as, "/"), "/")
	tag := ""
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		repository, tag = repository[:colon], repository[colon+1:]
	}
	tagged := 0
	for _, i := range all {
		if i.Tag != "" {
			tagged++
		}
	}
	for _, i := range all {
		isHost := strings.ContainsAny(i.Upstream, ".:") || i.Upstream == "localhost"
		switch {
		case i.Upstream == "" && i.Tag == "" && (tag == "" || len(all) > 1):
			continue // a referrer, most likely
		case isHost && i.Repository != "":
		case host == "":
			return nil, fmt.Errorf("%w: %q: say with --as which registry it is of, such as --as docker.io", ErrUnnamed, i.Name())
		case i.Upstream != "" && repository == "": // team/app:1
			i.Repository, i.Upstream = i.Upstream+"/"+i.Repository, host
		case i.Upstream != "":
			i.Repository, i.Upstream = repository+"/"+i.Upstream+"/"+i.Repository, host
		case repository != "":
			i.Upstream, i.Repository = host, repository
			if i.Tag == "" || tag != "" && tagged == 1 { // of several, each has its own
				i.Tag = tag
			}
		default: // app:1, or only a tag
			name, ofName, hasTag := strings.Cut(i.Tag, ":")
			if !hasTag {
				return nil, fmt.Errorf("%w: %q: say with --as which repository it is of, such as --as %s/library/alpine", ErrUnnamed, i.Tag, host)
			}
			i.Upstream, i.Repository, i.Tag = host, name, ofName
		}
		if i.Upstream == "docker.io" && !strings.Contains(i.Repository, "/") {
			i.Repository = "library/" + i.Repository
		}
		images = append(images, i)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: give it one, such as --as docker.io/library/alpine:3", ErrUnnamed)
	}
	return images, nil
}

// collect lists what the images need and is there. What is not there is missing,
// and whoever imports the images says so.
func (f *Foreign) collect(v *verification) error {
	var blobs []Content
	listed := make(map[Digest]bool)
	g := f.Contents.Graph()
	for _, image := range f.Contents.Images {
		if err := g.Walk(image, func(p Part) (Names, error) {
			size, here := v.sizes[p.Digest]
			if !here {
				return Names{}, ErrSkip
			}
			content := Content{Digest: p.Digest, Size: size}
			switch {
			case listed[p.Digest]:
			case p.IsManifest:
				content.MediaType = p.MediaType
				f.Contents.Content = append(f.Contents.Content, content)
			default:
				blobs = append(blobs, content)
			}
			listed[p.Digest] = true
			return v.names[p.Digest], nil
		}); err != nil {
			return err
		}
	}
	f.Contents.Content = append(f.Contents.Content, blobs...)
	return f.Contents.check()
}

// Write writes it as a bundle.
func (f *Foreign) Write(to io.Writer) error {
	w, err := NewWriter(to, f.Contents, nil)
	if err != nil {
		return err
	}
	for {
		next, more := w.Next()
		if !more {
			return w.Close()
		}
		from := f.places[next.Digest]
		if _, err := f.file.Seek(from.at, io.SeekStart); err != nil {
			return err
		}
		if from.size == 0 {
			err = w.WriteBlob(bytes.NewReader(nil))
		} else {
			err = w.WriteBlob(io.LimitReader(f.file, from.size))
		}
		if err != nil {
			return err
		}
	}
}
