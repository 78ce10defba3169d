package referrers

import (
	"errors"
	"slices"
	"testing"
)

func TestAttestations(t *testing.T) {
	entry := func(digest, kind, of string) string {
		return `{"mediaType":"` + ociManifest + `","digest":"` + digest + `","size":7,"annotations":{"vnd.docker.reference.type":"` + kind + `","vnd.docker.reference.digest":"` + of + `"},"platform":{"architecture":"unknown","os":"unknown"}}`
	}
	plain := `{"mediaType":"` + ociManifest + `","digest":"` + one + `","size":5,"platform":{"architecture":"amd64","os":"linux"}}`
	for _, c := range []struct {
		name, entries string
		want          []string
	}{
		{"an entry that BuildKit attached to its image", plain + `,` + entry(two, "attestation-manifest", one), []string{two + " of " + one}},
		{"two of one image", plain + `,` + entry(two, "attestation-manifest", one) + `,` + entry(three, "attestation-manifest", one), []string{two + " of " + one, three + " of " + one}},
		{"an image alone has none", plain, nil},
		{"an entry of another type is none", plain + `,` + entry(two, "something", one), nil},
		{"an image outside of the index is not spoken for", plain + `,` + entry(two, "attestation-manifest", image), nil},
		{"an entry is not its own attestation", plain + `,` + entry(two, "attestation-manifest", two), nil},
		{"a reference that is no digest is none", plain + `,` + entry(two, "attestation-manifest", "latest"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Attestations(Parse([]byte(`{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + c.entries + `]}`)))
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, a := range got {
				found = append(found, a.Entry.Digest.String()+" of "+a.Subject.String())
				if a.Entry.Size != 7 || a.Entry.MediaType != ociManifest || a.Entry.Platform == nil || a.Entry.Platform.OS != "unknown" {
					t.Errorf("the entry is not as the index has it: %+v", a.Entry)
				}
			}
			if !slices.Equal(found, c.want) {
				t.Fatalf("got %q, want %q", found, c.want)
			}
		})
	}
	if _, err := Attestations(Parse([]byte(`{"layers":[]}`))); !errors.Is(err, ErrMalformed) {
		t.Errorf("an image: got %v, want ErrMalformed", err)
	}
}
