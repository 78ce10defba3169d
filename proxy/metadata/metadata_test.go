package metadata_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

var app = metadata.Repository{Upstream: "hub", Name: "app"}

func referrer(name string) metadata.Descriptor {
	return metadata.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: of(name), Size: 7}
}

func of(name string) metadata.Digest { return digest.FromString(name) }

// image is a manifest that references two blobs and a child.
var image = metadata.Manifest{
	MediaType: ocispec.MediaTypeImageManifest, Size: 100,
	Blobs:    []metadata.Descriptor{{Digest: of("config"), Size: 2}, {Digest: of("layer"), Size: 30}},
	Children: []metadata.Descriptor{{Digest: of("child"), Size: 50}},
}

func newLedger(t *testing.T) (*metadata.Ledger, cache.Records) {
	t.Helper()
	store, err := disk.Open(t.TempDir(), disk.Options{Journal: metadata.Durable()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return metadata.New(store.Records(), func(_ metadata.Repository, ref string) bool { return ref == "stays" }), store.Records()
}

// slow calls during after each read of a record, before it returns the record.
type slow struct {
	cache.Records
	during func()
}

func (s slow) Get(b cache.Bucket, key string) ([]byte, error) {
	value, err := s.Records.Get(b, key)
	s.during()
	return value, err
}

func TestADecodedCopyIsNeverOlderThanTheRecord(t *testing.T) {
	_, records := newLedger(t)
	changes := map[string]func(l *metadata.Ledger){
		"a tag that moves": func(l *metadata.Ledger) {
			l.PutTag(app, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("new")}})
		},
		"a tag that goes":      func(l *metadata.Ledger) { l.DropTag(app, "1") },
		"a repository":         func(l *metadata.Ledger) { l.DropRepository(app) },
		"a manifest's content": func(l *metadata.Ledger) { l.PutManifest(app, of("image"), metadata.Manifest{MediaType: "other"}) },
		"a blob's size":        func(l *metadata.Ledger) { l.PutMember(app, of("layer"), metadata.Member{Size: 31}) },
		"a list": func(l *metadata.Ledger) {
			l.PutReferrers(app, of("image"), metadata.Referrers{At: time.Unix(5, 0)})
		},
		"what was seen since": func(l *metadata.Ledger) {
			l.PutSeen(app, of("image"), metadata.Descriptor{Digest: of("signature")})
		},
		"an eviction": func(l *metadata.Ledger) {
			w := l.Watch()
			defer w.End()
			w.Forget(func(from metadata.Removal) {
				from.DropTagAt(app, "1", of("image"))
				from.DropManifest(app, of("image"), true)
				from.DropMember(app, of("layer"))
			})
		},
	}
	for _, first := range []string{"tag", "manifest", "member", "referrers"} {
		t.Run("a read of a "+first+" that a change overtakes", func(t *testing.T) {
			for name, change := range changes {
				before := metadata.New(records, nil)
				before.PutTag(app, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("image")}})
				before.PutManifest(app, of("image"), image)
				before.PutReferrers(app, of("image"), metadata.Referrers{At: time.Unix(4, 0)})
				var l *metadata.Ledger
				var changed atomic.Bool
				l = metadata.New(slow{records, func() {
					if changed.CompareAndSwap(false, true) {
						change(l)
					}
				}}, nil)
				switch first {
				case "tag":
					l.Tag(app, "1")
				case "manifest":
					l.Manifest(app, of("image"))
				case "member":
					l.Member(app, of("layer"))
				case "referrers":
					l.Referrers(app, of("image"))
				}
				if err := l.Check(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				again := metadata.New(records, nil)
				if got, want := fmt.Sprint(l.Referrers(app, of("image"))), fmt.Sprint(again.Referrers(app, of("image"))); got != want {
					t.Errorf("%s: referrers are %s in memory, and %s on record", name, got, want)
				}
				again.DropRepository(app)
			}
		})
	}
}

