package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// fullBlobs are the blobs of a cache whose disk refuses at one point.
type fullBlobs struct {
	cache.Blobs
	at      string // create, write or commit
	refuses *atomic.Bool
	why     error
}

func (b fullBlobs) refuse(at string) error {
	if b.at == at && b.refuses.Load() {
		return b.why
	}
	return nil
}

func (b fullBlobs) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	if err := b.refuse("create"); err != nil {
		return nil, err
	}
	draft, err := b.Blobs.Create(ctx, want)
	return fullDraft{draft, b}, err
}

func (b fullBlobs) Resume(ctx context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	draft, kept, err := b.Blobs.Resume(ctx, d)
	if err != nil {
		return nil, kept, err
	}
	return fullDraft{draft, b}, kept, nil
}

type fullDraft struct {
	cache.Draft
	blobs fullBlobs
}

// WriteAt takes a part too.
func (d fullDraft) WriteAt(b []byte, off int64) (int, error) {
	if err := d.blobs.refuse("write"); err != nil {
		n, writeErr := d.Draft.WriteAt(b[:len(b)/3], off)
		if writeErr != nil {
			err = writeErr
		}
		return n, err
	}
	return d.Draft.WriteAt(b, off)
}

// Write takes a part of what it refuses, as a kernel may.
func (d fullDraft) Write(b []byte) (int, error) {
	if err := d.blobs.refuse("write"); err != nil {
		n, writeErr := d.Draft.Write(b[:len(b)/3])
		if writeErr != nil {
			err = writeErr
		}
		return n, err
	}
	return d.Draft.Write(b)
}

func (d fullDraft) Commit() error {
	if err := d.blobs.refuse("commit"); err != nil {
		return err
	}
	return d.Draft.Commit()
}

// A row about a disk that refuses what is written while a client pulls content
// that nobody has pulled before.
type roomRow struct {
	name string
	// refuse makes the disk refuse. Afterwards room returns.
	refuse func(t *testing.T, s *setup) (mend func())
	// kept says whether the content is kept all the same, counted whether it
	// counts as not kept.
	kept, counted bool
}

func roomRows() []roomRow {
	full := fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)
	blobs := func(at string, why error) func(*testing.T, *setup) func() {
		return func(_ *testing.T, s *setup) func() {
			var refuses atomic.Bool
			refuses.Store(true)
			s.options = func(o *pulling.Options) { o.Blobs = fullBlobs{o.Blobs, at, &refuses, why} }
			return func() { refuses.Store(false) }
		}
	}
	return []roomRow{
		{name: "no room for a draft", refuse: blobs("create", full), counted: true},
		{name: "no room in the middle of a draft", refuse: blobs("write", full), counted: true},
		{name: "an I/O error in the middle of a draft", refuse: blobs("write", syscall.EIO), counted: true},
		{name: "no room when a draft is synced", refuse: blobs("commit", full), counted: true},
		{name: "an error when a draft is renamed", refuse: blobs("commit", syscall.EIO), counted: true},
		{name: "no room for a draft, until something is evicted", refuse: untilDeleted("create", full), kept: true},
		{name: "no room in the middle of a draft, until something is evicted", refuse: untilDeleted("write", full), kept: true},
		{name: "a quota that is reached, until something is evicted", refuse: untilDeleted("write", fmt.Errorf("%w: %w", cache.ErrFull, syscall.EDQUOT)), kept: true},
		{name: "no inode for a folder, until something is evicted", refuse: untilDeleted("commit", full), kept: true},
		{name: "no room for the records", refuse: fullJournal, kept: true},
		{name: "no room for drafts, records and the log", refuse: func(t *testing.T, s *setup) func() {
			mendDrafts, mendJournal := blobs("create", full)(t, s), fullJournal(t, s)
			device := openFull(t)
			drafts := s.options
			s.options = func(o *pulling.Options) {
				drafts(o)
				o.Logger = slog.New(slog.NewTextHandler(device, nil))
			}
			return func() { mendDrafts(); mendJournal() }
		}, counted: true},
	}
}

// untilDeleted makes a disk refuse until content is deleted from it.
func untilDeleted(at string, why error) func(*testing.T, *setup) func() {
	return func(_ *testing.T, s *setup) func() {
		var refuses atomic.Bool
		refuses.Store(true)
		s.options = func(o *pulling.Options) { o.Blobs = relieved{fullBlobs{o.Blobs, at, &refuses, why}} }
		return func() { refuses.Store(false) }
	}
}

