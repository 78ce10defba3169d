package metadata_test

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// 12.15: a list from before an index showed what it attaches is not fresh.
func TestAListIsDueOnceAnIndexAttachesMore(t *testing.T) {
	l, _ := newLedger(t)
	attached := metadata.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: of("attestation"), Size: 2}
	isDue := func() bool {
		rec, ok := l.Referrers(app, of("image"))
		if !ok {
			t.Fatal("the list is lost")
		}
		return rec.At.IsZero()
	}
	l.PutReferrers(app, of("image"), metadata.Referrers{At: time.Unix(5, 0)})
	l.PutAttached(app, of("image"), attached)
	if !isDue() {
		t.Error("an index attaches something, and the empty list stays fresh")
	}
	// A lookup that asked before the index came cannot make it fresh.
	l.RecordReferrers(app, of("image"), metadata.Referrers{At: time.Unix(6, 0)}, nil)
	if !isDue() {
		t.Error("a lookup that did not know of it makes the empty list fresh")
	}
	l.RecordReferrers(app, of("image"), metadata.Referrers{At: time.Unix(7, 0)}, []metadata.Descriptor{attached})
	l.PutAttached(app, of("image"), attached) // the index is pulled again
	if isDue() {
		t.Error("a lookup that knew of it is not on record")
	}
}

// 12.10: what was seen belongs to the manifest that said it.
func TestWhatWasSeenStaysUntilTheReferrerIsRemoved(t *testing.T) {
	l, _ := newLedger(t)
	l.PutManifest(app, of("image"), metadata.Manifest{MediaType: ocispec.MediaTypeImageManifest})
	l.PutManifest(app, of("signature"), metadata.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: of("image")})
	for _, d := range []string{"signature", "gone already"} {
		l.PutSeen(app, of("image"), metadata.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: of(d)})
	}
	remove := func(d string) {
		w := l.Watch()
		defer w.End()
		w.Forget(func(from metadata.Removal) { from.DropManifest(app, of(d), true) })
	}
	remove("image")
	if got := l.Seen(app, of("image")); len(got) != 1 || got[0].Digest != of("signature") {
		t.Errorf("after the image went, %v was seen", got)
	}
	remove("signature")
	if got := l.Seen(app, of("image")); len(got) != 0 {
		t.Errorf("after the signature went, %v was seen", got)
	}
}

// A stale answer of a parent refreshes nothing (12.11).
func TestAStaleTagIsDueAndChangesNothing(t *testing.T) {
	l, _ := newLedger(t)
	l.PutStaleTag(app, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("image")}})
	if rec, ok := l.Tag(app, "1"); !ok || !rec.CheckedAt.IsZero() {
		t.Errorf("a check is not due: %v, %v", rec, ok)
	}
	l.PutTag(app, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("image")}})
	before, _ := l.Tag(app, "1")
	l.PutStaleTag(app, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("other")}})
	if after, _ := l.Tag(app, "1"); after.Descriptor.Digest != of("image") || !after.CheckedAt.Equal(before.CheckedAt) {
		t.Errorf("it became %v", after)
	}
}

// 12.15: a time in the future, which a wrong clock wrote, is old.
func TestAnAPIThatWasSeenInTheFutureIsNotKnown(t *testing.T) {
	_, records := newLedger(t)
	for when, want := range map[time.Duration]bool{0: true, -24 * time.Hour: true, -8 * 24 * time.Hour: false, 365 * 24 * time.Hour: false} {
		records.Put("api", "hub\x00https://hub", binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(when).Unix())))
		if has, _ := metadata.RememberReferrersAPI(records, "hub", "https://hub"); has != want {
			t.Errorf("seen %s from now: %v", when, has)
		}
	}
}

// TestAListThatIsSentIsTheOneOnRecord: what is held encoded is what would be
// encoded now. Of a long list only the digest is held.
func TestAListThatIsSentIsTheOneOnRecord(t *testing.T) {
	l, _ := newLedger(t)
	referrer := func(name string) metadata.Descriptor {
		return metadata.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: of(name), Size: 2}
	}
	check := func(when string, listed int, long bool) {
		t.Helper()
		r, ok := l.Referrers(app, of("image"))
		want, err := referrers.NewList(r.Manifests)
		if err != nil || !ok || len(r.Manifests) != listed {
			t.Fatalf("%s: %d are listed, want %d (%v, %v)", when, len(r.Manifests), listed, ok, err)
		}
		for _, held := range []bool{false, true} {
			got, ok := l.Listed(app, of("image"))
			if held && long && (!got.List.IsZero() || got.Manifests != nil) {
				t.Errorf("%s: the list is held", when)
			}
			if !held || !long {
				if !ok || !bytes.Equal(got.List.Bytes(), want.Bytes()) || !long && len(got.Manifests) != listed {
					t.Errorf("%s: the list is %s, want %s", when, got.List.Bytes(), want.Bytes())
				}
			}
			if long && got.Digest != digest.FromBytes(want.Bytes()) || !long && got.Digest != "" || got.WasEmpty != r.WasEmpty || !got.At.Equal(r.At) {
				t.Errorf("%s: %s of %s, empty %t", when, got.Digest, got.At, got.WasEmpty)
			}
		}
		if again, ok := l.EncodeReferrers(app, of("image")); !ok || !bytes.Equal(again.List.Bytes(), want.Bytes()) {
			t.Errorf("%s: encoded again it is %s", when, again.List.Bytes())
		}
	}
	at := time.Unix(5, 0)
	l.PutReferrers(app, of("image"), metadata.Referrers{At: at})
	check("none", 0, false)
	l.PutSeen(app, of("image"), referrer("b"))
	check("none, and one that was seen since", 1, false)
	l.DropSeen(app, of("image"), of("b"))
	l.PutReferrers(app, of("image"), metadata.Referrers{Manifests: []metadata.Descriptor{referrer("a")}, At: at})
	check("one", 1, false)
	l.PutSeen(app, of("image"), referrer("b"))
	check("one that was seen since", 2, false)
	l.DropSeen(app, of("image"), of("b"))
	check("it is gone", 1, false)
	var many []metadata.Descriptor
	for i := range 200 {
		many = append(many, referrer(strconv.Itoa(i)))
	}
	l.PutReferrers(app, of("image"), metadata.Referrers{Manifests: many, At: at})
	check("many", len(many), true)
	l.PutSeen(app, of("image"), referrer("b"))
	check("many, and one that was seen since", len(many)+1, true)
	l.PutReferrers(app, of("image"), metadata.Referrers{Manifests: many[:3], At: at})
	check("few", 4, false)
}