func TestAManifestThatWasFoundIsNotForgottenByAnEarlierWatch(t *testing.T) {
	named := []metadata.ManifestKey{{Repository: app, Digest: of("image")}}
	forget := func(from metadata.Removal) bool {
		from.DropManifest(app, of("image"), true)
		return true
	}
	for name, use := range map[string]func(l *metadata.Ledger){
		"found":  func(l *metadata.Ledger) { l.Find(app, of("image")) },
		"used":   func(l *metadata.Ledger) { l.UseManifest(app, of("image")) },
		"leased": func(l *metadata.Ledger) { l.Lease(image, of("image"))() },
		"leased as a part": func(l *metadata.Ledger) {
			l.Lease(metadata.Manifest{Children: []metadata.Descriptor{{Digest: of("image")}}}, of("index"))()
		},
		"pointed at": func(l *metadata.Ledger) {
			l.PutTag(app, "2", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("image")}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := newLedger(t)
			l.PutManifest(app, of("image"), image)
			w := l.Watch()
			use(l)
			if w.ForgetUnused(named, forget) {
				t.Error("it was forgotten")
			}
			if _, ok := l.Find(app, of("image")); !ok {
				t.Error("it is not on record")
			}
			w.End()
			w = l.Watch() // the manifest was not used since
			defer w.End()
			if !w.ForgetUnused(named, forget) {
				t.Error("it was not forgotten")
			}
			if _, ok := l.Find(app, of("image")); ok {
				t.Error("it is still on record")
			}
		})
	}
	t.Run("read before, and forgotten before its use is noted", func(t *testing.T) {
		before, records := newLedger(t)
		before.PutManifest(app, of("image"), image)
		var l *metadata.Ledger
		var begun atomic.Bool
		l = metadata.New(slow{records, func() {
			if !begun.CompareAndSwap(false, true) {
				return // the removal itself reads
			}
			w := l.Watch()
			defer w.End()
			w.ForgetUnused(named, forget)
		}}, nil)
		if _, ok := l.Find(app, of("image")); ok {
			t.Error("it is found, and its content may go")
		}
	})
}

func TestALeaseWaitsForARemovalThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLedger(t)
		w := l.Watch()
		defer w.End()
		begun, goOn := make(chan struct{}), make(chan struct{})
		var removed atomic.Bool
		go w.Remove(of("layer"), func() bool {
			close(begun)
			<-goOn
			removed.Store(true)
			return true
		})
		<-begun
		leased := make(chan bool)
		go func() {
			defer l.Lease(image, of("image"))()
			leased <- removed.Load()
		}()
		synctest.Wait()
		select {
		case <-leased:
			t.Fatal("it is leased while its layer is being removed")
		default:
		}
		close(goOn)
		if !<-leased {
			t.Error("it was leased before its layer was removed")
		}
		if w.Remove(of("layer"), func() bool { return true }) {
			t.Error("what was leased since the watch began was removed")
		}
		if !w.Remove(of("another"), func() bool { return true }) {
			t.Error("content without a lease was not removed")
		}
	})
}

func TestALeaseTakenBeforeTheWatchCounts(t *testing.T) {
	l, _ := newLedger(t)
	release := l.Lease(image, of("image"))
	w := l.Watch()
	defer w.End()
	release()
	for _, part := range []string{"image", "config", "layer", "child"} {
		if w.Remove(of(part), func() bool { return true }) {
			t.Errorf("%s was removed", part)
		}
	}
}

func TestAManifestWithThousandsOfReferencesIsNotHeldInMemory(t *testing.T) {
	l, records := newLedger(t)
	many := metadata.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	for i := range 5000 {
		many.Blobs = append(many.Blobs, metadata.Descriptor{Digest: of(fmt.Sprint(i)), Size: 1})
	}
	l.PutManifest(app, of("image"), many)
	if got, ok := l.Manifest(app, of("image")); !ok || len(got.Blobs) != len(many.Blobs) {
		t.Fatalf("it names %d blobs, %t", len(got.Blobs), ok)
	}
	records.Delete("manifest", metadata.Key(app, of("image").String())) // unseen by the ledger
	if _, ok := l.Manifest(app, of("image")); ok {
		t.Error("it is decoded in memory")
	}
}

func TestUsesAreSavedPeriodicallyAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := disk.Open(t.TempDir(), disk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		l := metadata.New(store.Records(), nil)
		ctx, end := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { defer close(over); l.Run(ctx) }()
		for i := range 1000 {
			l.UseBlob(of(fmt.Sprint(i)))
		}
		noted := time.Now()
		time.Sleep(15 * time.Second)
		saved := metadata.New(store.Records(), nil)
		for i := range 1000 {
			if at := saved.BlobUse(of(fmt.Sprint(i))); at != noted.UnixNano() {
				t.Fatalf("blob %d was used at %d, want %d", i, at, noted.UnixNano())
			}
		}
		l.UseManifest(app, of("image"))
		if at := saved.ManifestUse(app, of("image")); at != 0 {
			t.Errorf("it is saved at once, as %d", at)
		}
		end()
		<-over
		if at := saved.ManifestUse(app, of("image")); at != time.Now().UnixNano() {
			t.Errorf("the last use is %d, want %d", at, time.Now().UnixNano())
		}
	})
}

func TestAnImageIsPinnedByTheConfigurationOrByACommand(t *testing.T) {
	l, _ := newLedger(t)
	l.PutPin(metadata.Reference{Repository: app, Ref: "2"})
	l.PutPin(metadata.Reference{Repository: app, Ref: "1"})
	l.DropPin(metadata.Reference{Repository: app, Ref: "1"})
	for ref, want := range map[string]bool{"stays": true, "2": true, "1": false} {
		if got := l.IsPinned(app, ref); got != want {
			t.Errorf("%s is pinned: %t", ref, got)
		}
	}
	pins, err := l.Pins()
	if err != nil || len(pins) != 1 || pins[0].String() != "hub/app:2" {
		t.Errorf("pins are %v, %v", pins, err)
	}
}

func TestDroppingARepositoryLeavesItsPins(t *testing.T) {
	l, records := newLedger(t)
	other := metadata.Repository{Upstream: "hub", Name: "app2"}
	for _, repo := range []metadata.Repository{app, other} {
		l.PutManifest(repo, of("image"), image)
		l.PutTag(repo, "1", metadata.Tag{Descriptor: metadata.Descriptor{Digest: of("image")}})
		l.PutTagList(repo, []string{"1"})
		l.PutReferrers(repo, of("image"), metadata.Referrers{})
		l.PutSeen(repo, of("image"), metadata.Descriptor{Digest: of("signature")})
		l.PutAttached(repo, of("image"), metadata.Descriptor{Digest: of("attestation")})
		l.PutAttestation(repo, of("attestation"))
		l.UseManifest(repo, of("image"))
		l.PutPin(metadata.Reference{Repository: repo, Ref: "1"})
	}
	l.SaveUses()
	l.DropRepository(app)
	left := map[cache.Bucket]int{}
	for _, b := range []cache.Bucket{"tag", "checked", "manifest", "member", "taglist", "referrers", "passed", "attached", "attestation", "used", "pin"} {
		if err := records.Scan(b, metadata.Key(app, ""), func(string, []byte) bool { left[b]++; return true }); err != nil {
			t.Fatal(err)
		}
		there := 0
		if err := records.Scan(b, metadata.Key(other, ""), func(string, []byte) bool { there++; return true }); err != nil || there == 0 {
			t.Errorf("%s of another repository is gone, %v", b, err)
		}
	}
	if len(left) != 1 || left["pin"] != 1 {
		t.Errorf("%v is left", left)
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

// A use in the future says nothing: the clock was wrong then or is wrong now.
func TestAUseInTheFutureIsNoUse(t *testing.T) {
	l, records := newLedger(t)
	for ahead, want := range map[time.Duration]bool{-time.Hour: true, time.Minute: true, 2 * time.Hour: false, 24 * 365 * time.Hour: false} {
		at := time.Now().Add(ahead).UnixNano()
		raw := binary.BigEndian.AppendUint64(nil, uint64(at))
		records.Put("used", of("layer").String(), raw)
		records.Put("used", metadata.Key(app, of("image").String()), raw)
		for what, got := range map[string]int64{"blob": l.BlobUse(of("layer")), "manifest": l.ManifestUse(app, of("image"))} {
			if (got == at) != want || !want && got != 0 {
				t.Errorf("a %s that was used in %s: %d", what, ahead, got)
			}
		}
	}
}
