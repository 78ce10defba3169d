package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWhatIsNamedIsNotGivenAway has somebody who may push to one repository of
// distribution's registry name there what only another one has, where the
// registry does not look, and ask the mirror for it, which has it. The registry
// itself says that it is not there, and so does the mirror.
func TestWhatIsNamedIsNotGivenAway(t *testing.T) {
	s := readSuite(t)
	s.store = s.folder(t)
	up := s.startHtpasswd(t)
	m := s.newMirror(t, up)
	passwordFile(t, m, password)
	m.configure(t, time.Hour)
	m.start(t)
	straight, mirrored := byHand{t, "http://" + up.host}, byHand{t, "http://" + m.address}
	for i, way := range []struct{ name, mediaType, manifest string }{
		{"two lists of layers, and Go reads the last", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"mediaType":%[1]q,"layers":[%[2]s],"Layers":[%[3]s],"config":%[3]s}`},
		{"two lists of layers, in the other order", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"mediaType":%[1]q,"Layers":[%[2]s],"layers":[%[3]s],"config":%[3]s}`},
		{"two configs", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"mediaType":%[1]q,"config":%[2]s,"Config":%[3]s,"layers":[%[3]s]}`},
		{"a layer that is said to be elsewhere", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"mediaType":%[1]q,"config":%[3]s,"layers":[%[3]s,%[4]s]}`},
		{"an entry of an index, of a type that nobody knows", ocispec.MediaTypeImageIndex,
			`{"schemaVersion":2,"mediaType":%[1]q,"manifests":[%[2]s]}`},
		{"two lists of manifests", ocispec.MediaTypeImageIndex,
			`{"schemaVersion":2,"mediaType":%[1]q,"manifests":[%[2]s],"Manifests":[]}`},
		{"a subject", ocispec.MediaTypeImageManifest,
			`{"schemaVersion":2,"mediaType":%[1]q,"config":%[3]s,"layers":[%[3]s],"subject":%[2]s}`},
	} {
		t.Run(way.name, func(t *testing.T) {
			private, pushed := fmt.Sprint("team/private", i), fmt.Sprint("team/pushed", i)
			secret := make([]byte, 100_000)
			_, _ = rand.Read(secret) // It never fails.
			config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":%q}`, way.name)
			theirs, ours := straight.push(private, secret), straight.push(pushed, config)
			image := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocispec.MediaTypeImageManifest, encoded(t, straight.push(private, config)), encoded(t, theirs))
			straight.pushManifest(private, ocispec.MediaTypeImageManifest, image, http.StatusCreated)
			elsewhere := theirs
			elsewhere.URLs = []string{"https://elsewhere.example/x"}
			taken := straight.pushManifest(pushed, way.mediaType, fmt.Sprintf(way.manifest, way.mediaType, encoded(t, theirs), encoded(t, ours), encoded(t, elsewhere)), http.StatusCreated, http.StatusBadRequest)
			t.Logf("the registry says %d to what is pushed", taken)

			for _, what := range []string{"/manifests/1", "/blobs/" + theirs.Digest.String()} {
				if status, _ := mirrored.get(private + what); status != http.StatusOK {
					t.Fatalf("whoever may read it gets %d for %s", status, what)
				}
			}
			mirrored.get(pushed + "/manifests/1")
			for name, from := range map[string]byHand{"straight": straight, "through the mirror": mirrored} {
				if status, got := from.get(pushed + "/blobs/" + theirs.Digest.String()); status != http.StatusNotFound || bytes.Contains(secret, got) {
					t.Errorf("%s: %d, with %d bytes", name, status, len(got))
				}
				if status, got := from.get(pushed + "/blobs/" + ours.Digest.String()); status != http.StatusOK || !bytes.Equal(got, config) {
					t.Errorf("%s, what the repository has itself: %d, %.100q", name, status, got)
				}
			}
		})
	}
}

// byHand speaks to a registry as a client does, with the account.
type byHand struct {
	t  *testing.T
	at string
}

func (p byHand) do(method, path, mediaType string, body []byte) (*http.Response, []byte) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.at+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.SetBasicAuth(account, password)
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest+", "+ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, got
}

func (p byHand) get(path string) (status int, body []byte) {
	p.t.Helper()
	resp, body := p.do(http.MethodGet, "/v2/"+path, "", nil)
	return resp.StatusCode, body
}

func (p byHand) push(repository string, blob []byte) ocispec.Descriptor {
	p.t.Helper()
	began, _ := p.do(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
	at, err := began.Location()
	if err != nil {
		p.t.Fatalf("an upload to %s: %s, %v", repository, began.Status, err)
	}
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	query := at.Query()
	query.Set("digest", d.Digest.String())
	if resp, said := p.do(http.MethodPut, at.Path+"?"+query.Encode(), d.MediaType, blob); resp.StatusCode != http.StatusCreated {
		p.t.Fatalf("a blob of %s: %s %s", repository, resp.Status, said)
	}
	return d
}

// pushManifest pushes a manifest as the tag 1. The registry has to say one of
// these.
func (p byHand) pushManifest(repository, mediaType, body string, may ...int) int {
	p.t.Helper()
	resp, said := p.do(http.MethodPut, "/v2/"+repository+"/manifests/1", mediaType, []byte(body))
	if !slices.Contains(may, resp.StatusCode) {
		p.t.Fatalf("a manifest of %s: %s %s", repository, resp.Status, said)
	}
	return resp.StatusCode
}

func encoded(t *testing.T, d ocispec.Descriptor) string {
	t.Helper()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