// relieved is a full cache that has room once something is deleted.
type relieved struct{ fullBlobs }

func (b relieved) Delete(ctx context.Context, d cache.Digest) error {
	b.refuses.Store(false)
	return b.fullBlobs.Delete(ctx, d)
}

// fullJournal lets the kernel refuse what is appended to the records' journal,
// without which no record is written.
func fullJournal(t *testing.T, s *setup) func() {
	t.Helper()
	journal := filepath.Join(s.dir, "records.journal")
	aside := filepath.Join(t.TempDir(), "records.journal")
	had := os.Rename(journal, aside) == nil
	if err := os.Symlink("/dev/full", journal); err != nil {
		t.Fatal(err)
	}
	return func() {
		err := os.Remove(journal)
		if had && err == nil {
			err = os.Rename(aside, journal)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func openFull(t *testing.T) *os.File {
	t.Helper()
	device, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return device
}

func diskFaults(t *testing.T) string {
	var room, damage faultLines
	t.Run("room", func(t *testing.T) {
		for i, row := range roomRows() {
			for j, target := range []string{"blob", "manifest"} {
				t.Run(row.name+", "+target, func(t *testing.T) {
					t.Parallel()
					sees, kept, counted, mended := runRoom(t, row, target)
					if sees != sound || kept != row.kept || counted != row.counted || !mended {
						t.Errorf("the client saw %s, kept %v, counted %v, mended %v", sees, kept, counted, mended)
					}
					room.add(2*i+j, row.name, target, sees, yes(kept), yes(counted), yes(mended))
				})
			}
		}
	})
	t.Run("damage", func(t *testing.T) {
		for i, row := range damageRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				columns := runDamage(t, row)
				for j, want := range row.want {
					if columns[j] != want {
						t.Errorf("column %d is %q, want %q", j, columns[j], want)
					}
				}
				damage.add(i, append([]string{row.name}, columns...)...)
			})
		}
	})
	return "## The disk\n\nThe content has never been pulled. \"Counted\" means in `entrepot_cache_bypass_total`. Once there is room again, the next pull through the " +
		"same process is cached, and the next process serves it without an upstream.\n\n" +
		room.table("the disk has", "for a", "the client sees", "cached", "counted", "recovers") +
		"\nA complete image has been pulled, and the process has ended. The next start finds:\n\n" +
		damage.table("found", "with the upstream the client sees", "blobs downloaded again", "complete afterwards", "without the upstream the client sees")
}

// watched counts what a mirror does.
type watched struct {
	bypassed atomic.Int64
	landed   chan struct{} // one for each download that has ended
}

func watch(s *setup) *watched {
	w := &watched{landed: make(chan struct{}, 16)}
	before := s.options
	s.options = func(o *pulling.Options) {
		if before != nil {
			before(o)
		}
		o.Events.Bypassed = func(string) { w.bypassed.Add(1) }
		o.Events.Flights = func(delta int) {
			if delta < 0 {
				w.landed <- struct{}{}
			}
		}
	}
	return w
}

func runRoom(t *testing.T, row roomRow, target string) (sees string, kept, counted, mended bool) {
	const size = 300 << 10
	fake := upstreamtest.New(t)
	manifest, m := fake.AddImage("app", "1", upstreamtest.Bytes(1, size))
	s := setup{dir: t.TempDir()}
	path, d := "/v2/app/manifests/1", manifest.Digest
	fake.AddImage("old", "1", upstreamtest.Bytes(2, size)) // which may be evicted
	first := newMirror(t, fake, s)
	if a := first.get("/v2/old/manifests/1"); a.status != http.StatusOK {
		t.Fatalf("the older manifest: %d %s", a.status, a.body)
	}
	if target == "blob" {
		path, d = "/v2/app/blobs/"+m.Layers[0].Digest.String(), m.Layers[0].Digest
		if a := first.get("/v2/app/manifests/1"); a.status != http.StatusOK {
			t.Fatalf("the manifest: %d %s", a.status, a.body)
		}
	}
	first.stop()
	mend := row.refuse(t, &s)
	w := watch(&s)
	mir := newMirror(t, fake, s)
	pulls := func() string {
		sees := outcome(mir.get(path), d)
		if target == "blob" && !mir.keeps(d) {
			<-w.landed
		}
		return sees
	}
	sees = pulls()
	kept, counted = mir.keeps(d), w.bypassed.Load() > 0
	mend()
	if err := mir.store.Records().Flush(t.Context()); err != nil {
		t.Errorf("the records, once there is room: %v", err)
	}
	again := pulls()
	keptNow := mir.keeps(d)
	mir.stop()
	fake.Stop()
	next := newMirror(t, fake, setup{dir: s.dir})
	return sees, kept, counted, again == sound && keptNow && outcome(next.get(path), d) == sound
}

