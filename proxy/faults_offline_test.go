package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// An offlineRow is a question to a mirror that may not ask its upstream.
type offlineRow struct {
	asks   string
	method string // "" is GET
	path   string
	header string // "Name: value"
	sees   string
}

// offlineWorld is what was pulled before: app:1, an image without referrers;
// app:2, whose referrers nobody asked about; an index with an attestation.
type offlineWorld struct{ one, two, attestation, layer, nowhere pull.Digest }

func (w offlineWorld) rows() []offlineRow {
	tag, list := "/v2/app/manifests/", "/v2/app/referrers/"
	blob := "/v2/app/blobs/"
	const notKept, noBlob = "404 MANIFEST_UNKNOWN, offline, and not kept here", "404 BLOB_UNKNOWN, offline, and not kept here"
	const unknown = "503 UNAVAILABLE, offline"
	return []offlineRow{
		{asks: "a tag that was pulled", path: tag + "1", sees: "200, Warning: 110"},
		{asks: "the same with `HEAD`", method: http.MethodHead, path: tag + "1", sees: "200, Warning: 110"},
		{asks: "a manifest by digest", path: tag + w.one.String(), sees: "200"},
		{asks: "the same, with its ETag", path: tag + w.one.String(), header: `If-None-Match: "` + w.one.String() + `"`, sees: "304"},
		{asks: "a blob", path: blob + w.layer.String(), sees: "200"},
		{asks: "the same with `HEAD`", method: http.MethodHead, path: blob + w.layer.String(), sees: "200"},
		{asks: "a range of it", path: blob + w.layer.String(), header: "Range: bytes=10-19", sees: "206"},
		{asks: "the same, with its ETag", path: blob + w.layer.String(), header: `If-None-Match: "` + w.layer.String() + `"`, sees: "304"},
		{asks: "a tag that is not kept", path: tag + "3", sees: notKept},
		{asks: "the same with `HEAD`", method: http.MethodHead, path: tag + "3", sees: "404"},
		{asks: "a manifest that is not kept", path: tag + w.nowhere.String(), sees: notKept},
		{asks: "a tag of a repository of which nothing is kept", path: "/v2/other/manifests/1", sees: notKept},
		{asks: "a blob that is not kept", path: blob + w.nowhere.String(), sees: noBlob},
		{asks: "the same with `HEAD`", method: http.MethodHead, path: blob + w.nowhere.String(), sees: "404"},
		{asks: "a range of it", path: blob + w.nowhere.String(), header: "Range: bytes=10-19", sees: noBlob},
		{asks: "a kept blob, in a repository that nothing here says has it", path: "/v2/other/blobs/" + w.layer.String(), sees: noBlob},
		{asks: "the referrers of a kept image that had none", path: list + w.one.String(), sees: "200, none, Warning: 110"},
		{asks: "their tag", path: tag + referrers.TagOf(w.one), sees: "404 MANIFEST_UNKNOWN, Warning: 110"},
		{asks: "the referrers of a kept image that was never asked about", path: list + w.two.String(), sees: unknown},
		{asks: "their tag", path: tag + referrers.TagOf(w.two), sees: unknown},
		{asks: "the tag of its signatures", path: tag + referrers.TagOf(w.two) + ".sig", sees: unknown},
		{asks: "the referrers of a manifest that is not kept", path: list + w.nowhere.String(), sees: unknown},
		{asks: "the referrers of BuildKit's attestation, never asked about", path: list + w.attestation.String(), sees: "200, none, Warning: 110"},
		{asks: "the tags", path: "/v2/app/tags/list", sees: "200, Warning: 299"},
		{asks: "a page of them", path: "/v2/app/tags/list?n=1", sees: "200, Warning: 299"},
		{asks: "a page that only the upstream knows", path: "/v2/app/tags/list?next_page=x", sees: unknown},
		{asks: "the tags of a repository of which nothing is kept", path: "/v2/other/tags/list", sees: "404 NAME_UNKNOWN"},
		{asks: "an upstream that is not configured", path: "/v2/elsewhere.test/app/manifests/1", sees: "404 NAME_UNKNOWN"},
	}
}

func offlineFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		fake := upstreamtest.New(t)
		s := setup{dir: t.TempDir(), options: func(o *pulling.Options) { o.Rules.TagTTL, o.Rules.ReferrersTTL = 0, 0 }}
		w := pullBeforeOffline(t, fake, s)
		fake.Transcript()
		s.options = func(o *pulling.Options) {
			o.Rules.TagTTL, o.Rules.ReferrersTTL = 0, 0
			o.Upstreams[0].Offline = true
		}
		m := newMirror(t, fake, s)
		for i, row := range w.rows() {
			t.Run(row.asks, func(t *testing.T) {
				header := http.Header{}
				if name, value, ok := strings.Cut(row.header, ": "); ok {
					header.Set(name, value)
				}
				method := http.MethodGet
				if row.method != "" {
					method = row.method
				}
				sees := offlineSees(m.do(method, row.path, header))
				if sees != row.sees {
					t.Errorf("the client saw %q, want %q", sees, row.sees)
				}
				lines.add(i, row.asks, sees)
			})
		}
		m.wantAsked()
	})
	return "## Offline\n\nThe whole mirror, or this upstream, has `offline: true`: no request is sent, and no answer is waited for. " +
		"Images were pulled before; what is fresh no more has a warning.\n\n" +
		lines.table("the client asks for", "the client sees")
}

