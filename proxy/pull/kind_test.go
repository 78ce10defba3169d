package pull_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// W34, W45: whether a body is a manifest is decided by its members.
func TestABodyThatIsNotAManifestIsNotCachedUnderATag(t *testing.T) {
	for body, sound := range map[string]bool{
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`: true,
		`{"schemaVersion":2,"layers":[]}`:                                      true,
		`{"mediaType":"application/vnd.example.of.tomorrow+json","things":[]}`: true, // W10
		`{"schemaVersion":1,"name":"a"}`:                                       true,
		`{"errors":[{"code":"UNKNOWN"}]}`:                                      false,
		`{"schemaVersion":2,"errors":[]}`:                                      false,
		`{}`:                                                                   false,
		`[]`:                                                                   false,
		``:                                                                     false,
		`"schemaVersion"`:                                                      false,
		`{"schemaVersion":0}`:                                                  false,
		`{"SchemaVersion":2,"MediaType":"x/y"}`:                                false,
		`{"mediaType":2}`:                                                      false,
		`<html>sign in</html>`:                                                 false,
	} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			d := o.Put("app", "application/json", []byte(body), "1")
			m := mirrortest.New(t, o, nil)
			got, err := m.Manifest(t.Context(), mirrortest.App, "1")
			if (err == nil) != sound || err != nil && !errors.Is(err, upstream.ErrInvalidResponse) {
				t.Errorf("%s: %v, %v", body, got.Descriptor, err)
			}
			if _, kept := m.Ledger.Tag(mirrortest.App, "1"); kept != sound {
				t.Errorf("%s: cached: %v", body, kept)
			}
			// By digest, any content that matches is accepted.
			if got, err := m.Manifest(t.Context(), mirrortest.App, d.Digest.String()); err != nil || string(got.Bytes) != body {
				t.Errorf("%s by digest: %q, %v", body, got.Bytes, err)
			}
		})
	}
}

// W46: storage backends send manifests with the wrong Content-Type.
func TestAManifestIsServedWithItsOwnMediaType(t *testing.T) {
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	for _, c := range []struct{ header, body, want string }{
		{"binary/octet-stream", `{"schemaVersion":2,"mediaType":"` + docker + `"}`, docker},
		{"", `{"schemaVersion":2,"mediaType":"` + docker + `"}`, docker},
		{"text/html", `{"schemaVersion":2,"mediaType":"` + docker + `"}`, docker},
		{ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + docker + `"}`, docker},
		{ocispec.MediaTypeImageManifest + "; charset=utf-8", `{"schemaVersion":2,"layers":[]}`, ocispec.MediaTypeImageManifest},
		{"application/json", `{"schemaVersion":2,"manifests":[]}`, ocispec.MediaTypeImageIndex},
		{"binary/octet-stream", `{"schemaVersion":2,"config":{}}`, ocispec.MediaTypeImageManifest},
		{"text/plain", `{"schemaVersion":1,"signatures":[]}`, pull.SignedSchema1},
		{"text/plain", `{"schemaVersion":1}`, pull.BareSchema1},
		{"application/vnd.example+json", `{"schemaVersion":2}`, "application/vnd.example+json"},
		{"text/plain", `{"schemaVersion":2}`, "application/octet-stream"},
		{"text/html", `<html>`, "application/octet-stream"},
	} {
		if got := pull.ManifestType(c.header, []byte(c.body)); got != c.want {
			t.Errorf("%q with %s: %q, want %q", c.header, c.body, got, c.want)
		}
	}
}

// schema1 is a Docker schema 1 manifest, signed as libtrust does it, and the
// signed payload. The signature itself is never checked.
func schema1(name string) (signed, payload []byte) {
	payload = fmt.Appendf(nil, "{\n   \"schemaVersion\": 1,\n   \"name\": %q\n}", name)
	length := strings.LastIndex(string(payload), "\n}")
	protected, err := json.Marshal(map[string]any{
		"formatLength": length, "formatTail": base64.RawURLEncoding.EncodeToString(payload[length:]), "time": "2015-01-01T00:00:00Z",
	})
	if err != nil {
		panic(err)
	}
	signatures := fmt.Sprintf(",\n   \"signatures\": [{\"signature\": \"x\", \"protected\": %q}]\n}", base64.RawURLEncoding.EncodeToString(protected))
	return append(payload[:length:length], signatures...), payload
}