// outcome is what a client saw of content with digest d.
func outcome(a errorResponse, d pull.Digest) string {
	switch {
	case a.status == http.StatusOK && a.broken != nil:
		return broken
	case a.status == http.StatusOK && d.Algorithm().FromBytes(a.body) == d:
		return sound
	case a.status == http.StatusOK:
		return "200, wrong bytes"
	case a.broken != nil:
		return fmt.Sprintf("no answer: %v", a.broken)
	}
	return fmt.Sprintf("%d %s", a.status, a.code)
}

// A row about what a start finds.
type damageRow struct {
	name   string
	damage func(t *testing.T, dir string, manifest, layer pull.Digest)
	// scrub says that everything is hashed before the client comes, large that
	// the layer has several pieces.
	scrub, large bool
	want         []string
}

func damageRows() []damageRow {
	change := func(which string, by func(t *testing.T, path string)) func(*testing.T, string, pull.Digest, pull.Digest) {
		return func(t *testing.T, dir string, manifest, layer pull.Digest) {
			d := layer
			if which == "manifest" {
				d = manifest
			}
			by(t, filepath.Join(dir, "blobs", "sha256", d.Encoded()[:2], d.Encoded()))
		}
	}
	must := func(t *testing.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	shorten := func(t *testing.T, path string) {
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, info.Size()/2))
	}
	flipAt := func(off int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) { must(t, flipBit(path, off)) }
	}
	flip := flipAt(50)
	both := func(one, two func(t *testing.T, path string)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) { one(t, path); two(t, path) }
	}
	removeSums := func(t *testing.T, path string) { must(t, os.Remove(path+".sums")) }
	remove := func(t *testing.T, path string) { must(t, os.Remove(path)) }
	records := func(names ...string) func(*testing.T, string, pull.Digest, pull.Digest) {
		return func(t *testing.T, dir string, _, _ pull.Digest) {
			for _, name := range names {
				remove(t, filepath.Join(dir, name))
			}
		}
	}
	const refetched, cut = "502 UNAVAILABLE of the blob", broken + " of the blob"
	return []damageRow{
		{name: "a blob of the wrong size", damage: change("layer", shorten), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a blob with a wrong bit, after a scrub", scrub: true, damage: change("layer", flip), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a blob with a wrong bit, before any scrub", damage: change("layer", flip), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a large blob with a wrong bit at its start", large: true, damage: change("layer", flip), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a large blob with a wrong bit in its middle", large: true, damage: change("layer", flipAt(largeLayer/2)), want: []string{"all of it", "a part of that one", "yes", cut}},
		{name: "a large blob with a wrong bit at its end", large: true, damage: change("layer", flipAt(largeLayer-1)), want: []string{"all of it", "a part of that one", "yes", cut}},
		{name: "a large blob with two wrong bits", large: true, damage: change("layer", both(flipAt(largeLayer-1), flipAt(largeLayer/2))), want: []string{"all of it", "a part of that one", "yes", cut}},
		{name: "a large blob without checksums", large: true, damage: change("layer", removeSums), want: []string{"all of it", "none", "yes", "all of it"}},
		{name: "a large blob without checksums, with a wrong bit", large: true, damage: change("layer", both(removeSums, flipAt(largeLayer/2))), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a large blob whose checksums are damaged", large: true, damage: change("layer", func(t *testing.T, path string) { must(t, flipBit(path+".sums", 30)) }), want: []string{"all of it", "none", "yes", "all of it"}},
		{name: "a blob that is gone", damage: change("layer", remove), want: []string{"all of it", "that one", "yes", refetched}},
		{name: "a manifest of the wrong size", damage: change("manifest", shorten), want: []string{"all of it", "none", "yes", "502 UNAVAILABLE of the manifest"}},
		{name: "a manifest with a wrong bit", damage: change("manifest", flip), want: []string{"all of it", "none", "yes", "502 UNAVAILABLE of the manifest"}},
		{name: "records that are damaged", damage: func(t *testing.T, dir string, _, _ pull.Digest) {
			must(t, os.WriteFile(filepath.Join(dir, "records.db"), []byte(strings.Repeat("damage", 10_000)), 0o600))
		}, want: []string{"all of it", "none", "yes", "all of it"}},
		{name: "no records", damage: records("records.db"), want: []string{"all of it", "none", "yes", "all of it"}},
		{name: "no records, and no journal of them", damage: records("records.db", "records.journal"), want: []string{"all of it", "none", "yes", "502 UNAVAILABLE of the manifest"}},
		{name: "half a line at the end of the journal, and no records", damage: func(t *testing.T, dir string, _, _ pull.Digest) {
			remove(t, filepath.Join(dir, "records.db"))
			journal, err := os.OpenFile(filepath.Join(dir, "records.journal"), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = journal.WriteString(`5d2f1a09 put "tag" "hub.te`)
			must(t, err)
			must(t, journal.Close())
		}, want: []string{"all of it", "none", "yes", "all of it"}},
		{name: "a draft left by a crash", damage: func(t *testing.T, dir string, _, _ pull.Digest) {
			must(t, os.WriteFile(filepath.Join(dir, "drafts", "0123456789ab-1"), make([]byte, 1000), 0o600))
		}, want: []string{"all of it", "none", "yes", "all of it"}},
	}
}

// largeLayer is the size of a layer of several pieces, the last one short.
const largeLayer = 1<<20 + 100_000

// flipBit turns a bit over in a file.
func flipBit(path string, off int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, off); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = file.WriteAt(b, off)
	return err
}

