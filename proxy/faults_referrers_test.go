package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A source of referrers, and how it comes to know of one.
type referrersSource struct {
	name string
	api  bool
	// attach lets the source know of one more referrer.
	attach func(r *upstreamtest.Registry, subject ocispec.Descriptor, all []ocispec.Descriptor)
	// asks is what the upstream is asked for, in the words of its transcript.
	asks func(subject, referrer ocispec.Descriptor) string
	// by is how the referrer is made; nil is with a subject of its own.
	by func(r *upstreamtest.Registry, subject ocispec.Descriptor, name string) ocispec.Descriptor
	// before pulls what the source has to have seen to know anything, and the
	// first referrer: what fails are requests about the second.
	before func(m *mirror, first ocispec.Descriptor)
}

func referrersSources() []referrersSource {
	listed := func(r *upstreamtest.Registry, subject ocispec.Descriptor, all []ocispec.Descriptor) {
		r.AddIndex("app", referrers.TagOf(subject.Digest), all...)
	}
	nowhere := func(*upstreamtest.Registry, ocispec.Descriptor, []ocispec.Descriptor) {}
	itself := func(_, referrer ocispec.Descriptor) string {
		return "manifests app " + upstreamtest.Short(referrer.Digest.String())
	}
	return []referrersSource{
		{name: "the Referrers API", api: true, attach: nowhere, asks: func(subject, _ ocispec.Descriptor) string {
			return "referrers app " + upstreamtest.Short(subject.Digest.String())
		}},
		{name: "a manifest that the API lists", api: true, attach: nowhere, asks: itself},
		{name: "the referrers tag", attach: listed, asks: func(subject, _ ocispec.Descriptor) string {
			return "manifests app " + referrers.TagOf(subject.Digest)
		}},
		{name: "a manifest that the tag lists", attach: listed, asks: itself},
		{
			name: "cosign's tag, enabled", attach: nowhere,
			asks: func(subject, _ ocispec.Descriptor) string { return "manifests app " + cosignTag(subject) },
			by: func(r *upstreamtest.Registry, subject ocispec.Descriptor, name string) ocispec.Descriptor {
				made, _ := r.AddImage("app", cosignTag(subject), []byte(name))
				return made
			},
		},
		{
			name: "an attestation in an index that was pulled", asks: itself,
			attach: func(r *upstreamtest.Registry, subject ocispec.Descriptor, all []ocispec.Descriptor) {
				entries := []ocispec.Descriptor{subject}
				for _, d := range all {
					d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
					d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject.Digest.String()}
					entries = append(entries, d)
				}
				r.AddIndex("app", "attested", entries...)
			},
			before: func(m *mirror, first ocispec.Descriptor) {
				m.get("/v2/app/manifests/attested")
				m.get("/v2/app/manifests/" + first.Digest.String())
			},
		},
	}
}

func cosignTag(subject ocispec.Descriptor) string {
	return strings.Replace(subject.Digest.String(), ":", "-", 1) + ".sig"
}

type referrersFault struct {
	name  string
	fault upstreamtest.Fault
	// silent marks what a time limit has to end.
	silent bool
	// says that the upstream gave its word: what it does not list is not there.
	says bool
}

