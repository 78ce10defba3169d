package bundle_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/bundle"
)

// set is what a bundle is made of.
type set struct {
	contents bundle.Contents
	loadable []bundle.Loadable
	bytes    map[bundle.Digest][]byte
}

func newSet() *set {
	return &set{
		contents: bundle.Contents{Created: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Asked: []string{"hub.test/app:1"}},
		bytes:    map[bundle.Digest][]byte{},
	}
}

func (s *set) add(mediaType string, content []byte) bundle.Descriptor {
	d := digest.FromBytes(content)
	if s.bytes[d] == nil {
		s.bytes[d] = content
		s.contents.Content = append(s.contents.Content, bundle.Content{MediaType: mediaType, Digest: d, Size: int64(len(content))})
	}
	return bundle.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (s *set) blob(text string) bundle.Descriptor {
	d := s.add("", []byte(text))
	d.MediaType = ocispec.MediaTypeImageLayer
	return d
}

func (s *set) manifest(v any, mediaType string) bundle.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.add(mediaType, raw)
}

// image adds one platform; only its manifest if it is left out.
func (s *set) image(name string, leftOut bool) bundle.Descriptor {
	config, layer := s.blob(`{"architecture":"`+name+`"}`), s.blob("layer of "+name)
	config.MediaType = ocispec.MediaTypeImageConfig
	if leftOut {
		s.drop(config.Digest)
		s.drop(layer.Digest)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []bundle.Descriptor{layer}}
	if !leftOut {
		s.loadable = append(s.loadable, bundle.Loadable{Config: config.Digest, Layers: []bundle.Digest{layer.Digest}, Names: []string{"hub.test/app:1"}})
	}
	return s.manifest(m, m.MediaType)
}

func (s *set) drop(d bundle.Digest) {
	delete(s.bytes, d)
	s.contents.Content = slices.DeleteFunc(s.contents.Content, func(c bundle.Content) bool { return c.Digest == d })
}

// smallSet is an index of two platforms, one of which is left out, with a
// referrer and a chart.
func smallSet() *set {
	s := newSet()
	amd, arm := s.image("amd64", false), s.image("arm64", true)
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []bundle.Descriptor{amd, arm}}
	root := s.manifest(index, index.MediaType)
	sbom := s.blob("sbom")
	referrer := s.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json",
		Config: s.empty(), Layers: []bundle.Descriptor{sbom}, Subject: &root,
	}, ocispec.MediaTypeImageManifest)
	referrer.ArtifactType = "application/spdx+json"
	chart := s.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: s.empty(), Layers: []bundle.Descriptor{s.blob("chart")},
	}, ocispec.MediaTypeImageManifest)
	s.contents.Images = []bundle.Image{
		{Upstream: "hub.test", Repository: "chart", Tag: "2", Manifest: chart, Artifact: "application/vnd.cncf.helm.config.v1+json"},
		{Upstream: "hub.test", Repository: "app", Tag: "1", Manifest: root, Platforms: []string{"linux/amd64"}, LeftOut: []bundle.Digest{arm.Digest}, Referrers: true},
	}
	s.contents.Referrers = []bundle.Answer{
		{Upstream: "hub.test", Repository: "app", Subject: root.Digest, Complete: true, At: s.contents.Created, Manifests: []bundle.Descriptor{referrer}},
		{Upstream: "hub.test", Repository: "app", Subject: amd.Digest, Complete: false},
	}
	return s
}

func (s *set) empty() bundle.Descriptor {
	d := s.add("", []byte("{}"))
	d.MediaType = ocispec.MediaTypeEmptyJSON
	return d
}