// W10: Docker Hub and ACR still serve some.
func TestASignedSchema1ManifestIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signed, payload := schema1("app")
		d := digest.FromBytes(payload)
		o := mirrortest.NewOrigin()
		o.DigestOf = func(body []byte) pull.Digest { return digest.FromBytes(pull.SignedPayload(body)) }
		o.Put("app", pull.SignedSchema1, signed, "1", d.String())
		m := mirrortest.New(t, o, nil)
		for _, ref := range []string{"1", d.String()} {
			got, err := m.Manifest(t.Context(), mirrortest.App, ref)
			if err != nil || got.Descriptor.Digest != d || got.Descriptor.MediaType != pull.SignedSchema1 || string(got.Bytes) != string(signed) {
				t.Errorf("%s: %v, %v", ref, got.Descriptor, err)
			}
		}
		// A different payload has a different digest.
		other, _ := schema1("other")
		o.Put("app", pull.SignedSchema1, other, d.String())
		if _, err := m.Manifest(t.Context(), mirrortest.App, d.String()); !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("another payload: %v", err)
		}
	})
}

// Only verified bytes are served: the payload that the signature covers has to
// be the content.
func TestASignatureCoversOnlyItsPayload(t *testing.T) {
	sound := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`
	signed, payload := schema1("app")
	forged := func(body string, covered []byte) []byte {
		protected := fmt.Sprintf(`{"formatLength":0,"formatTail":%q}`, base64.RawURLEncoding.EncodeToString(covered))
		return []byte(strings.TrimSuffix(body, "}") + fmt.Sprintf(`,"signatures":[{"protected":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(protected))))
	}
	for name, c := range map[string]struct{ sent, want []byte }{
		"another manifest of schema 1":  {forged(`{"schemaVersion":1,"name":"evil"}`, payload), payload},
		"an OCI manifest":               {forged(`{"schemaVersion":1,"layers":["evil"]}`, []byte(sound)), []byte(sound)},
		"one more member":               {[]byte(strings.Replace(string(signed), `"name"`, `"evil": 1, "name"`, 1)), payload},
		"a schema that is not schema 1": {forged(sound, []byte(sound)), []byte(sound)},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			d := digest.FromBytes(c.want)
			o.Put("app", ocispec.MediaTypeImageManifest, c.sent, d.String())
			if got, err := mirrortest.New(t, o, nil).Manifest(t.Context(), mirrortest.App, d.String()); !errors.Is(err, upstream.ErrInvalidResponse) {
				t.Errorf("%s: %s, %v", name, got.Bytes, err)
			}
		})
	}
}

