package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openedWithin is how long it may take until all of a long list is opened.
const openedWithin = time.Minute

var evenAndOdd = []string{"application/vnd.example.even", "application/vnd.example.odd"}

// TestAFilterFindsAllOfManyReferrers: go-containerregistry's registry lists each
// with the type of its config, so that a filter only finds what was opened. A
// client that looks too early finds some of them, or fails: "0 referrers" is
// never said.
func TestAFilterFindsAllOfManyReferrers(t *testing.T) {
	s := readSuite(t)
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	m := s.newReferrersMirror(t)
	text := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {referrers_ttl: 1h}\nupstreams:\n%s",
		m.address, m.admin, filepath.Join(m.dir, "cache"), upstreamSettings("many.example", []string{server.URL}))
	if err := os.WriteFile(m.config(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	dir := s.folder(t)
	for _, many := range []int{512, 600} {
		repository := fmt.Sprintf("many/%d", many)
		subject := pushMany(t, server.URL, repository, many)
		discover := func(host, prefix, artifactType string) (int, error) {
			stdout, stderr, err := try(t.Context(), dir, environment(dir), s.tool(t, "oras").program("oras"),
				"discover", "--plain-http", "--format", "json", "--depth", "1", "--artifact-type", artifactType, host+"/"+prefix+repository+"@"+subject.Digest.String())
			if err != nil {
				return 0, fmt.Errorf("%w: %s", err, oneLine(fmt.Errorf("%s", stderr)))
			}
			var found struct{ Referrers []struct{ Digest string } }
			err = json.Unmarshal([]byte(stdout), &found)
			return len(found.Referrers), err
		}
		for _, artifactType := range evenAndOdd {
			straight, _ := discover(strings.TrimPrefix(server.URL, "http://"), "", artifactType)
			began, first := time.Now(), ""
			for {
				n, err := discover(m.address, "many.example/", artifactType)
				if first == "" {
					first = fmt.Sprint(n, " ", err)
				}
				if err == nil && n == 0 {
					t.Errorf("of %d, oras says that there are none of type %s", many, artifactType)
				}
				if n == many/2 {
					break
				}
				if time.Since(began) > openedWithin {
					t.Fatalf("of %d, oras finds %d of type %s, want %d (%v)", many, n, artifactType, many/2, err)
				}
				time.Sleep(500 * time.Millisecond)
			}
			t.Logf("of %d, %s: straight %d, through the mirror first %s, and %d after %s", many, artifactType, straight, first, many/2, time.Since(began).Round(time.Millisecond))
		}
	}
}

// pushMany pushes an image and what refers to it, of two types in turn.
func pushMany(t *testing.T, registryURL, repository string, many int) ocispec.Descriptor {
	t.Helper()
	at := registryURL + "/v2/" + repository
	send := func(method, url, mediaType string, body []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s: %s", method, url, resp.Status)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // only so that the connection is used again
	}
	empty := ocispec.DescriptorEmptyJSON
	send(http.MethodPost, at+"/blobs/uploads/?digest="+empty.Digest.String(), "application/octet-stream", empty.Data)
	empty.Data = nil
	push := func(m ocispec.Manifest) ocispec.Descriptor {
		m.Versioned, m.MediaType, m.Config, m.Layers = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest, empty, []ocispec.Descriptor{empty}
		body := inJSON(m)
		d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
		send(http.MethodPut, at+"/manifests/"+d.Digest.String(), m.MediaType, body)
		return d
	}
	subject := push(ocispec.Manifest{ArtifactType: "application/vnd.example.subject"})
	for i := range many {
		push(ocispec.Manifest{ArtifactType: evenAndOdd[i%2], Subject: &subject, Annotations: map[string]string{"org.example.number": fmt.Sprint(i)}})
	}
	return subject
}
