package referrers

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	emptyConfig = `"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2`
	image       = "sha256:73c803930ea3ba1e54bc25c2bdc53edd0284c62ed651fe7b00369da519a3c333"
	subjectJSON = `"subject":{"mediaType":"` + ociManifest + `","digest":"` + image + `","size":16724}`
	someLayer   = `"digest":"sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0","size":326`
)

// shapes are manifests as the tools write them.
var shapes = []struct {
	name         string
	mediaType    string
	raw          string
	artifactType string
	annotations  map[string]string
	refers       bool
}{{
	name:      "a cosign v2 signature names no subject and shows its config's type",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + someLayer + `},
		"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",` + someLayer + `,"annotations":{"dev.cosignproject.cosign/signature":"MEUCIQ=="}}]}`,
	artifactType: "application/vnd.oci.image.config.v1+json",
}, {
	name:      "a cosign v2 attestation names no subject and shows its config's type",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + someLayer + `},
		"layers":[{"mediaType":"application/vnd.dsse.envelope.v1+json",` + someLayer + `,"annotations":{"dev.cosignproject.cosign/signature":"","predicateType":"https://slsa.dev/provenance/v0.2"}}]}`,
	artifactType: "application/vnd.oci.image.config.v1+json",
}, {
	name:      "a cosign v2 SBOM names no subject and shows its config's type",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + someLayer + `},
		"layers":[{"mediaType":"text/spdx+json",` + someLayer + `}]}`,
	artifactType: "application/vnd.oci.image.config.v1+json",
}, {
	name:      "a cosign v3 bundle shows its own type, not the empty config's (W51)",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json",` + emptyConfig + `,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"},
		"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",` + someLayer + `}],
		"annotations":{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://sigstore.dev/cosign/sign/v1","org.opencontainers.image.created":"2025-10-01T12:00:00Z"},
		` + subjectJSON + `,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`,
	artifactType: "application/vnd.dev.sigstore.bundle.v0.3+json",
	annotations: map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
		"org.opencontainers.image.created":  "2025-10-01T12:00:00Z",
	},
	refers: true,
}, {
	name:      "cosign's OCI 1.1 mode shows the type of its config (W51)",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.dev.cosign.artifact.sig.v1+json",` + someLayer + `},
		"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",` + someLayer + `}],` + subjectJSON + `}`,
	artifactType: "application/vnd.dev.cosign.artifact.sig.v1+json",
	refers:       true,
}, {
	name:      "a Notation signature shows the type of its config and its thumbprints (W51)",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.cncf.notary.signature",` + emptyConfig + `},
		"layers":[{"mediaType":"application/jose+json",` + someLayer + `}],` + subjectJSON + `,
		"annotations":{"io.cncf.notary.x509chain.thumbprint#S256":"[\"B7A69A70\"]"}}`,
	artifactType: "application/vnd.cncf.notary.signature",
	annotations:  map[string]string{"io.cncf.notary.x509chain.thumbprint#S256": `["B7A69A70"]`},
	refers:       true,
}, {
	name:      "what oras attach writes shows its own type (W51)",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"doc/example","config":{"mediaType":"application/vnd.oci.empty.v1+json",` + emptyConfig + `,"data":"e30="},
		"layers":[{"mediaType":"text/plain",` + someLayer + `,"annotations":{"org.opencontainers.image.title":"hi.txt"}}],` + subjectJSON + `,
		"annotations":{"org.opencontainers.image.created":"2024-01-01T00:00:00Z"}}`,
	artifactType: "doc/example",
	annotations:  map[string]string{"org.opencontainers.image.created": "2024-01-01T00:00:00Z"},
	refers:       true,
}, {
	name:      "an attestation of BuildKit before 0.32 names no subject",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + someLayer + `},
		"layers":[{"mediaType":"application/vnd.in-toto+json",` + someLayer + `,"annotations":{"in-toto.io/predicate-type":"https://slsa.dev/provenance/v1"}}]}`,
	artifactType: "application/vnd.oci.image.config.v1+json",
}, {
	name:      "an attestation of BuildKit 0.32 refers to its image",
	mediaType: ociManifest,
	raw: `{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"application/vnd.docker.attestation.manifest.v1+json",
		"config":{"mediaType":"application/vnd.oci.empty.v1+json",` + emptyConfig + `,"data":"e30="},
		"layers":[{"mediaType":"application/vnd.in-toto+json",` + someLayer + `}],` + subjectJSON + `}`,
	artifactType: AttestationType,
	refers:       true,
}, {
	name:         "an index with an artifactType shows it",
	mediaType:    ociIndex,
	raw:          `{"schemaVersion":2,"mediaType":"` + ociIndex + `","artifactType":"application/vnd.example.set","manifests":[],` + subjectJSON + `,"annotations":{"a":"b"}}`,
	artifactType: "application/vnd.example.set",
	annotations:  map[string]string{"a": "b"},
	refers:       true,
}, {
	name:      "an index without an artifactType shows none, whatever else it has (W51)",
	mediaType: ociIndex,
	raw:       `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[],"config":{"mediaType":"application/vnd.example",` + someLayer + `},` + subjectJSON + `}`,
	refers:    true,
}, {
	name:         "an OCI artifact manifest shows its own type (W10)",
	mediaType:    "application/vnd.oci.artifact.manifest.v1+json",
	raw:          `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"application/vnd.cncf.notary.signature","blobs":[{"mediaType":"application/jose+json",` + someLayer + `}],` + subjectJSON + `,"annotations":{"k":"v"}}`,
	artifactType: "application/vnd.cncf.notary.signature",
	annotations:  map[string]string{"k": "v"},
	refers:       true,
}, {
	name:         "an ORAS artifact manifest shows its own type (W10)",
	mediaType:    "application/vnd.cncf.oras.artifact.manifest.v1+json",
	raw:          `{"mediaType":"application/vnd.cncf.oras.artifact.manifest.v1+json","artifactType":"sbom/example","blobs":[{"mediaType":"application/json",` + someLayer + `}],` + subjectJSON + `}`,
	artifactType: "sbom/example",
	refers:       true,
}, {
	name:         "a manifest without config shows its own type (W10)",
	mediaType:    ociManifest,
	raw:          `{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"application/vnd.example","layers":[],` + subjectJSON + `}`,
	artifactType: "application/vnd.example",
	refers:       true,
}, {
	name:      "a manifest with neither config nor artifactType shows no type (W10)",
	mediaType: ociManifest,
	raw:       `{"schemaVersion":2,"layers":[],` + subjectJSON + `}`,
	refers:    true,
}, {
	name:         "an empty config is the type where the manifest has none: the spec knows no exception (W51)",
	mediaType:    ociManifest,
	raw:          `{"schemaVersion":2,"artifactType":"","config":{"mediaType":"application/vnd.oci.empty.v1+json",` + emptyConfig + `},"layers":[],` + subjectJSON + `}`,
	artifactType: "application/vnd.oci.empty.v1+json",
	refers:       true,
}, {
	name:         "a Docker image shows the type of its config",
	mediaType:    "application/vnd.docker.distribution.manifest.v2+json",
	raw:          `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json",` + someLayer + `},"layers":[]}`,
	artifactType: "application/vnd.docker.container.image.v1+json",
}, {
	name:      "schema1 shows no type",
	mediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws",
	raw:       `{"schemaVersion":1,"name":"a","fsLayers":[{"blobSum":"` + image + `"}]}`,
}, {
	name:         "an unknown kind is read by the fields that all kinds share",
	mediaType:    "application/vnd.example.future+json",
	raw:          `{"artifactType":"application/vnd.example","config":{"mediaType":"x/y"},` + subjectJSON + `}`,
	artifactType: "application/vnd.example",
	refers:       true,
}, {
	name:         "members of wrong types count as absent, and hide nothing else",
	mediaType:    ociManifest,
	raw:          `{"artifactType":7,"config":{"mediaType":"a/b","size":"two"},"annotations":{"n":1,"s":"kept","z":null},` + subjectJSON + `}`,
	artifactType: "a/b",
	annotations:  map[string]string{"s": "kept"},
	refers:       true,
}, {
	name:      "names are matched exactly, as JSON has it",
	mediaType: ociManifest,
	raw:       `{"ArtifactType":"a/b","Config":{"mediaType":"a/b"},"Subject":{"digest":"` + image + `","size":1}}`,
}, {
	name:      "a subject with a malformed digest is none",
	mediaType: ociManifest,
	raw:       `{"subject":{"mediaType":"` + ociManifest + `","digest":"sha256:73c8","size":1}}`,
}, {
	name:      "a null subject is none",
	mediaType: ociManifest,
	raw:       `{"subject":null,"config":null,"annotations":null,"artifactType":null}`,
}}

