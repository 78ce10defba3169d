package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	dockerremote "github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/cache"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/fs/config"
	stargz "github.com/containerd/stargz-snapshotter/fs/remote"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stargzLayer is an eStargz layer at an upstream.
type stargzLayer struct {
	*knownBlob
	contents digest.Digest // of its table of contents
	files    [][]byte
}

const stargzFile = 500_000 // bytes of each

func stargzName(i int) string { return fmt.Sprintf("files/%03d", i) }

// pushStargz pushes an image whose one layer is an eStargz of files of random bytes.
func (s *suite) pushStargz(t *testing.T, host, repository string, files int) *stargzLayer {
	t.Helper()
	all := s.mapped(t, func(w io.Writer) error { return writeRandom(w, int64(files)*stargzFile) })
	l := &stargzLayer{}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for i := range files {
		content := all[i*stargzFile : (i+1)*stargzFile]
		l.files = append(l.files, content)
		header := &tar.Header{Name: stargzName(i), Mode: 0o644, Size: stargzFile, ModTime: built}
		if err := errors.Join(w.WriteHeader(header), writeAll(w, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	made, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive.Bytes()), 0, int64(archive.Len())), estargz.WithCompressionLevel(0))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	content := s.mapped(t, func(w io.Writer) error {
		_, err := io.Copy(w, made)
		return err
	})
	l.contents = made.TOCDigest()
	l.knownBlob = pushLayer(t, host, repository, content, mutate.Addendum{
		Layer:       static.NewLayer(content, types.OCILayer),
		Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: l.contents.String()},
	})
	return l
}

func writeAll(w io.Writer, content []byte) error {
	_, err := w.Write(content)
	return err
}

// stargzNode is the library of the stargz snapshotter, which has nothing of a layer.
func (l *stargzLayer) node(ctx context.Context, host string) (stargz.Blob, error) {
	named, err := reference.Parse("docker.io/" + l.repository + ":1")
	if err != nil {
		return nil, err
	}
	hosts := func(reference.Spec) ([]dockerremote.RegistryHost, error) {
		return []dockerremote.RegistryHost{{
			Client: &http.Client{Transport: &http.Transport{}}, Host: host, Scheme: "http", Path: "/v2",
			Capabilities: dockerremote.HostCapabilityPull | dockerremote.HostCapabilityResolve,
		}}, nil
	}
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest(l.digest), Size: l.size()}
	return stargz.NewResolver(config.BlobConfig{}, nil).Resolve(ctx, hosts, named, layer, cache.NewMemoryCache())
}

// looks reads some of the files, as a container does that has just been started.
func (l *stargzLayer) looks(blob stargz.Blob, files ...int) error {
	at := io.NewSectionReader(readerAt(func(p []byte, off int64) (int, error) { return blob.ReadAt(p, off) }), 0, blob.Size())
	opened, err := estargz.Open(at)
	if err != nil {
		return err
	}
	if _, err := opened.VerifyTOC(l.contents); err != nil {
		return err
	}
	for _, i := range files {
		file, err := opened.OpenFile(stargzName(i))
		if err != nil {
			return err
		}
		got, err := io.ReadAll(file)
		if err != nil {
			return fmt.Errorf("%s: %w", stargzName(i), err)
		}
		if !bytes.Equal(got, l.files[i]) {
			return fmt.Errorf("%s is not what was pushed", stargzName(i))
		}
	}
	return nil
}

type readerAt func([]byte, int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

// scattered reads every other of the library's chunks, and then has it bring all
// the holes in the background, in one request: there are more of them than a
// request may have ranges (F5).
func (l *stargzLayer) scattered(blob stargz.Blob) error {
	const chunk = 50_000
	part := make([]byte, chunk)
	for off := int64(0); off+chunk <= blob.Size(); off += 2 * chunk {
		if _, err := blob.ReadAt(part, off); err != nil {
			return err
		}
		if !bytes.Equal(part, l.content[off:off+chunk]) {
			return fmt.Errorf("at %d the bytes are not those that were pushed", off)
		}
	}
	if err := blob.Cache(0, blob.Size()); err != nil {
		return fmt.Errorf("the background fetch: %w", err)
	}
	all := make([]byte, blob.Size())
	if _, err := blob.ReadAt(all, 0); err != nil {
		return err
	}
	if !bytes.Equal(all, l.content) {
		return errors.New("what the background fetch brought is not what was pushed")
	}
	return nil
}

// reads is a way to read the layer.
func (l *stargzLayer) reads(read func(stargz.Blob) error) func(*testing.T, *suite, *mirror, string) pieceReading {
	return func(_ *testing.T, _ *suite, _ *mirror, host string) pieceReading {
		return func(t *testing.T, when string) int64 {
			t.Helper()
			blob, err := l.node(t.Context(), host)
			if err != nil {
				t.Errorf("%s: %v", when, err)
				return 0
			}
			defer blob.Close()
			if err := read(blob); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			return blob.FetchedSize()
		}
	}
}
