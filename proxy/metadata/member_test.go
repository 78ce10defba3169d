package metadata_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
)

var other = metadata.Repository{Upstream: "hub", Name: "other"}

func TestWhatIsNamedIsHeldUnlessItMayBePrivate(t *testing.T) {
	l, _ := newLedger(t)
	layer := of("layer")
	wants := func(when string, repo metadata.Repository, want bool) {
		t.Helper()
		if got := l.Holds(repo, layer); got != want {
			t.Errorf("%s: %s holds it: %v", when, repo, got)
		}
		if err := l.Check(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	wants("at first", app, false)
	l.PutManifest(app, of("image"), image)
	wants("named", app, true)
	if !l.HoldsAll(app, image) || l.HoldsAll(other, image) {
		t.Error("not all that a manifest names is held where it is named")
	}
	l.PutPrivate(layer)
	wants("named, and private", app, false)
	if l.HoldsAll(app, image) {
		t.Error("all that a manifest names is held")
	}
	l.PutHeld(app, layer, metadata.Member{Size: -1})
	wants("the upstream says so", app, true)
	wants("and nothing of another", other, false)
	if m, _ := l.Member(app, layer); m.Size != 30 {
		t.Errorf("the size that the manifest gave is %d", m.Size)
	}
	l.PutManifest(app, of("image"), image)
	wants("named again", app, true)
	l.PutManifest(app, of("second"), metadata.Manifest{MediaType: image.MediaType, Blobs: []metadata.Descriptor{{Digest: layer, Size: 31}}})
	wants("named with another size", app, true)
	l.DropPrivate(layer)
	l.PutManifest(other, of("image"), image)
	wants("no longer private", other, true)
	l.DropRepository(app)
	wants("after a purge", app, false)
	l.PutPrivate(layer)
	l.PutManifest(app, of("image"), image)
	wants("named again after a purge", app, false)
}

func TestAManifestIsHeldWhereItIsCached(t *testing.T) {
	l, _ := newLedger(t)
	l.PutManifest(app, of("image"), metadata.Manifest{MediaType: image.MediaType, Blobs: []metadata.Descriptor{{Digest: of("second")}}})
	l.PutPrivate(of("second"))
	if l.Holds(app, of("second")) {
		t.Error("it is named only")
	}
	l.PutManifest(app, of("second"), image)
	if !l.Holds(app, of("second")) {
		t.Error("it is cached there")
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

func TestOnlyWhatRegistriesVerifyMakesMembers(t *testing.T) {
	for mediaType, want := range map[string]bool{
		ocispec.MediaTypeImageManifest:                              true,
		"application/vnd.docker.distribution.manifest.v2+json":      true,
		"application/vnd.docker.distribution.manifest.v1+prettyjws": true,
		ocispec.MediaTypeImageIndex:                                 false,
		"application/vnd.docker.distribution.manifest.list.v2+json": false,
		"application/vnd.oci.artifact.manifest.v1+json":             false,
		"application/vnd.cncf.oras.artifact.manifest.v1+json":       false,
		"application/vnd.example+json":                              false,
	} {
		l, _ := newLedger(t)
		m := image
		m.MediaType = mediaType
		l.PutManifest(app, of("image"), m)
		if l.Holds(app, of("layer")) != want {
			t.Errorf("%s: its layer is held: %v", mediaType, !want)
		}
		if manifests, err := l.RebuildMembers(context.Background()); err != nil || manifests != 1 || l.Holds(app, of("layer")) != want {
			t.Errorf("%s: after a rebuild its layer is held: %v, %v", mediaType, !want, err)
		}
	}
}

// What the upstream has said of content that may be private is not lost with the
// records: it can't be asked again while it is away. What is private stays that.
func TestWhatTheUpstreamSaidOutlivesTheRecords(t *testing.T) {
	dir := t.TempDir()
	open := func() (*metadata.Ledger, *disk.Cache) {
		t.Helper()
		c, err := disk.Open(dir, disk.Options{Journal: metadata.Durable()})
		if err != nil {
			t.Fatal(err)
		}
		return metadata.New(c.Records(), nil), c
	}
	l, c := open()
	l.PutManifest(app, of("image"), image)
	l.PutManifest(other, of("image"), image)
	l.PutPrivate(of("layer"))
	l.PutHeld(app, of("layer"), metadata.Member{Size: 30})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "records.db")); err != nil {
		t.Fatal(err)
	}
	l, c = open()
	defer c.Close()
	if !c.Rebuilt() {
		t.Fatal("the records were not lost")
	}
	if _, err := l.RebuildMembers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.Holds(app, of("layer")) || l.Holds(other, of("layer")) || !l.Holds(other, of("config")) {
		t.Errorf("app holds it: %v, and other: %v", l.Holds(app, of("layer")), l.Holds(other, of("layer")))
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

// A record of a version before there were named members is what it was: the
// upstream may not be there to ask. What it is can be told from the others.
func TestAMemberOfAnOlderVersionIsHeld(t *testing.T) {
	l, records := newLedger(t)
	key := metadata.Key(app, of("layer").String())
	records.Put("member", key, []byte(`{"Size":30}`))
	l.PutPrivate(of("layer"))
	wants := func(when string, old bool) {
		t.Helper()
		m, known := l.Member(app, of("layer"))
		if !known || m.IsOld() != old || m.Named || m.Size != 30 || !l.Holds(app, of("layer")) {
			t.Errorf("%s: %+v, %t", when, m, known)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	}
	wants("at first", true)
	l.PutManifest(app, of("image"), image)
	wants("named", true)
	l.PutMember(app, of("layer"), metadata.Member{Size: -1})
	wants("the upstream says so", false)
	l.DropOldMember(app, of("layer"))
	wants("what the upstream says is not dropped", false)

	// A version that noted only what must not be lost.
	l, records = newLedger(t)
	records.Put("member", key, []byte(`{"Size":30}`))
	records.Put("held", key, []byte{1})
	wants("what was held", false)

	l, records = newLedger(t)
	records.Put("member", key, []byte(`{"Size":30}`))
	wants("by another process", true)
	l.DropOldMember(app, of("layer"))
	if _, known := l.Member(app, of("layer")); known {
		t.Error("it is not dropped")
	}
}

// Older versions did not note what they fetched with credentials.
func TestWhatOlderVersionsFetchedMayBePrivate(t *testing.T) {
	l, records := newLedger(t)
	const many = 2500 // more than a page
	digest := func(i int) metadata.Digest { return of(fmt.Sprint(i)) }
	public := metadata.Repository{Upstream: "public", Name: "app"}
	for i := range many {
		records.Put("member", metadata.Key(app, digest(i).String()), []byte(`{"Size":30}`))
	}
	for i, member := range []string{`{"Size":30,"Named":true}`, `{"Size":30,"Confirmed":true}`} {
		records.Put("member", metadata.Key(app, digest(many+i).String()), []byte(member))
	}
	records.Put("member", metadata.Key(public, digest(many+2).String()), []byte(`{"Size":30}`))
	if err := l.MarkOld(t.Context(), []string{"hub"}); err != nil {
		t.Fatal(err)
	}
	for i := range many + 3 {
		if got := l.IsPrivate(digest(i)); got != (i < many) {
			t.Fatalf("%d may be private: %t", i, got)
		}
	}
	// Once: what is public later is not marked.
	records.Put("member", metadata.Key(app, digest(many+3).String()), []byte(`{"Size":30}`))
	if err := l.MarkOld(t.Context(), []string{"hub"}); err != nil || l.IsPrivate(digest(many+3)) {
		t.Errorf("marked again, %v", err)
	}
}