func TestDescribe(t *testing.T) {
	for _, c := range shapes {
		t.Run(c.name, func(t *testing.T) {
			got, err := Describe(c.mediaType, Parse([]byte(c.raw)))
			if err != nil {
				t.Fatal(err)
			}
			d := got.Descriptor
			if d.MediaType != c.mediaType || d.Digest != digest.FromString(c.raw) || d.Size != int64(len(c.raw)) {
				t.Errorf("got %s %s %d", d.MediaType, d.Digest, d.Size)
			}
			if d.ArtifactType != c.artifactType {
				t.Errorf("artifactType %q, want %q", d.ArtifactType, c.artifactType)
			}
			if !maps.Equal(d.Annotations, c.annotations) {
				t.Errorf("annotations %v, want %v", d.Annotations, c.annotations)
			}
			if refers := got.Subject != nil && got.Subject.Digest == image; refers != c.refers {
				t.Errorf("subject %v, want one: %v", got.Subject, c.refers)
			}
			if !c.refers && got.Subject != nil {
				t.Errorf("subject %v, want none", got.Subject)
			}
		})
	}
}

func TestDescribeDerivesAMissingMediaType(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"the manifest names its type", `{"mediaType":"a/b+json"}`, "a/b+json"},
		{"an index by its manifests", `{"manifests":[]}`, ociIndex},
		{"an image by its layers", `{"layers":[]}`, ociManifest},
		{"schema1 by its fsLayers", `{"fsLayers":[]}`, mediaTypeDockerSchema1},
		{"nothing where it could be two kinds", `{"manifests":[],"layers":[]}`, ""},
		{"nothing where null is all there is", `{"manifests":null}`, ""},
		{"nothing by nothing", `{}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Describe("", Parse([]byte(c.raw)))
			if c.want == "" {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got %v and %q, want ErrMalformed", err, got.Descriptor.MediaType)
				}
				return
			}
			if err != nil || got.Descriptor.MediaType != c.want {
				t.Fatalf("got %q, %v, want %q", got.Descriptor.MediaType, err, c.want)
			}
		})
	}
}

// unreadable are bytes that no reader should make sense of.
var unreadable = []struct{ name, raw string }{
	{"nothing", ``},
	{"no JSON", `<!DOCTYPE html><html></html>`},
	{"no object", `[]`},
	{"a null", `null`},
	{"cut short", `{"schemaVersion":2,"subject":{`},
	{"something after the end", `{"layers":[]}{"layers":[]}`},
	{"a subject given twice", `{` + subjectJSON + `,` + subjectJSON + `,"manifests":[],"manifests":[]}`},
	{"nested without end", strings.Repeat(`{"manifests":[`, 200_000)},
	{"nested deep", `{"manifests":` + strings.Repeat(`[`, 20_000) + strings.Repeat(`]`, 20_000) + `}`},
	{"too large", `{"pad":"` + strings.Repeat("x", maxManifest) + `"}`},
	{"5 MB of garbage", strings.Repeat("garbage ", 5<<20/8)},
}

func TestUnreadableManifestsAreErrors(t *testing.T) {
	for _, c := range unreadable {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Describe(ociManifest, Parse([]byte(c.raw))); !errors.Is(err, ErrMalformed) {
				t.Errorf("Describe: %v, want ErrMalformed", err)
			}
			if _, _, _, err := Names(ociIndex, Parse([]byte(c.raw))); !errors.Is(err, ErrMalformed) {
				t.Errorf("Names: %v, want ErrMalformed", err)
			}
			if _, err := Decode(Parse([]byte(c.raw))); !errors.Is(err, ErrMalformed) {
				t.Errorf("Decode: %v, want ErrMalformed", err)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	raw := []byte(`{"config":{"mediaType":"a/b"},` + subjectJSON + `}`)
	child := digest.FromBytes(raw)

	t.Run("a child of the subject is described", func(t *testing.T) {
		d, err := Verify(ociManifest, Parse(raw), child, image)
		if err != nil || d.Descriptor.Digest != child || d.Descriptor.ArtifactType != "a/b" {
			t.Fatalf("got %+v, %v", d, err)
		}
	})
	t.Run("a child is described under the digest it was asked by (W7)", func(t *testing.T) {
		child := digest.SHA512.FromBytes(raw)
		d, err := Verify(ociManifest, Parse(raw), child, image)
		if err != nil || d.Descriptor.Digest != child {
			t.Fatalf("got %+v, %v", d, err)
		}
	})
	t.Run("a child of another subject under the same cut tag is no referrer (W50)", func(t *testing.T) {
		mine := digest.SHA512.FromString("mine")
		theirs := mine[:len(mine)-1] + "0"
		if theirs == mine {
			theirs = mine[:len(mine)-1] + "1"
		}
		if TagOf(mine) != TagOf(theirs) {
			t.Fatal("the tags differ")
		}
		raw := []byte(`{"subject":{"digest":"` + theirs.String() + `","size":1}}`)
		if _, err := Verify(ociManifest, Parse(raw), digest.FromBytes(raw), mine); !errors.Is(err, ErrNotReferrer) || errors.Is(err, ErrUnverified) {
			t.Fatalf("got %v, want ErrNotReferrer", err)
		}
	})
	t.Run("a child without a subject is no referrer", func(t *testing.T) {
		raw := []byte(`{"layers":[]}`)
		if _, err := Verify(ociManifest, Parse(raw), digest.FromBytes(raw), image); !errors.Is(err, ErrNotReferrer) {
			t.Fatalf("got %v, want ErrNotReferrer", err)
		}
	})
	t.Run("proven bytes that are no manifest are no referrer", func(t *testing.T) {
		raw := []byte(`<html>`)
		_, err := Verify(ociManifest, Parse(raw), digest.FromBytes(raw), image)
		if !errors.Is(err, ErrNotReferrer) || !errors.Is(err, ErrMalformed) {
			t.Fatalf("got %v, want ErrNotReferrer and ErrMalformed", err)
		}
	})
	t.Run("other bytes than those asked for say nothing", func(t *testing.T) {
		if _, err := Verify(ociManifest, Parse(raw), digest.FromString("other"), image); !errors.Is(err, ErrUnverified) || errors.Is(err, ErrNotReferrer) {
			t.Fatalf("got %v, want ErrUnverified alone", err)
		}
	})
	t.Run("a digest that can't be computed here proves nothing", func(t *testing.T) {
		for _, child := range []digest.Digest{"blake3:" + child[len("sha256:"):], "sha256:73c8", "", "nonsense"} {
			if _, err := Verify(ociManifest, Parse(raw), child, image); !errors.Is(err, ErrUnverified) {
				t.Errorf("%q: got %v, want ErrUnverified", child, err)
			}
		}
	})
}

func TestAnArtifactTypeOfTheManifestIsNotOverridden(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"the config's type gives way", `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}`, "label/x"},
		{"the manifest's own type stays", `{"artifactType":"own/y","config":{"mediaType":"a/b"}}`, "own/y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Describe(ociManifest, Parse([]byte(c.raw)))
			if err != nil {
				t.Fatal(err)
			}
			if got := d.As("label/x").ArtifactType; got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

// 12.17, 12.18: what is opened is described from itself, and who is no referrer
// is left out, unless it is the registry's own word for an accessory.
func TestWhatAListNamesIsDescribedFromItself(t *testing.T) {
	body := func(rest string) string {
		return `{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"application/vnd.example.sbom","config":{"mediaType":"application/vnd.oci.empty.v1+json",` + emptyConfig + `},"layers":[],"annotations":{"a":"b"}` + rest + `}`
	}
	untyped := strings.Replace(body(","+subjectJSON), `"mediaType":"`+ociManifest+`",`, "", 1)
	other := strings.Replace(subjectJSON, image, digest.FromString("other").String(), 1)
	for _, c := range []struct {
		name, mediaType, raw string
		byAPI, byTag         error
	}{
		{"a referrer", ociManifest, body("," + subjectJSON), nil, nil},
		{"sent by storage as binary/octet-stream (W46)", "binary/octet-stream", body("," + subjectJSON), nil, nil},
		{"sent as binary/octet-stream, and without a type of its own", "binary/octet-stream", untyped, nil, nil},
		{"an accessory without a subject", ociManifest, body(""), nil, ErrNotReferrer},
		{"a referrer of another subject", ociManifest, body("," + other), ErrNotReferrer, ErrNotReferrer},
		{"bytes that are no manifest", ociManifest, `"text"`, ErrMalformed, ErrNotReferrer},
	} {
		for isAPI, want := range map[bool]error{true: c.byAPI, false: c.byTag} {
			got, err := DescribeListed(isAPI, c.mediaType, Parse([]byte(c.raw)), digest.FromString(c.raw), image)
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s, API %v: %v, want %v", c.name, isAPI, err, want)
			}
			if err == nil && (got.MediaType != ociManifest || got.ArtifactType != "application/vnd.example.sbom" || got.Annotations["a"] != "b" || got.Size != int64(len(c.raw))) {
				t.Errorf("%s, API %v: it is described as %+v", c.name, isAPI, got)
			}
			if errors.Is(want, ErrMalformed) && errors.Is(err, ErrNotReferrer) {
				t.Errorf("%s: what a registry lists and cannot be read is told as none", c.name)
			}
		}
	}
	if _, err := DescribeListed(true, ociManifest, Parse([]byte(body(""))), image, image); !errors.Is(err, ErrNotReferrer) {
		t.Errorf("the subject itself: %v", err)
	}
	if _, err := DescribeListed(true, ociManifest, Parse([]byte(body(""))), "blake3:abcdef", image); !errors.Is(err, ErrUnverified) {
		t.Errorf("an algorithm that is not known: %v", err)
	}
}

// A manifest under a cosign tag is described under the digest that it has.
func TestACosignTagsManifestIsDescribedUnderItsOwnDigest(t *testing.T) {
	raw := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"x","digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","size":1},"layers":[]}`)
	subject := digest.FromString("subject")
	tag := CosignTags(subject)[0]
	for _, by := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		got, err := tag.Describe("", Parse(raw), by.FromBytes(raw), subject)
		if err != nil || got.Digest != by.FromBytes(raw) || got.ArtifactType != tag.ArtifactType || got.Size != int64(len(raw)) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := tag.Describe("", Parse(raw), digest.FromString("other"), subject); !errors.Is(err, ErrUnverified) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := tag.Describe("", Parse(raw), digest.FromBytes(raw), digest.FromBytes(raw)); !errors.Is(err, ErrNotReferrer) {
		t.Errorf("the subject itself: %v", err)
	}
}

// What would be too large for a list is not listed, and is not said to be none.
func TestADescriptorThatIsTooLargeMayBeAReferrer(t *testing.T) {
	for annotations, fits := range map[int]bool{200 << 10: true, 300 << 10: false} {
		raw := []byte(`{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"a/b",` + subjectJSON + `,"annotations":{"a":"` + strings.Repeat("x", annotations) + `"}}`)
		for _, isAPI := range []bool{true, false} {
			d, err := DescribeListed(isAPI, ociManifest, Parse(raw), digest.FromBytes(raw), image)
			if fits && (err != nil || len(d.Annotations["a"]) != annotations) {
				t.Errorf("%d bytes of annotations: %d, %v", annotations, len(d.Annotations["a"]), err)
			}
			if !fits && (!errors.Is(err, ErrMalformed) || errors.Is(err, ErrNotReferrer)) {
				t.Errorf("%d bytes of annotations: %v", annotations, err)
			}
		}
	}
}
