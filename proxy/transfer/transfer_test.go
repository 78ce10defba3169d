package transfer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/proxy/transfer"
	"github.com/entrepot/entrepot/upstream"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

// outside is a mirror that has images.
type outside struct {
	*testing.T
	mirrortest.Mirror
}

func newOutside(t *testing.T) outside {
	t.Helper()
	o := mirrortest.NewOrigin()
	o.API = true
	return outside{t, mirrortest.New(t, o, nil)}
}

// image puts an index of two platforms with a referrer, under a tag, and has all
// of it fetched.
func (o outside) image(tag string) (root, referrer retention.Descriptor) {
	o.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for n, arch := range []string{"amd64", "arm64"} {
		child, _ := o.Origin.Image("app", tag+"-"+arch, mirrortest.Bytes(byte(n)+2*tag[0], 100<<10))
		child.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, child)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		o.Fatal(err)
	}
	root = o.Origin.Put("app", index.MediaType, raw, tag)
	referrer = o.Origin.Attach(root, "application/sbom")
	o.pin(tag)
	return root, referrer
}

func (o outside) pin(tag string) {
	o.Helper()
	if _, err := o.Pin(o.Context(), tagged(tag)); err != nil {
		o.Fatal(err)
	}
}

func tagged(tag string) transfer.Reference {
	return transfer.Reference{Repository: mirrortest.App, Ref: tag}
}

func selected(t *testing.T, platforms []string, tags ...string) (all []retention.Selection) {
	t.Helper()
	wanted, err := retention.ParsePlatforms(platforms)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		all = append(all, retention.Selection{Image: tagged(tag), Platforms: wanted, Referrers: true})
	}
	return all
}

// bundle makes a bundle of images.
func (o outside) bundle(all []retention.Selection, have bundle.Have) []byte {
	o.Helper()
	plan, err := o.Plan(o.Context(), all, have, []string{"test"})
	if err != nil {
		o.Fatal(err)
	}
	defer plan.Close()
	var out bytes.Buffer
	if err := plan.Write(o.Context(), &out); err != nil {
		o.Fatal(err)
	}
	return out.Bytes()
}

// inside is a mirror whose upstream can't be reached.
func inside(t *testing.T, change func(*mirror.Options)) mirrortest.Mirror {
	t.Helper()
	o := mirrortest.NewOrigin()
	o.FailAll()
	m := mirrortest.New(t, o, func(opts *mirror.Options) {
		opts.Rules.Offline = true
		if change != nil {
			change(opts)
		}
	})
	t.Cleanup(func() { mirrortest.WantTranscript(t, o) })
	return m
}

