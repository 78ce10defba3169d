package referrers

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestTheTagSchemaTruncatesAndReplaces(t *testing.T) {
	hex := func(n int) string { return strings.Repeat("0123456789abcdef", n/16) }
	for _, c := range []struct {
		name    string
		subject digest.Digest
		want    []string
	}{
		{"sha256 fits whole (W50)", digest.Digest("sha256:" + hex(64)), []string{"sha256-" + hex(64)}},
		{"sha384 is cut, and whole is a tag too (W50)", digest.Digest("sha384:" + hex(96)), []string{"sha384-" + hex(64), "sha384-" + hex(96)}},
		{"sha512 is cut, and whole would be too long for a tag (W50)", digest.Digest("sha512:" + hex(128)), []string{"sha512-" + hex(64)}},
		{"a long algorithm is cut to 32 (W50)", "multihash+base58.abcdefghijklmnopqrstuvwxyz:QmRZ=x_y-Z",
			[]string{"multihash-base58.abcdefghijklmno-QmRZ-x_y-Z", "multihash-base58.abcdefghijklmnopqrstuvwxyz-QmRZ-x_y-Z"}},
		{"a malformed digest has no tag", "sha256:0123", nil},
		{"what is no digest has no tag", "latest", nil},
		{"nothing has no tag", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := TagForms(c.subject); !slices.Equal(got, c.want) {
				t.Errorf("TagForms: %q, want %q", got, c.want)
			}
			first := ""
			if c.want != nil {
				first = c.want[0]
			}
			if got := TagOf(c.subject); got != first {
				t.Errorf("TagOf: %q, want %q", got, first)
			}
		})
	}
}

func TestSubjectOf(t *testing.T) {
	for _, d := range []digest.Digest{digest.FromString("a"), digest.SHA384.FromString("a")} {
		tag := strings.Replace(d.String(), ":", "-", 1)
		if got, ok := SubjectOf(tag); !ok || got != d {
			t.Errorf("%s: got %q, %v (W57)", tag, got, ok)
		}
	}
	sha256, sha512 := digest.FromString("a").Encoded(), digest.SHA512.FromString("a").Encoded()
	for name, tag := range map[string]string{
		"a cut tag names no one subject (W50)":  "sha512-" + sha512[:64],
		"135 characters are no tag (W50)":       "sha512-" + sha512,
		"a cosign signature is not a list":      "sha256-" + sha256 + ".sig",
		"a shorter hash is none":                "sha256-" + sha256[:63],
		"a longer hash is none":                 "sha256-" + sha256 + "0",
		"capitals are not how digests are told": "sha256-" + strings.ToUpper(sha256),
		"an unknown algorithm has no length":    "blake3-" + sha256,
		"an ordinary tag":                       "v1-alpine",
		"no hash":                               "sha256-",
		"a colon":                               "sha256:" + sha256,
		"nothing":                               "",
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := SubjectOf(tag); ok || got != "" {
				t.Fatalf("%s: got %q", tag, got)
			}
		})
	}
}

func TestCosignTags(t *testing.T) {
	d := digest.FromString("a")
	want := []CosignTag{
		{"sha256-" + d.Encoded() + ".sig", "application/vnd.dev.cosign.artifact.sig.v1+json"},
		{"sha256-" + d.Encoded() + ".att", "application/vnd.dev.cosign.artifact.att.v1+json"},
		{"sha256-" + d.Encoded() + ".sbom", "application/vnd.dev.cosign.artifact.sbom.v1+json"},
	}
	if got := CosignTags(d); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, d := range map[string]digest.Digest{
		"sha512 makes no legal tag":        digest.SHA512.FromString("a"),
		"a character that no tag may hold": "x+y:abc",
		"a malformed digest":               "sha256:abc",
	} {
		t.Run(name, func(t *testing.T) {
			if got := CosignTags(d); got != nil {
				t.Fatalf("got %v, want none", got)
			}
		})
	}
}
