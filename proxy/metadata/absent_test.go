package metadata_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
)

func TestWhoAsksForTagsThatDoNotExistDoesNotMakeTheRecordsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := memory.New().Records()
		l := metadata.New(records, nil)
		kept, unkept := metadata.Repository{Upstream: "hub", Name: "app"}, metadata.Repository{Upstream: "hub", Name: "other"}
		image := digest.FromString("image")
		l.PutManifest(kept, image, metadata.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json"})
		for i := range 1000 {
			for _, repo := range []metadata.Repository{kept, unkept} {
				l.PutAbsent(repo, fmt.Sprint("v", i), time.Now())
				l.PutAbsent(repo, "sha256-"+digest.FromString(fmt.Sprint(i)).Encoded()+".att", time.Now())
				l.PutAbsent(repo, fmt.Sprintf("sha256-%s.%d", image.Encoded(), i), time.Now())
			}
			time.Sleep(time.Millisecond)
		}
		n := 0
		for _, bucket := range []cache.Bucket{"absent", "unattached"} {
			if err := records.Scan(bucket, "", func(string, []byte) bool { n++; return true }); err != nil {
				t.Fatal(err)
			}
		}
		if n != 64 {
			t.Errorf("%d are on record", n)
		}
		if !l.IsAbsent(kept, "v999") || l.IsAbsent(kept, "v0") || l.IsAbsent(unkept, "v999") {
			t.Error("other than the last are on record")
		}
	})
}

func TestThatATagDoesNotExistStandsForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := metadata.New(memory.New().Records(), nil)
		repo := metadata.Repository{Upstream: "hub", Name: "app"}
		image := digest.FromString("image")
		att := "sha256-" + image.Encoded() + ".att"
		l.PutManifest(repo, image, metadata.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json"})
		l.PutAbsent(repo, "2", time.Now())
		l.PutAbsent(repo, "3", time.Now().Add(2*time.Hour))
		l.PutAbsent(repo, att, time.Now())
		time.Sleep(time.Hour - 1)
		if !l.IsAbsent(repo, "2") || !l.IsAbsent(repo, att) {
			t.Error("it stands for less than an hour")
		}
		if l.IsAbsent(repo, "3") {
			t.Error("a time in the future is believed")
		}
		time.Sleep(time.Nanosecond)
		if l.IsAbsent(repo, "2") {
			t.Error("it stands for more than an hour")
		}
		// Of what would be attached to a manifest it stands while that is cached.
		if !l.IsAbsent(repo, att) {
			t.Error("that nothing is attached is forgotten before the manifest")
		}
		w := l.Watch()
		w.ForgetUnused([]metadata.ManifestKey{{Repository: repo, Digest: image}}, func(from metadata.Removal) bool {
			from.DropManifest(repo, image, true)
			return true
		})
		w.End()
		if l.HasManifest(repo, image) {
			t.Fatal("the manifest is still on record")
		}
		l.PutManifest(repo, image, metadata.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json"})
		if l.IsAbsent(repo, att) {
			t.Error("that nothing is attached is remembered beyond the manifest")
		}
	})
}

func TestATagThatIsPutExists(t *testing.T) {
	l := metadata.New(memory.New().Records(), nil)
	repo := metadata.Repository{Upstream: "hub", Name: "app"}
	image := digest.FromString("image")
	l.PutManifest(repo, image, metadata.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json"})
	for _, tag := range []string{"1", "sha256-" + image.Encoded() + ".sig"} {
		l.PutAbsent(repo, tag, time.Now())
		if !l.IsAbsent(repo, tag) {
			t.Errorf("%s is not on record", tag)
		}
		l.PutTag(repo, tag, metadata.Tag{Descriptor: metadata.Descriptor{Digest: image}})
		if l.IsAbsent(repo, tag) {
			t.Errorf("%s exists, and is on record as if it did not", tag)
		}
	}
}

// What a mirror remembers that could not ask exists, or did: when that record is
// gone, an older "no" must not come back.
func TestATagThatIsRememberedExists(t *testing.T) {
	l := metadata.New(memory.New().Records(), nil)
	repo := metadata.Repository{Upstream: "hub", Name: "app"}
	image := digest.FromString("image")
	l.PutManifest(repo, image, metadata.Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json"})
	for _, tag := range []string{"1", "sha256-" + image.Encoded() + ".sig"} {
		l.PutAbsent(repo, tag, time.Now())
		l.PutStaleTag(repo, tag, metadata.Tag{Descriptor: metadata.Descriptor{Digest: image}})
		l.DropTag(repo, tag)
		if l.IsAbsent(repo, tag) {
			t.Errorf("%s exists, and is on record as if it did not", tag)
		}
	}
}