// content is all that is stored in a mirror.
func content(t *testing.T, m mirrortest.Mirror) []string {
	t.Helper()
	var all []string
	if err := m.Have(t.Context(), func(d transfer.Digest) error { all = append(all, d.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func wantServed(t *testing.T, m mirrortest.Mirror, tag string, root retention.Descriptor) {
	t.Helper()
	if got := m.PullImage(t, mirrortest.App, tag); got != root.Digest {
		t.Errorf("%s is %s, and should be %s", tag, got, root.Digest)
	}
}

// wantAbsent checks that a mirror has nothing of an image: not its tag, and no
// manifest.
func wantAbsent(t *testing.T, m mirrortest.Mirror, tag string, root retention.Descriptor) {
	t.Helper()
	if _, err := m.Manifest(t.Context(), mirrortest.App, tag); !errors.Is(err, pull.ErrOffline) {
		t.Errorf("%s: %v", tag, err)
	}
	if m.HasManifest(mirrortest.App, root.Digest) {
		t.Errorf("%s is on record", root.Digest)
	}
}

func TestWhatWasCarriedIsServed(t *testing.T) {
	o := newOutside(t)
	root, referrer := o.image("a")
	file := o.bundle(selected(t, nil, "a"), nil)
	if report, err := bundle.Verify(bytes.NewReader(file), nil); err != nil || !report.Whole() {
		t.Fatalf("%+v, %v", report, err)
	}
	m := inside(t, nil)
	done, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil)
	if err != nil || len(done.Images) != 1 || done.Written != done.Total || done.Bytes != done.Total {
		t.Fatalf("%+v, %v", done, err)
	}
	wantServed(t, m, "a", root)
	if got := m.Missing(t); len(got) > 0 {
		t.Errorf("not learnt: %q", got)
	}
	answer, err := m.Referrers(t.Context(), mirrortest.App, root.Digest)
	if err != nil || answer.Stale || len(answer.Manifests) != 1 || answer.Manifests[0].Digest != referrer.Digest || answer.Manifests[0].ArtifactType != "application/sbom" {
		t.Errorf("%+v, %v", answer, err)
	}
	if !m.Ledger.HasPin(mirrortest.App, "a") {
		t.Error("it is not pinned")
	}
	if !m.Mirror.Retention.IsComplete(t.Context(), tagged("a"), true) {
		t.Error("it is not whole")
	}
	if o, i := content(t, o.Mirror), content(t, m); !slices.Equal(o, i) {
		t.Errorf("outside there is\n%q\nand inside\n%q", o, i)
	}
	// Again, nothing is written.
	if done, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil); err != nil || done.Written != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestWhatWasCarriedHasNoWarning: an upstream that is offline can say nothing
// newer of what was carried, however long ago that was.
func TestWhatWasCarriedHasNoWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutside(t)
		root, _ := o.image("a")
		file := o.bundle(selected(t, nil, "a"), nil)
		m := inside(t, nil)
		if _, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		tag, err := m.Manifest(t.Context(), mirrortest.App, "a")
		if err != nil || tag.Stale || tag.Descriptor.Digest != root.Digest {
			t.Errorf("%+v, %v", tag, err)
		}
		answer, err := m.Referrers(t.Context(), mirrortest.App, root.Digest)
		if err != nil || answer.Stale || len(answer.Manifests) != 1 {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}

func TestWithoutPinsNothingIsPinned(t *testing.T) {
	o := newOutside(t)
	o.image("a")
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(o.bundle(selected(t, nil, "a"), nil)), transfer.ImportOptions{NoPin: true}, nil); err != nil {
		t.Fatal(err)
	}
	if pins, err := m.Pins(); err != nil || len(pins) > 0 {
		t.Errorf("%v, %v", pins, err)
	}
}

func TestAPlatformThatIsLeftOutKeepsItsManifest(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	file := o.bundle(selected(t, []string{"linux/arm64"}, "a"), nil)
	report, err := bundle.Verify(bytes.NewReader(file), nil)
	if err != nil || !report.Whole() || report.Images[0].LeftOut != 1 || report.Images[0].Manifests != 4 {
		t.Fatalf("%+v, %v", report, err)
	}
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if scope := m.Ledger.PinScope(tagged("a")); !slices.Equal(scope.Platforms, []string{"linux/arm64"}) && !slices.Equal(scope.Platforms, []string{"linux/arm64/v8"}) || scope.NoReferrers {
		t.Errorf("it is pinned as %+v", scope)
	}
	index, err := m.Manifest(t.Context(), mirrortest.App, "a")
	if err != nil || index.Descriptor.Digest != root.Digest {
		t.Fatalf("%v", err)
	}
	rec, _ := m.Ledger.Manifest(mirrortest.App, root.Digest)
	for n, child := range rec.Children {
		if _, err := m.Manifest(t.Context(), mirrortest.App, child.Digest.String()); err != nil {
			t.Errorf("%s: %v", child.Platform.Architecture, err)
		}
		of, _ := m.Ledger.Manifest(mirrortest.App, child.Digest)
		for _, b := range of.Blobs {
			if m.HasContent(b.Digest) != (n == 1) {
				t.Errorf("%s: blob %s is there: %v", child.Platform.Architecture, b.Digest, n != 1)
			}
		}
	}
}

// Without what a bundle says of it, the referrers of an image are unknown: that
// is not the same as none.
func TestAnAnswerThatIsNotCompleteIsNotImportedAsOne(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	rec, _ := o.Ledger.Manifest(mirrortest.App, root.Digest)
	o.Ledger.DropReferrers(mirrortest.App, root.Digest)
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(o.bundle(selected(t, nil, "a"), nil)), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if rec, known := m.Ledger.Referrers(mirrortest.App, root.Digest); known {
		t.Errorf("%+v", rec)
	}
	if _, known := m.Ledger.Referrers(mirrortest.App, rec.Children[0].Digest); !known {
		t.Error("that nothing refers to a platform is not known")
	}
}

func TestAnImageIsImportedWholeOrNot(t *testing.T) {
	o := newOutside(t)
	a, _ := o.image("a")
	base := o.bundle(selected(t, nil, "a"), nil)
	b, _ := o.image("b")
	c, _ := o.image("c")
	// The second month: b is assumed to be there, but for one blob of it.
	earlier, err := bundle.ReadHave(bytes.NewReader(o.bundle(selected(t, nil, "a", "b"), nil)))
	if err != nil {
		t.Fatal(err)
	}
	delta := o.bundle(selected(t, nil, "a", "b", "c"), earlier)
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(base), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	before := content(t, m)
	done, err := m.Import(t.Context(), bytes.NewReader(delta), transfer.ImportOptions{}, nil)
	if !errors.Is(err, transfer.ErrRefused) || len(done.Images) != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	for n, refused := range []bool{false, true, false} {
		if image := done.Images[n]; (image.Refused != "") != refused || refused && !strings.Contains(image.Refused, b.Digest.String()) {
			t.Errorf("%+v", image)
		}
	}
	wantServed(t, m, "a", a)
	wantAbsent(t, m, "b", b)
	wantServed(t, m, "c", c)
	if now := content(t, m); len(now) <= len(before) {
		t.Errorf("%d before, and %d now", len(before), len(now))
	}
	if m.Ledger.HasPin(mirrortest.App, "b") || !m.Ledger.HasPin(mirrortest.App, "c") {
		t.Error("what is pinned is not what was imported")
	}
	m.WantUsageExact(t)
}

// Of an image that is refused, what only it needs is dropped.
func TestWhatOnlyARefusedImageNeedsIsDropped(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	rec, _ := o.Ledger.Manifest(mirrortest.App, root.Digest)
	file := o.bundle(selected(t, nil, "a"), bundle.Have{rec.Children[0].Digest: true})
	m := inside(t, nil)
	done, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil)
	if !errors.Is(err, transfer.ErrRefused) || !strings.Contains(done.Images[0].Refused, rec.Children[0].Digest.String()) {
		t.Fatalf("%+v, %v", done, err)
	}
	wantAbsent(t, m, "a", root)
	if left := content(t, m); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	m.WantUsageExact(t)
}

func TestADeltaHasOnlyWhatChanged(t *testing.T) {
	o := newOutside(t)
	o.image("a")
	first := o.bundle(selected(t, nil, "a"), nil)
	b, _ := o.image("b")
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(first), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	have := bundle.Have{}
	if err := m.Have(t.Context(), func(d transfer.Digest) error { have[d] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	since, err := bundle.ReadHave(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	for name, have := range map[string]bundle.Have{"since": since, "have": have} {
		delta := o.bundle(selected(t, nil, "a", "b"), have)
		report, err := bundle.Verify(bytes.NewReader(delta), func(d bundle.Digest) bool { return have[d] })
		if err != nil || !report.Whole() || report.Images[0].Assumed != 1 {
			t.Fatalf("%s: %+v, %v", name, report, err)
		}
		for _, c := range report.Contents.Content {
			if have[c.Digest] {
				t.Errorf("%s: %s is there already", name, c.Digest)
			}
		}
		if report, err := bundle.Verify(bytes.NewReader(delta), func(bundle.Digest) bool { return false }); err != nil || report.Whole() {
			t.Errorf("%s: without the base: %+v, %v", name, report, err)
		}
	}
	if _, err := m.Import(t.Context(), bytes.NewReader(o.bundle(selected(t, nil, "a", "b"), have)), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	wantServed(t, m, "b", b)
}

func TestAnImportThatFailsLeavesNothing(t *testing.T) {
	o := newOutside(t)
	a, _ := o.image("a")
	base := o.bundle(selected(t, nil, "a"), nil)
	b, _ := o.image("b")
	file := o.bundle(selected(t, nil, "b"), nil)
	flipped := bytes.Clone(file)
	flipped[len(flipped)-2000] ^= 1
	foreign := bytes.ReplaceAll(file, []byte(`"upstream":"hub"`), []byte(`"upstream":"hug"`))
	foreign = bytes.ReplaceAll(foreign, []byte(`hub/app`), []byte(`hug/app`))
	for name, c := range map[string]struct {
		file []byte
		is   error
	}{
		"a flipped byte":                {flipped, bundle.ErrDamaged},
		"cut short":                     {file[:len(file)-60<<10], bundle.ErrTruncated},
		"a file of another kind":        {[]byte(strings.Repeat("x", 1000)), bundle.ErrNotBundle},
		"an upstream that is not there": {foreign, upstream.ErrNameUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			m := inside(t, nil)
			if _, err := m.Import(t.Context(), bytes.NewReader(base), transfer.ImportOptions{}, nil); err != nil {
				t.Fatal(err)
			}
			before := content(t, m)
			if _, err := m.Import(t.Context(), bytes.NewReader(c.file), transfer.ImportOptions{}, nil); !errors.Is(err, c.is) {
				t.Errorf("%v", err)
			} else if errors.Is(err, upstream.ErrNameUnknown) && !strings.Contains(err.Error(), `"hug" is not one of this mirror's upstreams`) {
				t.Errorf("it does not name the upstream: %v", err)
			}
			if after := content(t, m); !slices.Equal(before, after) {
				t.Errorf("before\n%q\nand after\n%q", before, after)
			}
			wantServed(t, m, "a", a)
			wantAbsent(t, m, "b", b)
			m.WantUsageExact(t)
		})
	}
}

func TestPinsThatWouldNotFitRefuseAnImportBeforeItStarts(t *testing.T) {
	o := newOutside(t)
	a, _ := o.image("a")
	base := o.bundle(selected(t, nil, "a"), nil)
	b, _ := o.image("b")
	m := inside(t, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 300 << 10 })
	if _, err := m.Import(t.Context(), bytes.NewReader(base), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	before := content(t, m)
	file := &counting{from: bytes.NewReader(o.bundle(selected(t, nil, "b"), nil))}
	if _, err := m.Import(t.Context(), file, transfer.ImportOptions{}, nil); !errors.Is(err, transfer.ErrPins) {
		t.Errorf("%v", err)
	}
	if after := content(t, m); !slices.Equal(before, after) {
		t.Errorf("before\n%q\nand after\n%q", before, after)
	}
	wantServed(t, m, "a", a)
	wantAbsent(t, m, "b", b)
	// What is pinned already counts once.
	if _, err := m.Import(t.Context(), bytes.NewReader(base), transfer.ImportOptions{}, nil); err != nil {
		t.Error(err)
	}
}

type counting struct {
	from io.Reader
	n    int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}

func TestAFullDiskLeavesWhatWasThere(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	m := inside(t, func(opts *mirror.Options) { opts.Bounds = store.Bounds{MaxBytes: 150 << 10} })
	_, err := m.Import(t.Context(), bytes.NewReader(o.bundle(selected(t, nil, "a"), nil)), transfer.ImportOptions{NoPin: true}, nil)
	if !errors.Is(err, cache.ErrFull) {
		t.Errorf("%v", err)
	}
	wantAbsent(t, m, "a", root)
	if left := content(t, m); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	m.WantUsageExact(t)
}

func TestAnImportThatWasCutGoesOn(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	file := o.bundle(selected(t, nil, "a"), nil)
	m := inside(t, nil)
	cut := errors.New("the connection is gone")
	done, err := m.Import(t.Context(), io.MultiReader(bytes.NewReader(file[:len(file)-60<<10]), mirrortest.Failing{Err: cut}), transfer.ImportOptions{}, nil)
	if !errors.Is(err, cut) || done.Written < 100<<10 {
		t.Fatalf("%+v, %v", done, err)
	}
	wantAbsent(t, m, "a", root)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := m.Import(ctx, bytes.NewReader(file), transfer.ImportOptions{}, func(transfer.ImportProgress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	again, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil)
	if err != nil || again.Written+done.Written != again.Total {
		t.Errorf("%d bytes were written before, and %d now: %v", done.Written, again.Written, err)
	}
	wantServed(t, m, "a", root)
}

func TestAnImportMovesATag(t *testing.T) {
	o := newOutside(t)
	first, _ := o.image("a")
	old := o.bundle(selected(t, nil, "a"), nil)
	index, _ := o.image("b")
	served, _ := o.Origin.Get("app", "b")
	o.Origin.Put("app", served.MediaType, served.Body, "a")
	if err := movedTag(o); err != nil {
		t.Fatal(err)
	}
	o.pin("a")
	later := o.bundle(selected(t, nil, "a"), nil)
	m := inside(t, nil)
	for _, file := range [][]byte{old, later} {
		if done, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil); err != nil {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	wantServed(t, m, "a", index)
	list, err := m.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range list.Images {
		if image.Pinned != (image.Digest == index.Digest) {
			t.Errorf("%s: pinned is %v", image.Digest, image.Pinned)
		}
	}
	// An older bundle moves no tag, unless it is told to.
	done, err := m.Import(t.Context(), bytes.NewReader(old), transfer.ImportOptions{}, nil)
	if !errors.Is(err, transfer.ErrRefused) || !strings.Contains(done.Images[0].Refused, "newer") {
		t.Errorf("%+v, %v", done, err)
	}
	wantServed(t, m, "a", index)
	if _, err := m.Import(t.Context(), bytes.NewReader(old), transfer.ImportOptions{Force: true}, nil); err != nil {
		t.Error(err)
	}
	wantServed(t, m, "a", first)
}

// movedTag has the mirror forget its tag, so that it is asked for again.
func movedTag(o outside) error {
	o.Ledger.DropTag(mirrortest.App, "a")
	_, err := o.Manifest(o.Context(), mirrortest.App, "a")
	return err
}

// What a bundle names in a repository is held there: what was private outside is
// for no other repository inside, either.
func TestPrivateContentStaysPrivate(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	rec, _ := o.Ledger.Manifest(mirrortest.App, root.Digest)
	platform, _ := o.Ledger.Manifest(mirrortest.App, rec.Children[0].Digest)
	layer := platform.Blobs[1].Digest
	o.Ledger.PutPrivate(layer)
	m := inside(t, nil)
	if _, err := m.Import(t.Context(), bytes.NewReader(o.bundle(selected(t, nil, "a"), nil)), transfer.ImportOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	other := mirrortest.Repository{Upstream: "hub", Name: "other"}
	m.Ledger.PutNamed(other, layer, 1)
	if !m.Ledger.Holds(mirrortest.App, layer) || m.Ledger.Holds(other, layer) {
		t.Errorf("it is held by its repository: %v, and by another that only names it: %v", m.Ledger.Holds(mirrortest.App, layer), m.Ledger.Holds(other, layer))
	}
}

func TestWhatIsNotCachedIsNamed(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	rec, _ := o.Ledger.Manifest(mirrortest.App, root.Digest)
	platform, _ := o.Ledger.Manifest(mirrortest.App, rec.Children[1].Digest)
	gone := platform.Blobs[1].Digest
	if err := o.Blobs.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Plan(t.Context(), selected(t, nil, "a"), nil, nil); !errors.Is(err, transfer.ErrIncomplete) || !strings.Contains(err.Error(), gone.String()) {
		t.Errorf("%v", err)
	}
	if _, err := o.Plan(t.Context(), selected(t, nil, "unknown"), nil, nil); !errors.Is(err, transfer.ErrIncomplete) {
		t.Errorf("%v", err)
	}
	// Of the other platform all is there.
	o.bundle(selected(t, []string{"linux/amd64"}, "a"), nil)
}

func TestDamageIsFoundWhileABundleIsWritten(t *testing.T) {
	o := newOutside(t)
	root, _ := o.image("a")
	rec, _ := o.Ledger.Manifest(mirrortest.App, root.Digest)
	platform, _ := o.Ledger.Manifest(mirrortest.App, rec.Children[1].Digest)
	plan, err := o.Plan(t.Context(), selected(t, nil, "a"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	o.Disk.Damage(platform.Blobs[1].Digest)
	if err := plan.Write(t.Context(), io.Discard); !errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("%v", err)
	}
	if o.HasContent(platform.Blobs[1].Digest) {
		t.Error("it is not quarantined")
	}
}

// A manifest whose media type differs from what names it can't hide what it
// names.
func TestAManifestCannotHideWhatItNames(t *testing.T) {
	layer := retention.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("gone"), Size: 4}
	config := []byte("{}")
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":4}]}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, digest.FromBytes(config), layer.MediaType, layer.Digest)
	root := retention.Descriptor{MediaType: "application/vnd.unknown", Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, bundle.Contents{
		Images:  []bundle.Image{{Upstream: "hub", Repository: "app", Tag: "a", Manifest: root}},
		Content: []bundle.Content{{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, {Digest: digest.FromBytes(config), Size: 2}},
	}, nil)
	for _, part := range [][]byte{raw, config} {
		if err == nil {
			err = w.WriteBlob(bytes.NewReader(part))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := inside(t, nil)
	done, err := m.Import(t.Context(), &out, transfer.ImportOptions{}, nil)
	if !errors.Is(err, transfer.ErrRefused) || !strings.Contains(done.Images[0].Refused, layer.Digest.String()) {
		t.Errorf("%+v, %v", done, err)
	}
	wantAbsent(t, m, "a", root)
}

func TestWhatIsMissingIsFetchedFirst(t *testing.T) {
	o := newOutside(t)
	child, layer := o.Origin.Image("app", "amd", mirrortest.Bytes(1, 1000))
	other, otherLayer := o.Origin.Image("app", "arm", mirrortest.Bytes(2, 1000))
	child.Platform, other.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}, &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []retention.Descriptor{child, other}})
	if err != nil {
		t.Fatal(err)
	}
	root := o.Origin.Put("app", ocispec.MediaTypeImageIndex, raw, "1")
	referrer := o.Origin.Attach(root, "application/sbom")
	var out bytes.Buffer
	all := selected(t, []string{"linux/amd64"}, "1")
	if err := o.Create(t.Context(), transfer.CreateRequest{Images: all}, &out); err != nil {
		t.Fatal(err)
	}
	report, err := bundle.Verify(&out, nil)
	if err != nil || !report.Whole() || report.Images[0].LeftOut != 1 || report.Images[0].Referrers != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if !o.HasContent(layer.Digest) || o.HasContent(otherLayer.Digest) || !o.HasContent(referrer.Digest) {
		t.Errorf("fetched: the layer %v, that of another platform %v, the referrer %v", o.HasContent(layer.Digest), o.HasContent(otherLayer.Digest), o.HasContent(referrer.Digest))
	}
	// A second time, nothing is asked for but what is fresh.
	o.Origin.Transcript()
	if err := o.Create(t.Context(), transfer.CreateRequest{Images: all}, io.Discard); err != nil {
		t.Error(err)
	}
	mirrortest.WantTranscript(t, o.Origin)
	if err := o.Create(t.Context(), transfer.CreateRequest{Images: selected(t, nil, "none")}, &out); !errors.Is(err, transfer.ErrIncomplete) || out.Len() > 0 {
		t.Errorf("%v, and %d bytes", err, out.Len())
	}
	// A digest counts for more than the tag beside it, which is not at it.
	byDigest := selected(t, nil, "1")
	byDigest[0].At = child.Digest
	var of bytes.Buffer
	if err := o.Create(t.Context(), transfer.CreateRequest{Images: byDigest}, &of); err != nil {
		t.Fatal(err)
	}
	if c, err := bundle.ReadContents(&of); err != nil || len(c.Images) != 1 || c.Images[0].Tag != "" || c.Images[0].Manifest.Digest != child.Digest {
		t.Errorf("%+v, %v", c, err)
	}
	if err := o.Create(t.Context(), transfer.CreateRequest{Pinned: true}, &out); !errors.Is(err, transfer.ErrIncomplete) {
		t.Errorf("nothing is pinned: %v", err)
	}
}

// TestAnImportedAnswerIsNoMoreThanItKnows: what is here, and what an answer that
// is imported may not know of, makes it one that may lack some.
func TestAnImportedAnswerIsNoMoreThanItKnows(t *testing.T) {
	other := retention.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 5, ArtifactType: "application/other"}
	const hour = time.Hour
	for _, test := range []struct {
		name  string
		here  func(l *metadata.Ledger, root pull.Digest)
		lists int
		stale bool
	}{
		{"nothing is here", func(*metadata.Ledger, pull.Digest) {}, 1, false},
		{"an index attaches something else", func(l *metadata.Ledger, root pull.Digest) {
			l.PutAttached(mirrortest.App, root, other)
		}, 1, true},
		{"an index attaches what an older answer has left out", func(l *metadata.Ledger, root pull.Digest) {
			l.PutAttached(mirrortest.App, root, other)
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{At: time.Now().Add(-3 * hour)})
		}, 1, false},
		{"an index attaches what an older answer lists", func(l *metadata.Ledger, root pull.Digest) {
			l.PutAttached(mirrortest.App, root, other)
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{Manifests: []retention.Descriptor{other}, At: time.Now().Add(-3 * hour)})
		}, 1, true},
		{"an answer of another time lists something else", func(l *metadata.Ledger, root pull.Digest) {
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{Manifests: []retention.Descriptor{other}})
		}, 2, true},
		{"an older answer lists something else", func(l *metadata.Ledger, root pull.Digest) {
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{Manifests: []retention.Descriptor{other}, At: time.Now().Add(-3 * hour)})
		}, 1, false},
		{"a newer answer lists something else", func(l *metadata.Ledger, root pull.Digest) {
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{Manifests: []retention.Descriptor{other}, At: time.Now()})
		}, 2, true}, // and what was carried, which has that subject
		{"an answer of the future lists nothing", func(l *metadata.Ledger, root pull.Digest) {
			l.PutReferrers(mirrortest.App, root, metadata.Referrers{At: time.Now().Add(24 * hour), Imported: true})
		}, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutside(t)
				root, _ := o.image("a")
				file := o.bundle(selected(t, nil, "a"), nil)
				m := inside(t, nil)
				time.Sleep(2 * hour)
				test.here(m.Ledger, root.Digest)
				if _, err := m.Import(t.Context(), bytes.NewReader(file), transfer.ImportOptions{}, nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(1000 * hour)
				answer, err := m.Referrers(t.Context(), mirrortest.App, root.Digest)
				if err != nil || len(answer.Manifests) != test.lists || answer.Stale != test.stale {
					t.Errorf("%d, stale %v, %v; want %d, stale %v", len(answer.Manifests), answer.Stale, err, test.lists, test.stale)
				}
			})
		})
	}
}