func FuzzSignedPayload(f *testing.F) {
	signed, _ := schema1("app")
	for _, seed := range []string{string(signed), `{"schemaVersion":1,"signatures":[{"protected":"e30"}]}`, `{}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		before := string(content)
		if payload := pull.SignedPayload(content); len(payload) > len(content)*2 || string(content) != before {
			t.Errorf("the payload has %d bytes of %d, or the content changed", len(payload), len(content))
		}
	})
}

// The size of a blob in a manifest may be wrong. The digest decides, as it does
// without a mirror.
func TestTheSizeOfABlobComesFromTheUpstream(t *testing.T) {
	content := mirrortest.Bytes(3, 300<<10)
	for name, told := range map[string]int64{"none": 0, "too small": 10, "too large": 5 << 20} {
		for _, length := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, length told: %v", name, length), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := mirrortest.NewOrigin()
					o.NoLength = !length
					layer := o.Put("app", "layer", content)
					wrong := layer
					wrong.Size = told
					body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": o.Put("app", "config", []byte("{}")), "layers": []pull.Descriptor{wrong}})
					if err != nil {
						t.Fatal(err)
					}
					o.Put("app", ocispec.MediaTypeImageManifest, body, "1")
					m := mirrortest.New(t, o, nil)
					if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
						t.Fatal(err)
					}
					for range 2 { // during the download, and from the cache
						b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
						if err != nil {
							t.Fatal(err)
						}
						if size := b.Size(); size != int64(len(content)) && (length || size >= 0) {
							t.Errorf("the size is %d", size)
						}
						if n, err := b.WriteRange(t.Context(), io.Discard, 0, -1); err != nil || n != int64(len(content)) {
							t.Errorf("%d bytes, %v", n, err)
						}
						b.Close()
						mirrortest.Wait()
					}
					if got, outcome, err := m.ResolveBlob(t.Context(), mirrortest.App, layer.Digest); err != nil || got.Size != int64(len(content)) || outcome != pull.Hit {
						t.Errorf("HEAD: %v, %s, %v", got, outcome, err)
					}
				})
			})
		}
	}
}

func TestAWebPageInPlaceOfABlobIsRefusedBeforeItsFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		_, layer := o.Image("app", "1", mirrortest.Bytes(3, 300<<10))
		m := mirrortest.New(t, o, nil)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		o.Replace("app", layer.Digest, "text/html", []byte("<html>"+strings.Repeat("sign in ", 8<<10)))
		rest := make(chan struct{})
		o.Bodies = func(_ string, _ pull.Digest, _ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:60<<10]), gated{rest, bytes.NewReader(body[60<<10:])}))
		}
		time.AfterFunc(time.Minute, func() { close(rest) })
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
		if err == nil {
			var got bytes.Buffer
			_, err = b.WriteRange(t.Context(), &got, 0, -1)
			b.Close()
			if got.Len() > 0 {
				t.Errorf("%d bytes of the page went out", got.Len())
			}
		}
		if !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("got %v", err)
		}
		mirrortest.Wait()
	})
}

func TestABlobLargerThanTheCacheTakesNoRoomOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := o.Put("app", "layer", mirrortest.Bytes(3, 2<<20))
		bypassed := 0
		drafts := &draftedBlobs{}
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			drafts.Blobs, opts.Blobs = opts.Blobs, drafts
			opts.Bounds.MaxBytes = 1 << 20
			opts.Events.Bypassed = func(string) { bypassed++ }
		})
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, pull.Want{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if n, err := b.WriteRange(t.Context(), io.Discard, 0, -1); err != nil || n != 2<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
		if bypassed != 1 {
			t.Errorf("counted %d times as passed by", bypassed)
		}
		mirrortest.Wait()
		if drafts.written > 0 {
			t.Errorf("%d bytes of it were on their way to the disk", drafts.written)
		}
		drafts.sizes = nil
		// A blob that fits gets one draft, with the size that the upstream
		// gives.
		fits := o.Put("app", "layer", mirrortest.Bytes(4, 100<<10))
		if _, err := m.Fetch(mirrortest.App, fits.Digest); err != nil {
			t.Fatal(err)
		}
		mirrortest.Wait()
		if !slices.Equal(drafts.sizes, []int64{fits.Size}) {
			t.Errorf("drafts of %d bytes", drafts.sizes)
		}
	})
}

// draftedBlobs records the sizes of the drafts that were created, and what is
// written to them.
type draftedBlobs struct {
	cache.Blobs
	sizes   []int64
	written int
}

type recordedDraft struct {
	cache.Draft
	of *draftedBlobs
}

func (d recordedDraft) Write(b []byte) (int, error) {
	d.of.written += len(b)
	return d.Draft.Write(b)
}

func (b *draftedBlobs) Create(ctx context.Context, want pull.Descriptor) (cache.Draft, error) {
	b.sizes = append(b.sizes, want.Size)
	draft, err := b.Blobs.Create(ctx, want)
	return recordedDraft{draft, b}, err
}

// A media type stands in each header and each record of a manifest. One that is
// longer than any may be is none.
func TestAMediaTypeThatIsTooLongIsNone(t *testing.T) {
	const image = "application/vnd.oci.image.manifest.v1+json"
	long, longest := "application/"+strings.Repeat("x", 1<<20), "application/"+strings.Repeat("x", 255-len("application/"))
	for _, row := range []struct{ own, header, want string }{
		{long, "application/json", image}, {"", long, image}, {long, longest, longest}, {longest, image, longest}, {longest + "x", image, image},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			o.Put("app", row.header, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[]}`, row.own), "1")
			m := mirrortest.New(t, o, nil)
			got, err := m.Manifest(t.Context(), mirrortest.App, "1")
			if err != nil || got.Descriptor.MediaType != row.want {
				t.Errorf("%.30q (%d bytes) under %.30q (%d bytes) is %.300q, %v", row.own, len(row.own), row.header, len(row.header), got.Descriptor.MediaType, err)
			}
		})
	}
}
