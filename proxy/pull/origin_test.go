package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/upstream"
)

// origin is a registry within the process, for tests whose clock is
// synctest's: sockets would keep that from moving. It has the content it is
// given, fails as it is told, and writes down what it was asked.
type origin struct {
	mu       sync.Mutex
	content  map[string]served // by repository and reference
	asked    []string
	failures map[string][]error // by line of the transcript, first to last
	bodies   func(repo string, d Digest, from int64, body []byte) io.ReadCloser
	noRange  bool
	noHEAD   bool // HEADs tell no digest
	noLength bool // bodies of blobs come without a size
	api      bool // has the Referrers API
	gate     map[string]chan struct{}
}

type served struct {
	mediaType string
	body      []byte
}

func newOrigin() *origin {
	return &origin{content: map[string]served{}, failures: map[string][]error{}, gate: map[string]chan struct{}{}}
}

// put makes content pullable by digest and under tags.
func (o *origin) put(repo, mediaType string, body []byte, tags ...string) Descriptor {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := digest.FromBytes(body)
	for _, ref := range append(tags, d.String()) {
		o.content[repo+" "+ref] = served{mediaType, body}
	}
	return Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}

// replace answers for a digest with something else.
func (o *origin) replace(repo string, d Digest, mediaType string, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.content[repo+" "+d.String()] = served{mediaType, body}
}

func (o *origin) remove(repo, ref string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.content, repo+" "+ref)
}

// fail makes requests with that line of the transcript fail, once for each error.
func (o *origin) fail(line string, errs ...error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failures[line] = append(o.failures[line], errs...)
}

// hold makes requests with that line wait until the function it returns is called.
func (o *origin) hold(line string) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	gate := make(chan struct{})
	o.gate[line] = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (o *origin) transcript() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked := o.asked
	o.asked = nil
	slices.Sort(asked)
	return asked
}

func (o *origin) ask(ctx context.Context, line, repo, ref string) (served, error) {
	o.mu.Lock()
	o.asked = append(o.asked, line)
	gate := o.gate[line]
	o.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return served{}, fmt.Errorf("%s: %w", line, ctx.Err())
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range []string{line, "*"} {
		if errs := o.failures[key]; len(errs) > 0 {
			if key != "*" {
				o.failures[key] = errs[1:]
			}
			return served{}, fmt.Errorf("%s: %w", line, errs[0])
		}
	}
	c, ok := o.content[repo+" "+ref]
	if !ok {
		return served{}, fmt.Errorf("%s: %w", line, upstream.ErrNotFound)
	}
	return c, nil
}

// short names a reference in a transcript: digests by their first characters.
func short(ref string) string {
	if d, err := digest.Parse(ref); err == nil {
		return d.Encoded()[:6]
	}
	return ref
}

func (o *origin) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	c, err := o.ask(ctx, "HEAD manifest "+repo+" "+short(ref), repo, ref)
	if err != nil {
		return Descriptor{}, err
	}
	if o.noHEAD {
		return Descriptor{Size: -1}, nil
	}
	return Descriptor{MediaType: c.mediaType, Digest: digest.FromBytes(c.body), Size: int64(len(c.body))}, nil
}

func (o *origin) Manifest(ctx context.Context, repo, ref string) (upstream.Content, error) {
	c, err := o.ask(ctx, "GET manifest "+repo+" "+short(ref), repo, ref)
	if err != nil {
		return upstream.Content{}, err
	}
	return upstream.Content{
		Body: io.NopCloser(bytes.NewReader(c.body)), MediaType: c.mediaType,
		Digest: digest.FromBytes(signedPayload(c.body)), Size: int64(len(c.body)),
	}, nil
}

func (o *origin) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	c, err := o.ask(ctx, "HEAD blob "+repo+" "+short(d.String()), repo, d.String())
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: d, Size: int64(len(c.body))}, nil
}

