package metadata_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// count is how many records there are in all buckets.
func count(t *testing.T, records cache.Records) (n int) {
	t.Helper()
	for _, b := range []cache.Bucket{"tag", "checked", "manifest", "wide", "member", "taglist", "referrers", "passed", "attached", "attestation", "used"} {
		if err := records.Scan(b, "", func(string, []byte) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestWhoAsksAboutWhatDoesNotExistDoesNotMakeTheRecordsGrow(t *testing.T) {
	l, records := newLedger(t)
	for i := range 10_000 {
		l.RecordReferrers(app, of(fmt.Sprint(i)), metadata.Referrers{At: time.Now()}, nil)
		l.PutTagList(metadata.Repository{Upstream: "hub", Name: fmt.Sprint(i)}, nil)
	}
	if n := count(t, records); n != 0 {
		t.Errorf("there are %d records", n)
	}
	if r, ok := l.Referrers(app, of("9999")); !ok || len(r.Manifests) != 0 || r.At.IsZero() || !r.WasEmpty {
		t.Errorf("the last of them is %+v, %t", r, ok)
	}
	other := metadata.Repository{Upstream: "hub", Name: "9999"}
	if tags, ok := l.TagList(other); !ok || tags == nil || len(tags) != 0 {
		t.Errorf("the last list of tags is %v, %t", tags, ok)
	}
	if l.DropTagList(other); count(t, records) != 0 {
		t.Error("there are records")
	}
	if _, ok := l.TagList(other); ok {
		t.Error("a list that was dropped is there")
	}
	if _, ok := l.Referrers(app, of("0")); ok {
		t.Error("all of them are in memory")
	}
	if _, ok := l.TagList(metadata.Repository{Upstream: "hub", Name: "0"}); ok {
		t.Error("all lists of tags are in memory")
	}
}

func TestAnEmptyAnswerIsOnRecordWithItsManifest(t *testing.T) {
	at := time.Now().Round(time.Second)
	onRecord := func(t *testing.T, records cache.Records) bool {
		t.Helper()
		r, ok := metadata.New(records, nil).Referrers(app, of("image"))
		return ok && r.At.Equal(at)
	}
	t.Run("the answer comes first", func(t *testing.T) {
		l, records := newLedger(t)
		l.RecordReferrers(app, of("image"), metadata.Referrers{At: at}, nil)
		if onRecord(t, records) {
			t.Error("it was recorded before")
		}
		l.PutManifest(app, of("image"), image)
		if !onRecord(t, records) {
			t.Error("it is not on record")
		}
	})
	t.Run("the manifest comes first", func(t *testing.T) {
		l, records := newLedger(t)
		l.PutManifest(app, of("image"), image)
		l.RecordReferrers(app, of("image"), metadata.Referrers{At: at}, nil)
		if !onRecord(t, records) {
			t.Error("it is not on record")
		}
	})
	t.Run("what was listed before is forgotten", func(t *testing.T) {
		l, records := newLedger(t)
		l.RecordReferrers(app, of("image"), metadata.Referrers{At: at, Manifests: []metadata.Descriptor{referrer("a")}}, nil)
		if !onRecord(t, records) {
			t.Error("a list is not on record")
		}
		l.RecordReferrers(app, of("image"), metadata.Referrers{At: at}, nil)
		if r, ok := l.Referrers(app, of("image")); !ok || len(r.Manifests) > 0 {
			t.Errorf("it is %+v, %t", r, ok)
		}
		if onRecord(t, records) {
			t.Error("it is on record still")
		}
	})
	for name, change := range map[string]func(l *metadata.Ledger){
		"an index attaches something": func(l *metadata.Ledger) { l.PutAttached(app, of("image"), referrer("a")) },
		"a list is there":             func(l *metadata.Ledger) { l.DropEmptyReferrers(app, of("image")) },
		"it is purged":                func(l *metadata.Ledger) { l.DropReferrers(app, of("image")) },
		"the repository is purged":    func(l *metadata.Ledger) { l.DropRepository(app) },
	} {
		t.Run("it is forgotten when "+name, func(t *testing.T) {
			l, _ := newLedger(t)
			l.RecordReferrers(app, of("image"), metadata.Referrers{At: at}, nil)
			l.Referrers(app, of("image"))
			change(l)
			if _, ok := l.Referrers(app, of("image")); ok {
				t.Error("it is there still")
			}
		})
	}
}

// wideManifest is an image with many layers.
func wideManifest(layers int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"schemaVersion":2,"config":{"digest":"%s","size":2},"layers":[`, of("config"))
	for i := range layers {
		fmt.Fprintf(&b, `{"digest":"%s","size":%d},`, layer(i), i)
	}
	return []byte(strings.TrimSuffix(b.String(), ",") + "]}")
}

func layer(i int) metadata.Digest {
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return digest.NewDigestFromBytes(digest.SHA256, hash[:])
}

func TestRecordsAreSmallWhateverAManifestNames(t *testing.T) {
	l, records := newLedger(t)
	content := wideManifest(20_000)
	children, blobs, _, more, err := referrers.FirstNames(image.MediaType, referrers.Parse(content))
	if err != nil || !more {
		t.Fatalf("%t, %v", more, err)
	}
	l.PutManifest(app, of("wide"), metadata.Manifest{MediaType: image.MediaType, Size: 7, Children: children, Blobs: blobs, Wide: more})
	bytes := 0
	for _, b := range []cache.Bucket{"manifest", "wide", "member"} {
		if err := records.Scan(b, "", func(key string, value []byte) bool { bytes += len(key) + len(value); return true }); err != nil {
			t.Fatal(err)
		}
	}
	if bytes > 64<<10 {
		t.Errorf("the records of a manifest of %d bytes have %d", len(content), bytes)
	}
	if all := l.WideManifests(app); len(all) != 1 || all[0].Digest != of("wide") || all[0].MediaType != image.MediaType {
		t.Errorf("wide are %+v", all)
	}
	w := l.Watch()
	w.Forget(func(from metadata.Removal) { from.DropManifest(app, of("wide"), true) })
	w.End()
	if n := count(t, records); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestALeaseCoversAllThatAWideManifestNames(t *testing.T) {
	l, _ := newLedger(t)
	names, err := referrers.ReadNameSet(image.MediaType, referrers.Parse(wideManifest(2000)))
	if err != nil || names.Len() != 2001 {
		t.Fatalf("%d, %v", names.Len(), err)
	}
	m := metadata.Manifest{MediaType: image.MediaType, Wide: true, Names: names}
	remove := func(w *metadata.Watch, d metadata.Digest) bool { return w.Remove(d, func() bool { return true }) }

	release := l.Lease(m, of("wide"))
	before := l.Watch()
	if remove(before, layer(1999)) || remove(before, of("config")) || !remove(before, layer(2000)) {
		t.Error("what was leased before the watch is removed, or what was not stays")
	}
	before.End()
	release()
	after := l.Watch()
	if !remove(after, layer(1999)) {
		t.Error("what was released stays")
	}
	release = l.Lease(m, of("wide"))
	release()
	if remove(after, layer(1998)) {
		t.Error("what was leased during the watch is removed")
	}
	after.End()

	removing, leased := make(chan struct{}), make(chan struct{})
	w := l.Watch()
	defer w.End()
	w.Remove(layer(5), func() bool {
		go func() {
			defer close(leased)
			close(removing)
			l.Lease(m, of("wide"))()
		}()
		<-removing
		select {
		case <-leased:
			t.Error("the lease did not wait for a removal that had begun")
		case <-time.After(20 * time.Millisecond):
		}
		return true
	})
	<-leased
}
