package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// attached is a script with n referrers of the types a, b and c in turn, each
// with so many bytes of annotations.
func attached(n, weight int, change func(*pull.Referrers)) script {
	var list []ocispec.Descriptor
	for i := range n {
		list = append(list, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 100,
			ArtifactType: string(rune('a' + i%3)), Annotations: map[string]string{"weight": strings.Repeat("x", weight)},
		})
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return script{referrers: func(pull.Repository, digest.Digest) (pull.Referrers, error) {
		answer := pull.Referrers{Manifests: slices.Clone(list), Outcome: pull.Hit}
		if change != nil {
			change(&answer)
		}
		return answer, nil
	}}
}

func readIndex(t *testing.T, body []byte) (types []string, digests []digest.Digest) {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		types, digests = append(types, d.ArtifactType), append(digests, d.Digest)
	}
	slices.Sort(types)
	return types, digests
}

const referrersPath = "/v2/app/referrers/" + sha256OfNothing

func TestW52ReferrersAreAnIndex(t *testing.T) {
	got := newFace(t, attached(0, 0, nil)).do(http.MethodGet, referrersPath)
	if want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`; got.status != http.StatusOK || string(got.body) != want {
		t.Errorf("%d %s", got.status, got.body)
	}
	got.wantHeader(t, "Content-Type", "application/vnd.oci.image.index.v1+json", "Docker-Content-Digest", "", "OCI-Filters-Applied", "", "Link", "", "Warning", "")
	head := newFace(t, attached(0, 0, nil)).do(http.MethodHead, referrersPath)
	if head.status != http.StatusOK || head.length != got.length {
		t.Errorf("HEAD: %d with length %d", head.status, head.length)
	}
}

// TestW53ArtifactTypesMeanAnyOfThem also has the list encoded beforehand.
func TestW53ArtifactTypesMeanAnyOfThem(t *testing.T) {
	for _, encoded := range []bool{false, true} {
		testArtifactTypes(t, newFace(t, attached(6, 0, func(r *pull.Referrers) {
			if encoded {
				r.List, _ = referrers.NewList(r.Manifests)
				r.Manifests = nil
			}
		})))
	}
}

func testArtifactTypes(t *testing.T, f *face) {
	t.Helper()
	_, all := readIndex(t, f.do(http.MethodGet, referrersPath).body)
	for _, c := range []struct{ query, types, filtered string }{
		{"", "aabbcc", ""},
		{"?last=" + all[5].String(), "", ""},
		{"?artifactType=a", "aa", "artifactType"},
		{"?artifactType=a&artifactType=c", "aacc", "artifactType"},
		{"?artifactType=d", "", "artifactType"},
		{"?artifactType=", "aabbcc", ""},
		{"?predicateType=x", "aabbcc", ""},
	} {
		got := f.do(http.MethodGet, referrersPath+c.query)
		types, _ := readIndex(t, got.body)
		if strings.Join(types, "") != c.types {
			t.Errorf("%s: %v", c.query, types)
		}
		got.wantHeader(t, "OCI-Filters-Applied", c.filtered)
	}
}

func TestStaleReferrersSaySo(t *testing.T) {
	got := newFace(t, attached(1, 0, func(r *pull.Referrers) { r.Stale = true })).do(http.MethodGet, referrersPath)
	got.wantHeader(t, "Warning", staleWarning)
}

func TestUnknownReferrersAreNeverNone(t *testing.T) {
	f := newFace(t, script{referrers: func(pull.Repository, digest.Digest) (pull.Referrers, error) {
		return pull.Referrers{}, upstream.ErrUnavailable
	}})
	if got := f.do(http.MethodGet, referrersPath); got.status != http.StatusServiceUnavailable || got.code() != codeUnavailable {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestManyReferrersComeInPagesUnder4MiB(t *testing.T) {
	const n = 90
	f := newFace(t, attached(n, 100<<10, nil))
	for query, want := range map[string]int{"": n, "?artifactType=a&artifactType=b": n * 2 / 3} {
		var all []digest.Digest
		pages := 0
		for target := referrersPath + query; target != ""; pages++ {
			got := f.do(http.MethodGet, target)
			if got.status != http.StatusOK || len(got.body) >= 4<<20 || len(got.body) == 0 {
				t.Fatalf("%d with %d bytes", got.status, len(got.body))
			}
			_, digests := readIndex(t, got.body)
			all = append(all, digests...)
			target, _ = strings.CutSuffix(strings.TrimPrefix(got.header.Get("Link"), "<"), `>; rel="next"`)
			if query != "" && target != "" && len(mustQuery(t, target)["artifactType"]) != 2 {
				t.Errorf("the filter is lost: %s", target)
			}
		}
		if pages < 2 || len(all) != want || len(slices.Compact(all)) != want {
			t.Errorf("%d referrers in %d pages, want %d", len(all), pages, want)
		}
	}
}

func mustQuery(t *testing.T, target string) url.Values {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func TestCursorThatIsNoDigestIs400(t *testing.T) {
	got := newFace(t, script{}).do(http.MethodGet, referrersPath+"?last=x")
	if got.status != http.StatusBadRequest || got.code() != codeDigestInvalid {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestAPlusInAFilterIsAPlusHoweverItIsSent(t *testing.T) {
	var list []ocispec.Descriptor
	for _, artifactType := range []string{"application/spdx+json", "application/vnd.cyclonedx+json", "application/x+a; part=b c", "text/plain"} {
		list = append(list, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(artifactType), Size: 100, ArtifactType: artifactType,
		})
	}
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	f := newFace(t, script{referrers: func(pull.Repository, digest.Digest) (pull.Referrers, error) {
		return pull.Referrers{Manifests: slices.Clone(list), Outcome: pull.Hit}, nil
	}})
	for _, c := range []struct{ name, query, types string }{
		{"as it stands", "artifactType=application/spdx+json", "application/spdx+json"},
		{"escaped", "artifactType=application%2Fspdx%2Bjson", "application/spdx+json"},
		{"escaped in small letters", "artifactType=application/spdx%2bjson", "application/spdx+json"},
		{"made a space by somebody between", "artifactType=application/spdx%20json", "application/spdx+json"},
		{"twice, once of each", "artifactType=application/spdx+json&artifactType=application/vnd.cyclonedx%2Bjson", "application/spdx+json application/vnd.cyclonedx+json"},
		{"beside a type without", "artifactType=text/plain&artifactType=application/spdx+json", "application/spdx+json text/plain"},
		{"with a parameter, as a form sends it", "artifactType=application%2Fx%2Ba%3B+part%3Db+c", "application/x+a; part=b c"},
		{"with a parameter, as it stands", "artifactType=application/x+a%3B%20part=b%20c", "application/x+a; part=b c"},
		{"with a parameter, its semicolon as it stands", "artifactType=application/x+a;%20part=b%20c", "application/x+a; part=b c"},
		{"with a parameter, its semicolon and its spaces as they stand", "artifactType=application/x+a;+part=b+c", "application/x+a; part=b c"},
		{"of no referrer", "artifactType=application/other+json", ""},
		{"of a part of a type", "artifactType=application/spdx+", ""},
		{"in another parameter", "predicateType=application/spdx+json&artifactType=text/plain", "text/plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.do(http.MethodGet, referrersPath+"?"+c.query)
			types, _ := readIndex(t, got.body)
			if got.status != http.StatusOK || strings.Join(types, " ") != c.types {
				t.Errorf("%d with %q, want %q", got.status, types, c.types)
			}
			got.wantHeader(t, "OCI-Filters-Applied", "artifactType")
		})
	}
}

// FuzzFilter asks for a type in every way to write it in a query, beside types
// that somebody may have put there to hide it.
func FuzzFilter(f *testing.F) {
	for _, t := range []string{"application/spdx+json", "a+b; c=d e", "+", " ", "a%2Bb", "a&b=c;d", "ä+ö"} {
		f.Add(t)
	}
	f.Fuzz(func(t *testing.T, wanted string) {
		if wanted == "" {
			t.Skip()
		}
		listed := []string{strings.ReplaceAll(wanted, "+", " "), wanted, wanted + "x"}
		for _, written := range []string{
			url.QueryEscape(wanted),
			strings.ReplaceAll(url.QueryEscape(wanted), "%2B", "+"),
			strings.ReplaceAll(url.QueryEscape(wanted), "+", "%20"),
			strings.ReplaceAll(url.QueryEscape(wanted), "%3B", ";"),
		} {
			query, err := parseQuery("artifactType=" + written)
			if err != nil {
				t.Fatal(err)
			}
			_, types, err := parseCursor(query)
			if err != nil {
				t.Fatal(err)
			}
			if got := matchingTypes(types, listed); !slices.Contains(got, wanted) || slices.Contains(got, wanted+"x") {
				t.Errorf("%s finds %q", written, got)
			}
		}
	})
}

func TestAFilterWithAPlusComesBackInTheNextPagesLink(t *testing.T) {
	const n = 90
	f := newFace(t, attached(n, 100<<10, func(r *pull.Referrers) {
		for i := range r.Manifests {
			r.Manifests[i].ArtifactType += "+json"
		}
	}))
	found, pages := 0, 0
	for target := referrersPath + "?artifactType=a+json&artifactType=b%2Bjson"; target != ""; pages++ {
		got := f.do(http.MethodGet, target)
		types, _ := readIndex(t, got.body)
		found += len(types)
		target, _ = strings.CutSuffix(strings.TrimPrefix(got.header.Get("Link"), "<"), `>; rel="next"`)
	}
	if pages < 2 || found != n*2/3 {
		t.Errorf("%d referrers in %d pages", found, pages)
	}
}