func (o *origin) Blob(ctx context.Context, repo string, d Digest, from, n int64) (upstream.Content, error) {
	line := "GET blob " + repo + " " + short(d.String())
	if from > 0 || n >= 0 {
		line += fmt.Sprintf(" %d+%d", from, n)
	}
	c, err := o.ask(ctx, line, repo, d.String())
	if err != nil {
		return upstream.Content{}, err
	}
	size := int64(len(c.body))
	if o.noRange {
		from, n = 0, -1
	}
	body := c.body[from:]
	if n >= 0 {
		body = body[:min(n, int64(len(body)))]
	}
	var rc io.ReadCloser = io.NopCloser(bytes.NewReader(body))
	if o.bodies != nil {
		rc = o.bodies(repo, d, from, body)
	}
	if o.noLength {
		size = -1
	}
	return upstream.Content{Body: rc, MediaType: c.mediaType, Size: size, From: from}, nil
}

func (o *origin) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	line := "GET referrers " + repo + " " + short(subject.String())
	if _, err := o.ask(ctx, line, repo, subject.String()); err != nil && !strings.Contains(err.Error(), upstream.ErrNotFound.Error()) {
		return nil, err
	}
	if !o.api {
		return nil, fmt.Errorf("%s: %w", line, upstream.ErrNoAPI)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []Descriptor
	for key, c := range o.content {
		var m struct {
			ArtifactType string
			Annotations  map[string]string
			Subject      *Descriptor
		}
		if !strings.HasPrefix(key, repo+" sha256:") || json.Unmarshal(c.body, &m) != nil || m.Subject == nil || m.Subject.Digest != subject {
			continue
		}
		list = append(list, Descriptor{
			MediaType: c.mediaType, Digest: digest.FromBytes(c.body), Size: int64(len(c.body)),
			ArtifactType: m.ArtifactType, Annotations: m.Annotations,
		})
	}
	return list, nil
}

func (o *origin) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	if _, err := o.ask(ctx, "GET tags "+repo+" "+page.Encode(), repo, "tags"); err != nil {
		return upstream.TagList{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var tags []string
	for key := range o.content {
		if ref, ok := strings.CutPrefix(key, repo+" "); ok && !strings.Contains(ref, ":") && ref != "tags" {
			tags = append(tags, ref)
		}
	}
	slices.Sort(tags)
	return upstream.TagList{Tags: tags}, nil
}

// mirror is a Puller over one origin called "hub".
type mirror struct {
	*Puller
	origin *origin
	store  *memory.Cache
}

func newMirror(t *testing.T, o *origin, change func(*Options)) mirror {
	t.Helper()
	store := memory.New()
	content, err := memory.NewContent(0)
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{
		Blobs: store.Blobs(), Records: store.Records(), Memory: content,
		Upstreams:    []Upstream{{Name: "hub", Registry: o}},
		TagTTL:       time.Minute,
		ReferrersTTL: 5 * time.Minute,
		NegativeTTL:  30 * time.Second,
		MaxWait:      2 * time.Second,
		Logger:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opts)
	}
	p := New(opts)
	t.Cleanup(p.Close)
	return mirror{p, o, store}
}

var hubApp = Repository{Upstream: "hub", Name: "app"}

// image puts a one-layer image into the origin and returns its parts.
func (o *origin) image(repo, tag string, layer []byte) (manifest, blob Descriptor) {
	config := o.put(repo, ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"},"created_by":%q}`, tag))
	blob = o.put(repo, ocispec.MediaTypeImageLayer, layer)
	raw, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []Descriptor{blob},
	})
	if err != nil {
		panic(err)
	}
	return o.put(repo, ocispec.MediaTypeImageManifest, raw, tag), blob
}

func bytesOf(seed byte, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		panic(err)
	}
	return b
}

func wantTranscript(t *testing.T, o *origin, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := o.transcript(); !slices.Equal(got, want) {
		t.Errorf("the upstream was asked\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}
