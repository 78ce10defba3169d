package e2e

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestTheSpecificationsOwnSuitePassesThroughTheMirror runs the distribution-spec's
// conformance suite.
func TestTheSpecificationsOwnSuitePassesThroughTheMirror(t *testing.T) {
	s := newSuite(t)
	results := &table{}
	t.Run("runs", func(t *testing.T) {
		for _, r := range []registryKind{withoutAPI, withAPI} {
			t.Run("it reads/"+r.name, func(t *testing.T) {
				t.Parallel()
				up := r.start(t, s)
				h := s.populate(t, up.host)
				m := s.startMirror(t, up, time.Hour)
				o := s.conformance(t, m.address, h.settings()...)
				// Each by HEAD and by GET.
				if want := 2 * (len(h.tags) + len(h.manifests) + len(h.blobs)); o.passed < want {
					t.Errorf("%d tests passed, want at least %d", o.passed, want)
				}
				results.add(o.columns("what an upstream holds", s.tool(t, "conformance").version, r.name)...)
			})
		}
		for _, r := range []registryKind{withoutAPI, withAPI} {
			t.Run("its predecessor reads/"+r.name, func(t *testing.T) {
				t.Parallel()
				up := r.start(t, s)
				settings := s.populate11(t, up.host)
				m := s.startMirror(t, up, time.Hour)
				o := s.conformance11(t, m.address, settings...)
				// All it has but what pushes: 14 for pulling, 7 for discovery.
				if o.passed != 21 {
					t.Errorf("%d tests passed, want 21", o.passed)
				}
				results.add(o.columns("what an upstream holds", s.tool(t, "conformance11").version, r.name)...)
			})
		}
		t.Run("it pushes to the upstream and reads through the mirror", func(t *testing.T) {
			t.Parallel()
			up := withoutAPI.start(t, s)
			// Its artifacts share a few tags, so that none may rest.
			m := s.startMirror(t, up, time.Millisecond)
			// What is left out is what distribution's registry does not take.
			o := s.conformance(t, s.split(t, up, m),
				"OCI_REPO1=team/written", "OCI_REPO2=team/other",
				"OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_BLOBS_DIGEST_HEADER=true",
				"OCI_VERSION=1.0", "OCI_DATA_SHA512=false", "OCI_DATA_NONDISTRIBUTABLE=false")
			results.add(o.columns("what it pushes to the upstream", s.tool(t, "conformance").version, withoutAPI.name)...)
		})
	})
	put(t, "conformance", `## The specification's conformance suite

The distribution-spec's own suite at its newest commit, run through the mirror: without its pushes, which a mirror does not
take, and with its pushes led to the upstream in the mirror's place. Deletions are disabled in both.

The suite of 2023 is the one before it was written anew, at its last commit that can be had as a Go module; that of the tag
v1.1.1 can't. Its workflows that push and delete are left out.

`+results.sorted("it reads", "version of the suite", "upstream", "passed", "failed", "skipped", "disabled"))
}

// held is what an upstream holds, as the suite is told of it.
type held struct {
	tags, manifests, blobs, subjects []string
}

func (h held) settings() []string {
	return []string{
		"OCI_VERSION=1.1", "OCI_API_PUSH=false", "OCI_REPO1=registry.example/team/conformance",
		"OCI_RO_DATA_TAGS=" + strings.Join(h.tags, " "), "OCI_RO_DATA_MANIFESTS=" + strings.Join(h.manifests, " "),
		"OCI_RO_DATA_BLOBS=" + strings.Join(h.blobs, " "), "OCI_RO_DATA_REFERRERS=" + strings.Join(h.subjects, " "),
	}
}