func (s *set) write(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, s.contents, s.loadable)
	if err != nil {
		t.Fatal(err)
	}
	for {
		next, more := w.Next()
		if !more {
			break
		}
		if err := w.WriteBlob(bytes.NewReader(s.bytes[next.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// member is a file of a tar.
type member struct {
	tar.Header
	content []byte
}

func membersOf(t testing.TB, file []byte) (all []member) {
	t.Helper()
	for in := tar.NewReader(bytes.NewReader(file)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, member{*h, content})
	}
}

func tarOf(t testing.TB, all []member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range all {
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABundleIsVerified(t *testing.T) {
	s := smallSet()
	report, err := bundle.Verify(bytes.NewReader(s.write(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Whole() || len(report.Images) != 2 || report.Blobs != len(s.contents.Content) || report.Bytes != s.contents.Bytes() {
		t.Errorf("%+v", report)
	}
	app := report.Images[1]
	if app.Name != "hub.test/app:1" || app.Manifests != 4 || app.Blobs != 4 || app.LeftOut != 1 || app.Referrers != 1 || app.Assumed != 0 {
		t.Errorf("%+v", app)
	}
	if c := report.Contents; c == nil || !c.Referrers[0].Complete || c.Referrers[1].Complete || c.Images[1].Platforms[0] != "linux/amd64" {
		t.Errorf("%+v", c)
	}
}

// Without our own file it is a layout like any other, in any order.
func TestALayoutOfAnotherToolIsVerifiedInAnyOrder(t *testing.T) {
	s := smallSet()
	s.contents.Images[1].LeftOut, s.contents.Images[1].Platforms = nil, nil // no other tool says so
	all := membersOf(t, s.write(t))
	all = slices.DeleteFunc(all, func(m member) bool { return m.Name == "entrepot.json" || m.Name == "manifest.json" })
	all = append([]member{{tar.Header{Typeflag: tar.TypeDir, Name: "./blobs/", Mode: 0o755}, nil}}, all...)
	slices.Reverse(all)
	report, err := bundle.Verify(bytes.NewReader(tarOf(t, all)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Contents != nil || len(report.Images) != 3 || report.Images[1].Name != "hub.test/chart:2" || len(report.Images[1].Missing) > 0 {
		t.Errorf("%+v", report)
	}
	if app := report.Images[0]; len(app.Missing) != 2 || report.Whole() {
		t.Errorf("a platform whose config and layer are missing: %+v", app)
	}
}

func TestWhatIsWrongWithAFileIsSaid(t *testing.T) {
	s := smallSet()
	sound := s.write(t)
	at := func(file []byte, text string) int {
		i := bytes.LastIndex(file, []byte(text))
		if i < 0 {
			t.Fatalf("%q is not there", text)
		}
		return i
	}
	change := func(fn func(all []member) []member) []byte { return tarOf(t, fn(membersOf(t, sound))) }
	insert := func(h tar.Header) []byte {
		return change(func(all []member) []member { return append(all, member{h, nil}) })
	}
	flipped := bytes.Clone(sound)
	flipped[at(flipped, "layer of amd64")] ^= 1
	long := newSet()
	long.contents.Content = []bundle.Content{{Digest: digest.FromString("x"), Size: 1 << 40}}
	terabyte := append(headerOnly(t, long), hugeHeader(t, digest.FromString("x"), 1<<40)...)
	for name, c := range map[string]struct {
		file  []byte
		is    error
		names string
	}{
		"a flipped byte":               {flipped, bundle.ErrDamaged, digest.FromString("layer of amd64").String()},
		"cut in a blob":                {sound[:at(sound, "layer of amd64")+4], bundle.ErrTruncated, ""},
		"cut between two members":      {sound[:at(sound, "layer of amd64")-512], bundle.ErrDamaged, digest.FromString("layer of amd64").String()},
		"cut in its head":              {sound[:1100], bundle.ErrTruncated, ""},
		"no end":                       {sound[:len(sound)-1024], nil, ""},
		"a blob is missing":            {change(func(all []member) []member { return all[:len(all)-1] }), bundle.ErrDamaged, "it is not there"},
		"a blob that nobody announced": {insert(tar.Header{Name: "blobs/sha256/" + strings.Repeat("0", 64), Mode: 0o644}), bundle.ErrDamaged, "nothing is said of"},
		"a blob of another size":       {change(func(all []member) []member { return resized(all) }), bundle.ErrDamaged, "and should have"},
		"a name that escapes":          {insert(tar.Header{Name: "../x", Mode: 0o644}), bundle.ErrHostile, `"../x"`},
		"a name that escapes later":    {insert(tar.Header{Name: "blobs/../../x", Mode: 0o644}), bundle.ErrHostile, `"blobs/../../x"`},
		"an absolute name":             {insert(tar.Header{Name: "/etc/x", Mode: 0o644}), bundle.ErrHostile, `"/etc/x"`},
		"a name of Windows":            {insert(tar.Header{Name: `..\x`, Mode: 0o644}), bundle.ErrHostile, "x"},
		"a symbolic link":              {insert(tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs/x", Linkname: "/etc/passwd"}), bundle.ErrHostile, `"blobs/x"`},
		"a hard link":                  {insert(tar.Header{Typeflag: tar.TypeLink, Name: "blobs/x", Linkname: "index.json"}), bundle.ErrHostile, `"blobs/x"`},
		"a device":                     {insert(tar.Header{Typeflag: tar.TypeChar, Name: "x"}), bundle.ErrHostile, `"x"`},
		"a member twice":               {change(func(all []member) []member { return append(all, all[len(all)-1]) }), bundle.ErrHostile, "twice"},
		"a length of a terabyte":       {terabyte, bundle.ErrTruncated, ""},
		"a blob's name is none":        {insert(tar.Header{Name: "blobs/sha256/abc", Mode: 0o644}), bundle.ErrDamaged, "blobs/sha256/abc"},
		"a later format":               {change(func(all []member) []member { return replaced(all, `"formatVersion":1`, `"formatVersion":2`) }), bundle.ErrNewer, "format 2"},
		"a tag that is none":           {change(func(all []member) []member { return replaced(all, `"tag":"1"`, `"tag":"1/../2"`) }), bundle.ErrDamaged, "1/../2"},
		"a repository that is none":    {change(func(all []member) []member { return replaced(all, `"repository":"app"`, `"repository":"../app"`) }), bundle.ErrDamaged, "../app"},
		"an index of other images":     {change(func(all []member) []member { return replaced(all, `"hub.test/app:1","org`, `"hub.test/app:9","org`) }), bundle.ErrDamaged, "different images"},
		"compressed":                   {[]byte("\x1f\x8b\x08 and more"), bundle.ErrNotBundle, "compressed"},
		"text":                         {[]byte(strings.Repeat("hello ", 200)), bundle.ErrNotBundle, "no tar"},
		"nothing":                      {nil, bundle.ErrNotBundle, "empty"},
		"another tar":                  {tarOf(t, []member{{tar.Header{Name: "x", Mode: 0o644}, nil}}), bundle.ErrNotBundle, "index.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bundle.Verify(bytes.NewReader(c.file), nil)
			if c.is == nil && err != nil {
				t.Errorf("%v", err)
			}
			if c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(err.Error(), c.names)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// resized makes the last blob a byte longer.
func resized(all []member) []member {
	last := &all[len(all)-1]
	last.content = append(bytes.Clone(last.content), 0)
	last.Size++
	return all
}

// replaced replaces something in the JSON files.
func replaced(all []member, old, by string) []member {
	for i, m := range all {
		if strings.HasSuffix(m.Name, ".json") && bytes.Contains(m.content, []byte(old)) {
			all[i].content = bytes.ReplaceAll(m.content, []byte(old), []byte(by))
			all[i].Size = int64(len(all[i].content))
		}
	}
	return all
}

func headerOnly(t *testing.T, s *set) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := bundle.NewWriter(&out, s.contents, nil); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), make([]byte, (512-out.Len()%512)%512)...)
}

func hugeHeader(t *testing.T, d bundle.Digest, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := tar.NewWriter(&out).WriteHeader(&tar.Header{Name: "blobs/sha256/" + d.Encoded(), Size: size, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A stream that was cut is not a damaged file: whoever sends it may send it
// again.
func TestAStreamThatIsCutIsNoDamagedFile(t *testing.T) {
	sound := smallSet().write(t)
	cut := errors.New("the connection is gone")
	_, err := bundle.Verify(io.MultiReader(bytes.NewReader(sound[:len(sound)/2]), failing{cut}), nil)
	if !errors.Is(err, cut) || errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAWriterProvesWhatItWrites(t *testing.T) {
	s := smallSet()
	w, err := bundle.NewWriter(io.Discard, s.contents, s.loadable)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err == nil {
		t.Error("a bundle without its blobs was closed")
	}
	next, _ := w.Next()
	wrong := bytes.Repeat([]byte("x"), int(next.Size))
	if err := w.WriteBlob(bytes.NewReader(wrong)); !errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// Docker and oras end with "unexpected EOF" where a size is a PAX record.
func TestASizeOver8GiBIsInBase256(t *testing.T) {
	s := newSet()
	d := digest.FromString("large")
	s.contents.Content = []bundle.Content{{Digest: d, Size: 9 << 30}}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, s.contents, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.WriteBlob(strings.NewReader("")) // only its header
	header := out.Bytes()[bytes.LastIndex(out.Bytes(), []byte("blobs/sha256/"+d.Encoded())):][:512]
	if header[124] != 0x80 || string(header[257:263]) != "ustar " {
		t.Errorf("size %q, magic %q", header[124:136], header[257:265])
	}
	if strings.Contains(out.String(), "PaxHeader") {
		t.Error("there is a PAX header")
	}
}

func TestADeltaSaysWhatItAssumes(t *testing.T) {
	s := smallSet()
	assumed := digest.FromString("layer of amd64")
	for _, c := range s.contents.Content {
		if c.Digest == assumed {
			s.contents.Assumed = []bundle.Content{c}
		}
	}
	s.drop(assumed)
	file := s.write(t)
	for name, has := range map[string]func(bundle.Digest) bool{
		"nothing is known of the other side": nil,
		"it is there":                        func(bundle.Digest) bool { return true },
		"it is not there":                    func(d bundle.Digest) bool { return d != assumed },
	} {
		report, err := bundle.Verify(bytes.NewReader(file), has)
		if err != nil {
			t.Fatal(err)
		}
		isThere := name != "it is not there"
		if report.Whole() != isThere || len(report.Images[0].Missing) != 0 || (report.Images[1].Assumed == 1) != isThere || (len(report.NotThere) == 0) != isThere {
			t.Errorf("%s: %+v", name, report)
		}
	}
	// What is neither there nor assumed is missing.
	s.contents.Assumed = nil
	report, err := bundle.Verify(bytes.NewReader(s.write(t)), nil)
	if err != nil || len(report.Images[1].Missing) != 1 || !strings.Contains(report.Images[1].Missing[0], assumed.String()) {
		t.Errorf("%+v, %v", report, err)
	}
}
