package bundle_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/bundle"
)

// TestTheBytesOfASmallBundle holds all that other tools read: the order, the
// names and the JSON. ENTREPOT_WRITE_PAGES=1 writes what is compared.
func TestTheBytesOfASmallBundle(t *testing.T) {
	file := smallSet().write(t)
	if again := smallSet().write(t); !bytes.Equal(file, again) {
		t.Error("the same contents make other bytes")
	}
	var listing strings.Builder
	fmt.Fprintf(&listing, "%s\n", digest.FromBytes(file))
	for _, m := range membersOf(t, file) {
		fmt.Fprintf(&listing, "\n%s %d bytes, mode %o, type %q, %d.%d, %d, %s\n", m.Name, m.Size, m.Mode, m.Typeflag, m.Uid, m.Gid, m.ModTime.Unix(), m.Format)
		if json.Valid(m.content) {
			var indented bytes.Buffer
			if err := json.Indent(&indented, m.content, "", "  "); err != nil {
				t.Fatal(err)
			}
			m.content = indented.Bytes()
		}
		fmt.Fprintf(&listing, "%s\n", m.content)
	}
	golden := filepath.Join("testdata", "small.txt")
	if os.Getenv("ENTREPOT_WRITE_PAGES") != "" {
		if err := os.WriteFile(golden, []byte(listing.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if listing.String() != string(want) {
		t.Errorf("it is\n%s", listing.String())
	}
}

// endless is a blob that nobody has in memory.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	clear(p[:n])
	e.left -= n
	return int(n), nil
}

func TestReadingTakesNoMemoryForBlobs(t *testing.T) {
	allocated := func(size int64) uint64 {
		hash := digest.Canonical.Hash()
		if _, err := io.Copy(hash, &endless{size}); err != nil {
			t.Fatal(err)
		}
		d := digest.NewDigest(digest.Canonical, hash)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		file, out := io.Pipe()
		go func() {
			w, err := bundle.NewWriter(out, bundle.Contents{Content: []bundle.Content{{Digest: d, Size: size}}}, nil)
			if err == nil {
				err = w.WriteBlob(&endless{size})
			}
			if err == nil {
				err = w.Close()
			}
			out.CloseWithError(err)
		}()
		if _, err := bundle.Verify(file, nil); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(1 << 20)
	small, large := allocated(1<<20), allocated(64<<20)
	if large > small+1<<20 {
		t.Errorf("%d bytes are allocated for a blob of 1 MiB, and %d for one of 64 MiB", small, large)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(smallSet().write(f))
	all := membersOf(f, smallSet().write(f))
	f.Add(tarOf(f, append(all, member{tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/"}, nil})))
	f.Add(tarOf(f, all[:2]))
	f.Fuzz(func(t *testing.T, file []byte) {
		report, err := bundle.Verify(bytes.NewReader(file), nil)
		if err != nil {
			return
		}
		// Whatever it is, its content is what its names say.
		proven := map[string]bool{}
		for in := tar.NewReader(bytes.NewReader(file)); ; {
			h, err := in.Next()
			if err != nil {
				break
			}
			hash := digest.Canonical.Hash()
			if _, err := io.Copy(hash, in); err != nil {
				break
			}
			if name, isBlob := strings.CutPrefix(strings.TrimPrefix(h.Name, "./"), ocispec.ImageBlobsDir+"/sha256/"); isBlob && h.Typeflag == tar.TypeReg {
				proven[name] = true
				if got := digest.NewDigest(digest.Canonical, hash).Encoded(); got != name {
					t.Errorf("%s has the digest %s", name, got)
				}
			}
		}
		for _, image := range report.Images {
			if len(image.Missing) == 0 && image.Assumed == 0 && image.Digest.Algorithm() == digest.SHA256 && !proven[image.Digest.Encoded()] {
				t.Errorf("%s is whole without its manifest", image.Name)
			}
		}
	})
}
