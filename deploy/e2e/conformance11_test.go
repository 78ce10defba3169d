package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// populate11 pushes what the suite of distribution-spec 1.1 reads where it may
// not push: an image under four tags, and five referrers of it, of which two
// are of the type that the suite asks for. It returns how the suite is told.
func (s *suite) populate11(t *testing.T, host string) (settings []string) {
	t.Helper()
	const repository, text = "team/conformance11", "read by the suite"
	e := &errand{suite: s, t: t, registry: host, host: host, pushed: map[string]string{}}
	tags := []string{"1", "2", "3", "4"}
	for _, tag := range tags {
		if _, err := e.pushImage(repository, tag, text); err != nil {
			t.Fatal(err)
		}
	}
	subject, err := e.head(repository + ":1")
	if err != nil {
		t.Fatal(err)
	}
	for i, artifactType := range []string{"nhl.peanut.butter.bagel", "nhl.peanut.butter.bagel", "nba.strawberry.jam.croissant", "nba.strawberry.jam.croissant", "food.stand"} {
		base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.MediaType("application/vnd."+artifactType))
		made, err := mutate.AppendLayers(base, static.NewLayer(fmt.Appendf(nil, "referrer %d", i), "text/plain"))
		if err != nil {
			t.Fatal(err)
		}
		made, _ = mutate.Subject(made, *subject).(v1.Image)
		if _, err := e.pushAs(repository, "referrer-"+strconv.Itoa(i), made); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"OCI_NAMESPACE=registry.example/" + repository, "OCI_TAG_NAME=1", "OCI_TAG_LIST=" + strings.Join(tags, ","),
		"OCI_MANIFEST_DIGEST=" + subject.Digest.String(), "OCI_BLOB_DIGEST=" + digest.FromString(text).String(),
	}
}

// tally11 is the suite's own count of how its tests ended.
var tally11 = regexp.MustCompile(`(?m)^(SUCCESS!|FAIL!) -- (\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped$`)

// conformance11 runs the suite against a registry without its pushes, and counts
// its tests by their outcome, of which none may be a failure or a warning.
func (s *suite) conformance11(t *testing.T, registry string, settings ...string) (o outcomes) {
	t.Helper()
	dir := s.folder(t)
	env := append(environment(dir), "OCI_ROOT_URL=http://"+registry, "OCI_REPORT_DIR=none", "OCI_TEST_PULL=1", "OCI_TEST_CONTENT_DISCOVERY=1")
	stdout, stderr, err := try(t.Context(), dir, append(env, settings...), s.tool(t, "conformance11").program("conformance.test"), "-ginkgo.no-color")
	found := tally11.FindStringSubmatch(stdout)
	if err != nil || found == nil {
		t.Fatalf("conformance: %v\n%s%s", err, stdout, stderr)
	}
	for i, n := range []*int{&o.passed, &o.failed, &o.disabled, &o.skipped} {
		*n, _ = strconv.Atoi(found[i+2])
	}
	t.Logf("%+v", o)
	if o.failed > 0 || strings.Contains(stdout+stderr, "WARNING") {
		t.Errorf("conformance: %+v\n%s%s", o, stdout, stderr)
	}
	return o
}