func runDamage(t *testing.T, row damageRow) []string {
	with, fetched, whole := runDamaged(t, row, true)
	without, _, _ := runDamaged(t, row, false)
	return []string{with, fetched, yes(whole), without}
}

func runDamaged(t *testing.T, row damageRow, upstream bool) (sees, fetched string, whole bool) {
	t.Helper()
	fake := upstreamtest.New(t)
	size := 200 << 10
	if row.large {
		size = largeLayer
	}
	manifest, m := fake.AddImage("app", "1", upstreamtest.Bytes(1, size))
	s := setup{dir: t.TempDir()}
	w := watch(&s)
	first := newMirror(t, fake, s)
	if sees := pullAll(first, manifest, m); sees != "all of it" {
		t.Fatalf("at first: %s", sees)
	}
	for range 2 {
		<-w.landed
	}
	first.stop()
	row.damage(t, s.dir, manifest.Digest, m.Layers[0].Digest)
	before := fake.BlobBytes()
	if !upstream {
		fake.Stop()
	}
	mir := newMirror(t, fake, s)
	if left, err := os.ReadDir(filepath.Join(s.dir, "drafts")); err != nil || len(left) > 0 {
		t.Errorf("drafts are left: %v, %v", left, err)
	}
	if row.scrub {
		scrub(t, mir, m.Layers[0].Digest)
	}
	sees = pullAll(mir, manifest, m)
	mir.stop()
	switch again := fake.BlobBytes() - before; {
	case again == 0:
		fetched = "none"
	case again == m.Layers[0].Size:
		fetched = "that one"
	case again < m.Layers[0].Size:
		fetched = "a part of that one"
	default:
		fetched = fmt.Sprintf("%d bytes", again)
	}
	fake.Stop()
	whole = pullAll(newMirror(t, fake, setup{dir: s.dir}), manifest, m) == "all of it"
	return sees, fetched, whole
}

// pullAll pulls an image, and says what a client sees of the first part that
// it can't have.
func pullAll(mir *mirror, manifest ocispec.Descriptor, m ocispec.Manifest) string {
	if sees := outcome(mir.get("/v2/app/manifests/1"), manifest.Digest); sees != sound {
		return sees + " of the manifest"
	}
	for _, part := range append(m.Layers, m.Config) {
		if sees := outcome(mir.get("/v2/app/blobs/"+part.Digest.String()), part.Digest); sees != sound {
			return sees + " of the blob"
		}
	}
	return "all of it"
}

// scrub hashes everything that is kept, which finds one thing damaged.
func scrub(t *testing.T, mir *mirror, damaged pull.Digest) {
	t.Helper()
	nothing, err := memory.NewContent(0)
	if err != nil {
		t.Fatal(err)
	}
	m := pulling.New(pulling.Options{Blobs: mir.store.Blobs(), Records: mir.store.Records(), Memory: nothing, Logger: slog.New(slog.DiscardHandler)})
	m.Start()
	defer m.Close()
	s, err := m.Retention.Scrub(t.Context(), 0, nil)
	if err != nil || len(s.Damaged) != 1 || s.Damaged[0] != damaged {
		t.Errorf("scrubbed: %+v, %v", s, err)
	}
}