// pullBeforeOffline pulls what is kept of the world.
func pullBeforeOffline(t *testing.T, fake *upstreamtest.Registry, s setup) offlineWorld {
	t.Helper()
	one, manifest := fake.AddImage("app", "1", upstreamtest.Bytes(1, 1000))
	two, _ := fake.AddImage("app", "2", upstreamtest.Bytes(2, 1000))
	attestation, _ := fake.AddImage("app", "", []byte("provenance"))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": two.Digest.String()}
	fake.AddIndex("app", "index", two, attestation)
	layer := manifest.Layers[0].Digest
	before := newMirror(t, fake, s)
	for _, path := range []string{"manifests/1", "manifests/2", "manifests/index", "blobs/" + layer.String(), "referrers/" + one.Digest.String()} {
		if a := before.get("/v2/app/" + path); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
	}
	before.stop()
	return offlineWorld{one.Digest, two.Digest, attestation.Digest, layer, one.Digest.Algorithm().FromString("nowhere")}
}

// offlineSees is what a client sees: a status, the code of an error, what its
// message says of this mirror, and the code of a warning.
func offlineSees(a errorResponse) string {
	sees := fmt.Sprint(a.status)
	if a.code != "" {
		sees += " " + a.code
	}
	var index ocispec.Index
	if a.status == http.StatusOK && a.header.Get("Content-Type") == ocispec.MediaTypeImageIndex && json.Unmarshal(a.body, &index) == nil && len(index.Manifests) == 0 {
		sees += ", none"
	}
	switch {
	case strings.Contains(string(a.body), "offline, and not kept here: this mirror may not ask hub.test"):
		sees += ", offline, and not kept here"
	case strings.Contains(string(a.body), "offline, and nothing that is kept here says whether there is any"):
		sees += ", offline"
	}
	if warning := a.header.Get("Warning"); warning != "" {
		sees += ", Warning: " + warning[:3]
	}
	return sees
}

// An absentRow is what an upstream does after it has said that a tag does not
// exist.
type absentRow struct {
	name      string
	fault     func(*upstreamtest.Registry)
	tag, none string // what a client sees of the tag, and in a repository of which nothing is kept
	attached  string // of the tag of an attestation of a kept image
}

func absentFaults(t *testing.T) string {
	status := func(status int, code string) func(*upstreamtest.Registry) {
		return func(r *upstreamtest.Registry) { r.Always("", upstreamtest.Status(status, code)) }
	}
	const kept = "404 MANIFEST_UNKNOWN, Warning: 110"
	rows := []absentRow{
		{"the connection is refused", func(r *upstreamtest.Registry) { r.Stop() }, kept, "502 UNAVAILABLE", kept},
		{"the connection breaks", func(r *upstreamtest.Registry) { r.Always("", upstreamtest.Hangup()) }, "502 UNAVAILABLE", "502 UNAVAILABLE", "502 UNAVAILABLE"},
		{"503", status(http.StatusServiceUnavailable, "UNKNOWN"), kept, "502 UNAVAILABLE", kept},
		{"200 with HTML", func(r *upstreamtest.Registry) { r.Always("", upstreamtest.HTML()) }, "502 UNAVAILABLE", "502 UNAVAILABLE", "502 UNAVAILABLE"},
		{"429", func(r *upstreamtest.Registry) { r.Always("", upstreamtest.RateLimited(7)) }, "429 TOOMANYREQUESTS", "429 TOOMANYREQUESTS", "429 TOOMANYREQUESTS"},
		{"401", status(http.StatusUnauthorized, "UNAUTHORIZED"), "403 DENIED", "403 DENIED", "403 DENIED"},
		{"403", status(http.StatusForbidden, "DENIED"), "403 DENIED", "403 DENIED", "403 DENIED"},
	}
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				fake := upstreamtest.New(t)
				image, _ := fake.AddImage("app", "1", upstreamtest.Bytes(1, 1000))
				fake.AddImage("other", "1", upstreamtest.Bytes(2, 1000))
				paths := []string{"/v2/app/manifests/1.x", "/v2/other/manifests/1.x", "/v2/app/manifests/" + referrers.TagOf(image.Digest) + ".att"}
				s := setup{dir: t.TempDir()}
				before := newMirror(t, fake, s)
				if a := before.get("/v2/app/manifests/1"); a.status != http.StatusOK {
					t.Fatal(a.status)
				}
				for _, path := range paths {
					if a := before.get(path); a.status != http.StatusNotFound {
						t.Fatalf("%s: %d", path, a.status)
					}
				}
				before.stop()
				row.fault(fake)
				m := newMirror(t, fake, s)
				var sees []string
				for _, path := range paths {
					sees = append(sees, offlineSees(m.get(path)))
				}
				if sees[0] != row.tag || sees[1] != row.none || sees[2] != row.attached {
					t.Errorf("the client saw %q", sees)
				}
				lines.add(i, append([]string{row.name}, sees...)...)
			})
		}
	})
	return "## Tags that do not exist\n\nThe upstream has said that a tag does not exist, and then fails. A kept \"no\" is an hour old at most; " +
		"that a kept image has no such tag of cosign's is kept with the image.\n\n" +
		lines.table("the upstream", "for a tag the client sees", "in a repository of which nothing is cached", "for the tag of an attestation of a cached image")
}