// populate pushes an image of two platforms, and two artifacts that refer to it.
func (s *suite) populate(t *testing.T, host string) held {
	t.Helper()
	img := s.push(t, host, "registry.example", "team/conformance")
	h := held{tags: []string{img.tag}, manifests: []string{img.digest}, blobs: img.blobs(architectures...), subjects: []string{img.digest}}
	for _, arch := range architectures {
		h.manifests = append(h.manifests, img.platforms[arch].manifest)
	}
	subject, err := name.NewTag(host+"/"+img.repository+":"+img.tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	about, err := remote.Head(subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"sbom", "vex"} {
		content := static.NewLayer([]byte(tag+" of "+img.reference()), "application/json")
		base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType("application/vnd.example."+tag))
		made, err := mutate.AppendLayers(base, content)
		if err != nil {
			t.Fatal(err)
		}
		made, _ = mutate.Subject(made, *about).(v1.Image)
		if err := remote.Write(subject.Repository.Tag(tag), made); err != nil {
			t.Fatalf("push %s: %v", tag, err)
		}
		manifest, err := made.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		digest, err := made.Digest()
		if err != nil {
			t.Fatal(err)
		}
		h.tags = append(h.tags, tag)
		h.manifests = append(h.manifests, digest.String())
		h.blobs = append(h.blobs, manifest.Config.Digest.String(), manifest.Layers[0].Digest.String())
	}
	return h
}

// split leads what is read to the mirror, and what is written to the upstream.
func (s *suite) split(t *testing.T, up *upstream, m *mirror) (host string) {
	t.Helper()
	read, write := reverseProxy(m.address), reverseProxy(up.host)
	host = "127.0.0.1:" + strconv.Itoa(s.freePort(t))
	l, err := net.Listen("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if reads && !strings.Contains(r.URL.Path, "/blobs/uploads/") {
			read.ServeHTTP(w, r)
		} else {
			write.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(l) }() // The suite sees where it fails.
	t.Cleanup(func() { server.Close() })
	return host
}

// outcomes are how the suite's tests end.
type outcomes struct{ passed, failed, skipped, disabled int }

func (o outcomes) columns(before ...string) []string {
	for _, n := range []int{o.passed, o.failed, o.skipped, o.disabled} {
		before = append(before, strconv.Itoa(n))
	}
	return before
}

// tally is the suite's own count of an outcome.
var tally = regexp.MustCompile(`(?m)^  (Disabled|Skip|Pass|FAIL|Error|Total)\.+: +(\d+)$`)

// conformance runs the suite against a registry, and counts its tests by their
// outcome, of which none may be a failure. They are read from what it prints:
// it can end well with a failure among them, and where it may not push it ends
// badly without one, as it fails to write the files of its report.
func (s *suite) conformance(t *testing.T, registry string, settings ...string) outcomes {
	t.Helper()
	dir := s.folder(t)
	env := append(environment(dir),
		"OCI_REGISTRY="+registry, "OCI_TLS=disabled", "OCI_RESULTS_DIR="+dir,
		"OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false")
	stdout, stderr, err := try(t.Context(), dir, append(env, settings...), s.tool(t, "conformance").program("conformance"))
	counted := map[string]int{}
	for _, found := range tally.FindAllStringSubmatch(stdout, -1) {
		n, _ := strconv.Atoi(found[2])
		counted[found[1]] = n
	}
	o := outcomes{passed: counted["Pass"], failed: counted["FAIL"] + counted["Error"], skipped: counted["Skip"], disabled: counted["Disabled"]}
	t.Logf("%+v", o)
	if o.passed == 0 || o.failed > 0 || o.passed+o.failed+o.skipped+o.disabled != counted["Total"] || strings.Contains(stdout, "FAIL\n") {
		t.Errorf("conformance: %v, %+v of %d\n%s%s", err, o, counted["Total"], complaints(stdout), stderr)
	}
	return o
}

// complaints are the lines of the suite's report about what fails.
func complaints(report string) string {
	var b strings.Builder
	for line := range strings.Lines(report) {
		if strings.HasSuffix(line, ": FAIL\n") || strings.HasPrefix(strings.TrimSpace(line), "- ") {
			fmt.Fprint(&b, line)
		}
	}
	return b.String()
}