func referrersFaultList() []referrersFault {
	garbage := []byte(`{"schemaVersion": 2, "manifests": "` + strings.Repeat("x", 5<<20) + `"}`)
	return []referrersFault{
		{name: "404", fault: upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"), says: true},
		{name: "405", fault: upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED")},
		{name: "401", fault: upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED")},
		{name: "403", fault: upstreamtest.Status(http.StatusForbidden, "DENIED")},
		{name: "429 with Retry-After: 7", fault: upstreamtest.RateLimited(7)},
		{name: "500", fault: upstreamtest.Status(http.StatusInternalServerError, "UNKNOWN")},
		{name: "503", fault: upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN")},
		{name: "200 with HTML", fault: upstreamtest.HTML()},
		{name: "a redirect", fault: upstreamtest.Redirect("http://169.254.169.254/login")},
		{name: "5 MB of garbage", fault: upstreamtest.Body(ocispec.MediaTypeImageIndex, garbage)},
		{name: "half an index", fault: upstreamtest.Body(ocispec.MediaTypeImageIndex, garbage[:40])},
		{name: "a broken connection", fault: upstreamtest.Hangup()},
		{name: "no headers", silent: true, fault: upstreamtest.Silent()},
	}
}

func referrersFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, source := range referrersSources() {
			for j, fault := range referrersFaultList() {
				t.Run(source.name+", "+fault.name, func(t *testing.T) {
					t.Parallel()
					cold := runReferrersFault(t, source, fault, false)
					kept := runReferrersFault(t, source, fault, true)
					lines.add(i*100+j, source.name, fault.name, cold, kept)
				})
			}
		}
	})
	return "## Referrers\n\nTwo manifests refer to the image, both listed by one source, and that source fails. Either the referrers were never requested, or the first " +
		"one was listed before the second was added and the source failed. \"Known\" is a 200; \"stale\" is a 200 with a `Warning: 110`; unknown is an error, " +
		"never an empty list. What one source lists is served as stale while another cannot be asked. In all of these cases both manifests are listed as soon as " +
		"the source answers again.\n\nThe one exception is a manifest that a cached index marks as a BuildKit attestation: if no source can be asked, " +
		"the answer is an empty list with a `Warning: 110`, because Docker requests it at every pull, and fails an otherwise complete pull over an error.\n\n" +
		lines.table("the source", "answers", "never requested before", "one was known before")
}

func runReferrersFault(t *testing.T, source referrersSource, fault referrersFault, knownBefore bool) string {
	t.Helper()
	var options []upstreamtest.Option
	if source.api {
		options = append(options, upstreamtest.WithReferrers())
	}
	fake := upstreamtest.New(t, options...)
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	s := setup{dir: t.TempDir(), once: true, silent: fault.silent, options: func(o *pulling.Options) {
		o.Rules.ReferrersTTL, o.Rules.TagTTL = time.Nanosecond, time.Nanosecond
		o.Upstreams[0].CosignTags = source.by != nil
	}}
	path := "/v2/app/referrers/" + subject.Digest.String()
	var all []ocispec.Descriptor
	attach := func(name string) {
		by := source.by
		if by == nil {
			by = func(r *upstreamtest.Registry, subject ocispec.Descriptor, name string) ocispec.Descriptor {
				return r.AddReferrer("app", subject, "application/vnd.example."+name, []byte(name))
			}
		} else {
			all = nil // a tag has one of them
		}
		all = append(all, by(fake, subject, name))
		source.attach(fake, subject, all)
	}
	list := func(m *mirror) (sees string, listed []string) {
		if source.before != nil {
			source.before(m, all[0])
		}
		a := m.get(path)
		if a.status != http.StatusOK {
			return fmt.Sprintf("%d %s", a.status, a.code), nil
		}
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil {
			t.Errorf("%s: %v", a.body, err)
		}
		for _, d := range index.Manifests {
			listed = append(listed, d.Digest.String())
		}
		how := "known"
		if a.header.Get("Warning") != "" {
			how = "stale"
		}
		return fmt.Sprintf("%s, %d of %d", how, len(listed), len(all)), listed
	}
	m := newMirror(t, fake, s)
	attach("first")
	if knownBefore {
		if sees, _ := list(m); sees != "known, 1 of 1" {
			t.Errorf("before the fault: %s", sees)
		}
	}
	attach("second")
	if source.before != nil {
		source.before(m, all[0])
	}
	fake.Always(source.asks(subject, all[len(all)-1]), fault.fault)
	sees, listed := list(m)
	if strings.HasPrefix(sees, "404") {
		t.Errorf("unknown went out as none: %s", sees)
	}
	if strings.HasPrefix(sees, "known") && len(listed) < len(all) && !fault.says && !learnsNoAPI(source, fault) {
		t.Errorf("a shorter list went out as the whole: %s", sees)
	}
	// What breaks is forgotten with the process; what is kept is not.
	m.stop()
	fake.Mend()
	s.silent = false
	again, mended := list(newMirror(t, fake, s))
	for _, d := range all {
		if !slices.Contains(mended, d.Digest.String()) {
			t.Errorf("once mended: %s, without %s", again, d.Digest)
		}
	}
	return sees
}

// learnsNoAPI says that the answer means that the upstream has no Referrers
// API (W55), so that its referrers tag has the word.
func learnsNoAPI(source referrersSource, fault referrersFault) bool {
	return source.name == "the Referrers API" && slices.Contains([]string{"405", "200 with HTML", "a redirect"}, fault.name)
}
