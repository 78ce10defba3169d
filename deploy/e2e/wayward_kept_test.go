package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWhatAnIndexAttachesIsFoundWhateverIsLost: of a registry that knows nothing
// of referrers, only the index and the attestation themselves say what is
// attached. That is still found when the platform's manifest has been purged, and
// when the records were damaged while nothing ran.
func TestWhatAnIndexAttachesIsFoundWhateverIsLost(t *testing.T) {
	s := readSuite(t)
	from := newReferring(t, newReferringKey(t), 1, "", says(apiSays, "404 as text"), says(tagSays, "404"))
	m := s.newReferrersMirror(t)
	text := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {tag_ttl: 1s, referrers_ttl: 1s, negative_ttl: 1s}\nupstreams:\n  - {name: r.example, endpoints: [%q], referrers: {buildkit_attestations: true}}\n",
		m.address, m.admin, filepath.Join(m.dir, "cache"), from.URL())
	if err := os.WriteFile(m.config(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	pulled := func(ref string) []byte {
		t.Helper()
		status, _, body, err := raw(t.Context(), "http://"+m.address+"/v2/r.example/"+referringRepo+"/manifests/"+ref)
		if err != nil || status != 200 {
			t.Fatalf("%s: %d, %v", ref, status, err)
		}
		return body
	}
	var index ocispec.Index
	if err := json.Unmarshal(from.BodyOf(referringRepo, "1"), &index); err != nil || len(index.Manifests) != 2 {
		t.Fatalf("the index lists %d: %v", len(index.Manifests), err)
	}
	platform := index.Manifests[0].Digest.String()
	// Somebody asks before the index has been seen: nothing is known to be attached.
	if status, _, _, err := raw(t.Context(), "http://"+m.address+"/v2/r.example/"+referringRepo+"/referrers/"+platform); err != nil || status != 200 {
		t.Fatalf("asked before: %d, %v", status, err)
	}
	pulled("1")
	dir := s.folder(t)
	isFound := func(when string) {
		t.Helper()
		var said string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			stdout, stderr, err := try(t.Context(), dir, environment(dir), s.tool(t, "oras").program("oras"),
				"discover", "--plain-http", "--format", "json", "--depth", "1", m.address+"/r.example/"+referringRepo+"@"+platform)
			said = fmt.Sprint(stdout, stderr, err)
			switch {
			case err == nil && strings.Contains(stdout, from.attestation.Digest.String()):
				return
			case err == nil:
				t.Fatalf("%s, oras says that the attestation is not there: %s", when, stdout)
			}
		}
		t.Fatalf("%s, oras does not find the attestation: %s", when, said)
	}
	pulled(platform)
	isFound("once the image is pulled")
	if _, stderr, err := try(t.Context(), dir, environment(dir), m.program, "purge", "--config", m.config(), "r.example/"+referringRepo+"@"+platform); err != nil {
		t.Fatalf("purge: %v: %s", err, stderr)
	}
	isFound("when the platform's manifest has been purged")
	m.stop(t)
	records := filepath.Join(m.dir, "cache", "records.db")
	info, err := os.Stat(records)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(records, make([]byte, info.Size()), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	isFound("when the records were damaged")
}
