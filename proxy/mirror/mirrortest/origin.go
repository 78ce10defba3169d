// Package mirrortest provides a mirror of a registry within the process, for
// tests of the packages behind the proxy.
package mirrortest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/cachetest/content"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// Origin is a registry within the process, for tests whose clock is synctest's:
// network connections would prevent that clock from advancing. It serves the
// content it is given, fails as requested, and records the requests it
// receives.
type Origin struct {
	// DigestOf is the digest that is reported for a manifest. It is the digest
	// of the body, except for signed schema 1 manifests.
	DigestOf func(body []byte) Digest

	mu       sync.Mutex
	Content  map[string]Served // by repository and reference
	asked    []string
	failures map[string][]error // by transcript line, in order
	Bodies   func(repo string, d Digest, from int64, body []byte) io.ReadCloser
	NoRange  bool
	NoHEAD   bool         // HEAD responses have no digest
	NoLength bool         // blob responses have no Content-Length
	API      bool         // has the Referrers API
	Claims   []Descriptor // what the Referrers API lists beside what is there
	Unusable int          // how many entries of the Referrers API are none
	gates    map[string]chan struct{}
	stale    map[string]bool
	cuts     map[string]cut
}

// Served is content with its media type.
type Served struct {
	MediaType string
	Body      []byte
}

// NewOrigin returns an Origin without content.
func NewOrigin() *Origin {
	return &Origin{
		DigestOf: content.Digest, Content: map[string]Served{}, failures: map[string][]error{},
		gates: map[string]chan struct{}{}, stale: map[string]bool{}, cuts: map[string]cut{},
	}
}

// Put makes content available by digest and under tags.
func (o *Origin) Put(repo, mediaType string, body []byte, tags ...string) Descriptor {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := content.Digest(body)
	for _, ref := range append(tags, d.String()) {
		o.Content[repo+" "+ref] = Served{mediaType, body}
	}
	return Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}

// Replace serves something else under a digest.
func (o *Origin) Replace(repo string, d Digest, mediaType string, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Content[repo+" "+d.String()] = Served{mediaType, body}
}

// Remove removes content, by a tag or a digest.
func (o *Origin) Remove(repo, ref string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.Content, repo+" "+ref)
}

// Fail makes requests with that transcript line fail, once for each error.
func (o *Origin) Fail(line string, errs ...error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures[line] = append(o.failures[line], errs...)
}

// Hold blocks requests with that transcript line until release is called.
func (o *Origin) Hold(line string) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	gate := make(chan struct{})
	o.gates[line] = gate
	return sync.OnceFunc(func() { close(gate) })
}

// Transcript returns the requests since the last call, sorted.
func (o *Origin) Transcript() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked := o.asked
	o.asked = nil
	slices.Sort(asked)
	return asked
}

func (o *Origin) ask(ctx context.Context, line, repo, ref string) (Served, error) {
	o.mu.Lock()
	o.asked = append(o.asked, line)
	gate := o.gates[line]
	o.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return Served{}, fmt.Errorf("%s: %w", line, ctx.Err())
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range []string{line, "*"} {
		if errs := o.failures[key]; len(errs) > 0 {
			if key != "*" {
				o.failures[key] = errs[1:]
			}
			return Served{}, fmt.Errorf("%s: %w", line, errs[0])
		}
	}
	c, ok := o.Content[repo+" "+ref]
	if !ok {
		return Served{}, fmt.Errorf("%s: %w", line, upstream.ErrNotFound)
	}
	return c, nil
}

// Short abbreviates a reference for a transcript: digests by their first
// characters.
func Short(ref string) string {
	if d, err := digest.Parse(ref); err == nil {
		return d.Encoded()[:6]
	}
	return ref
}

// Resolve implements [upstream.Registry].
func (o *Origin) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	line := "HEAD manifest " + repo + " " + Short(ref)
	c, err := o.ask(ctx, line, repo, ref)
	switch isTag := !strings.Contains(ref, ":"); {
	case isTag && o.isStale(line) && (err == nil || errors.Is(err, upstream.ErrNotFound)):
		return Descriptor{}, fmt.Errorf("%s: %w", line, upstream.ErrStale)
	case err != nil:
		return Descriptor{}, err
	}
	if o.NoHEAD {
		return Descriptor{Size: -1}, nil
	}
	return Descriptor{MediaType: c.MediaType, Digest: content.Digest(c.Body), Size: int64(len(c.Body))}, nil
}

// Manifest implements [upstream.Registry].
func (o *Origin) Manifest(ctx context.Context, repo, ref string) (upstream.Content, error) {
	line := "GET manifest " + repo + " " + Short(ref)
	c, err := o.ask(ctx, line, repo, ref)
	switch {
	case o.isStale(line) && errors.Is(err, upstream.ErrNotFound):
		return upstream.Content{}, fmt.Errorf("%s: %w", line, upstream.ErrStale)
	case err != nil:
		return upstream.Content{}, err
	}
	return upstream.Content{
		Body: io.NopCloser(bytes.NewReader(c.Body)), MediaType: c.MediaType,
		Digest: o.DigestOf(c.Body), Size: int64(len(c.Body)), Stale: o.isStale(line),
	}, nil
}

// ResolveBlob implements [upstream.Registry].
func (o *Origin) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	c, err := o.ask(ctx, "HEAD blob "+repo+" "+Short(d.String()), repo, d.String())
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: d, Size: int64(len(c.Body))}, nil
}

