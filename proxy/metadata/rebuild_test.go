package metadata_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
)

func TestMembersAreRebuiltHoweverManyManifestsARepositoryHas(t *testing.T) {
	ledger, records := newLedger(t)
	const many = 2500
	large := metadata.Repository{Upstream: "hub", Name: "large"}
	put := func(repo metadata.Repository, d metadata.Digest, i int) {
		ledger.PutManifest(repo, d, metadata.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Size: 100,
			Blobs: []metadata.Descriptor{{Digest: of(fmt.Sprint("blob ", i)), Size: int64(i)}, {Digest: of(fmt.Sprint("foreign ", i)), URLs: []string{"https://example.com"}}},
		})
	}
	for i := range many {
		put(large, of(fmt.Sprint("manifest ", i)), i)
	}
	put(large, digest.SHA512.FromString("manifest"), many)
	put(app, of("manifest"), many+1)
	var lost []string
	if err := records.Scan("member", "", func(key string, _ []byte) bool {
		lost = append(lost, key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, key := range lost {
		records.Delete("member", key)
	}
	again := metadata.New(records, nil)
	if n, err := again.RebuildMembers(t.Context()); n != many+2 || err != nil {
		t.Fatalf("%d manifests, %v", n, err)
	}
	found := 0
	if err := records.Scan("member", "", func(string, []byte) bool {
		found++
		return true
	}); err != nil || found != len(lost) {
		t.Errorf("%d members of %d, %v", found, len(lost), err)
	}
	if m, ok := again.Member(large, of("blob 1234")); !ok || m.Size != 1234 {
		t.Errorf("%+v, %t", m, ok)
	}
	if _, ok := again.Member(app, of("blob 1234")); ok {
		t.Error("a blob of another repository is a member")
	}
}

// 12.10: what an index attaches is on record again after a rebuild, though only
// the manifests themselves were kept.
func TestWhatIndexesAttachIsRebuilt(t *testing.T) {
	ledger, records := newLedger(t)
	marks := map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of("image").String()}
	ledger.PutManifest(app, of("index"), metadata.Manifest{MediaType: ocispec.MediaTypeImageIndex, Size: 100, Children: []metadata.Descriptor{
		{MediaType: ocispec.MediaTypeImageManifest, Digest: of("image"), Size: 1},
		{MediaType: ocispec.MediaTypeImageManifest, Digest: of("attestation"), Size: 2, Annotations: marks},
	}})
	again := metadata.New(records, nil)
	if _, err := again.RebuildMembers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := again.Attached(app, of("image")); len(got) != 1 || got[0].Digest != of("attestation") || got[0].Size != 2 {
		t.Errorf("attached is %v", got)
	}
	if !again.IsAttestation(app, of("attestation")) || again.IsAttestation(app, of("image")) {
		t.Error("the attestation is not known as one")
	}
}