// Blob implements [upstream.Registry].
func (o *Origin) Blob(ctx context.Context, repo string, d Digest, from, n int64) (upstream.Content, error) {
	line := "GET blob " + repo + " " + Short(d.String())
	if from > 0 || n >= 0 {
		line += fmt.Sprintf(" %d+%d", from, n)
	}
	c, err := o.ask(ctx, line, repo, d.String())
	if err != nil {
		return upstream.Content{}, err
	}
	size := int64(len(c.Body))
	whole := o.NoRange && (from > 0 || n >= 0)
	if o.NoRange {
		from, n = 0, -1
	}
	body := c.Body[from:]
	if n >= 0 {
		body = body[:min(n, int64(len(body)))]
	}
	var rc io.ReadCloser = io.NopCloser(bytes.NewReader(body))
	if o.Bodies != nil {
		rc = o.Bodies(repo, d, from, body)
	}
	if o.NoLength {
		size = -1
	}
	return upstream.Content{Body: rc, MediaType: c.MediaType, Size: size, From: from, Whole: whole}, nil
}

// Referrers implements [upstream.Registry].
func (o *Origin) Referrers(ctx context.Context, repo string, subject Digest) (upstream.ReferrersList, error) {
	line := "GET referrers " + repo + " " + Short(subject.String())
	if _, err := o.ask(ctx, line, repo, subject.String()); err != nil && !strings.Contains(err.Error(), upstream.ErrNotFound.Error()) {
		return upstream.ReferrersList{}, err
	}
	if !o.API {
		return upstream.ReferrersList{}, fmt.Errorf("%s: %w", line, upstream.ErrNoAPI)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []Descriptor
	for key, c := range o.Content {
		var m struct {
			ArtifactType string
			Annotations  map[string]string
			Subject      *Descriptor
		}
		if !strings.HasPrefix(key, repo+" sha256:") || json.Unmarshal(c.Body, &m) != nil || m.Subject == nil || m.Subject.Digest != subject {
			continue
		}
		list = append(list, Descriptor{
			MediaType: c.MediaType, Digest: content.Digest(c.Body), Size: int64(len(c.Body)),
			ArtifactType: m.ArtifactType, Annotations: m.Annotations,
		})
	}
	slices.SortFunc(list, func(a, b Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	answer := upstream.ReferrersList{Manifests: append(list, o.Claims...), Unusable: o.Unusable, At: time.Now(), Stale: o.stale[line] || o.stale["*"]}
	if cut, ok := o.cuts[line]; ok {
		answer.Manifests = answer.Manifests[:min(cut.after, len(answer.Manifests))]
		return answer, fmt.Errorf("%s: a later page: %w", line, cut.err)
	}
	return answer, nil
}

// Tags implements [upstream.Registry].
func (o *Origin) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	if _, err := o.ask(ctx, "GET tags "+repo+" "+page.Encode(), repo, "tags"); err != nil {
		return upstream.TagList{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var tags []string
	for key := range o.Content {
		if ref, ok := strings.CutPrefix(key, repo+" "); ok && !strings.Contains(ref, ":") && ref != "tags" {
			tags = append(tags, ref)
		}
	}
	slices.Sort(tags)
	return upstream.TagList{Tags: tags}, nil
}

// Image adds a one-layer image to the origin and returns its parts.
func (o *Origin) Image(repo, tag string, layer []byte) (manifest, blob Descriptor) {
	config := o.Put(repo, ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"},"created_by":%q}`, tag))
	blob = o.Put(repo, ocispec.MediaTypeImageLayer, layer)
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []Descriptor{blob},
	})
	if err != nil {
		panic(err)
	}
	return o.Put(repo, ocispec.MediaTypeImageManifest, raw, tag), blob
}

// Bytes returns n bytes that look random and are always the same for a seed.
func Bytes(seed byte, n int) []byte { return content.Bytes(seed, n) }

// WantTranscript checks the requests to the origin, in any order.
func WantTranscript(t *testing.T, o *Origin, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := o.Transcript(); !slices.Equal(got, want) {
		t.Errorf("the upstream was asked\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Attach adds a referrer of subject to the origin without listing it anywhere.
func (o *Origin) Attach(subject Descriptor, artifactType string) Descriptor {
	empty := o.Put("app", ocispec.MediaTypeEmptyJSON, []byte("{}"))
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: empty, Layers: []Descriptor{empty},
		Annotations: map[string]string{"made-by": artifactType},
	}
	if subject.Digest != "" {
		m.Subject = &subject
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return o.Put("app", ocispec.MediaTypeImageManifest, raw)
}

// List adds a referrers tag to the origin, with descriptors that are as
// incomplete as those of real registries (wire fact W51).
func (o *Origin) List(subject Digest, children ...Descriptor) {
	index := ocispec.Index{MediaType: IndexType, Manifests: []Descriptor{}}
	index.SchemaVersion = 2
	for _, c := range children {
		c.ArtifactType = ocispec.MediaTypeEmptyJSON
		index.Manifests = append(index.Manifests, c)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		panic(err)
	}
	o.Put("app", IndexType, raw, referrers.TagOf(subject))
}

// FailAll makes every request fail from now on.
func (o *Origin) FailAll() { o.Fail("*", upstream.ErrRefused) }

// Count is how often a line occurs.
func Count(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// ClearFailures removes all failures.
func (o *Origin) ClearFailures() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures = map[string][]error{}
}

// Get returns the content under a tag or a digest.
func (o *Origin) Get(repo, ref string) (Served, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.Content[repo+" "+ref]
	return c, ok
}

// CutAfter returns a body that fails after n bytes.
func CutAfter(body []byte, n int, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(body[:min(n, len(body))]), Failing{err}))
}

// Failing fails each Read.
type Failing struct{ Err error }

// Read fails.
func (f Failing) Read([]byte) (int, error) { return 0, f.Err }
