package retention_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// world is everything that the upstream of the model has and ever had. It
// changes only between steps.
type world struct {
	*mirrortest.Origin
	random *rand.Rand
	made   int // names what is made

	bodies map[retention.Digest]mirrortest.Served
	hangs  map[retention.Digest]retention.Digest                   // what a manifest refers to, of those that refer
	held   map[retention.Repository]map[retention.Digest]time.Time // since when a repository has content
	tags   map[retention.Reference][]era
	shelf  map[retention.Repository][]retention.Descriptor // layers to be shared
}

// era is a period during which a tag pointed at one manifest, or did not exist.
type era struct {
	digest retention.Digest
	from   time.Time
}

// secret is the repository with layers that no other repository has.
var secret = retention.Repository{Upstream: "hub", Name: "secret"}

func newWorld(random *rand.Rand) *world {
	w := &world{
		Origin: mirrortest.NewOrigin(), random: random,
		bodies: map[retention.Digest]mirrortest.Served{}, hangs: map[retention.Digest]retention.Digest{}, held: map[retention.Repository]map[retention.Digest]time.Time{},
		tags: map[retention.Reference][]era{}, shelf: map[retention.Repository][]retention.Descriptor{},
	}
	w.API = random.IntN(2) == 0
	for _, repo := range w.repositories() {
		w.Put(repo.Name, "application/json", []byte("{}"), "tags") // the origin wants to have its list
	}
	return w
}

func (w *world) repositories() []retention.Repository {
	return []retention.Repository{mirrortest.App, {Upstream: "hub", Name: "lib"}, {Upstream: "hub", Name: "org/tool"}, secret}
}

// choose returns one of several values, or the zero value if there are none.
func choose[T any](random *rand.Rand, of []T) (one T) {
	if len(of) > 0 {
		one = of[random.IntN(len(of))]
	}
	return one
}

func sorted[K interface{ ~string }, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (w *world) add(repo retention.Repository, mediaType string, body []byte) retention.Descriptor {
	d := w.Put(repo.Name, mediaType, body)
	if w.bodies[d.Digest].MediaType != mediaType {
		w.bodies[d.Digest] = mirrortest.Served{MediaType: mediaType, Body: body}
		delete(w.hangs, d.Digest)
		if _, _, subject, err := referrers.Names(mediaType, referrers.Parse(body)); err == nil && subject != nil {
			w.hangs[d.Digest] = subject.Digest
		}
	}
	if w.held[repo] == nil {
		w.held[repo] = map[retention.Digest]time.Time{}
	}
	if w.held[repo][d.Digest].IsZero() {
		w.held[repo][d.Digest] = time.Now()
	}
	return d
}

func (w *world) encode(repo retention.Repository, mediaType string, v any) retention.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return w.add(repo, mediaType, raw)
}

// setTag makes a tag point at a manifest, or deletes it if d is empty.
func (w *world) setTag(repo retention.Repository, tag string, d retention.Digest) {
	ref := retention.Reference{Repository: repo, Ref: tag}
	w.tags[ref] = append(w.tags[ref], era{d, time.Now()})
	if d == "" {
		w.Remove(repo.Name, tag)
		return
	}
	w.Put(repo.Name, w.bodies[d].MediaType, w.bodies[d].Body, tag)
}

// now is what a tag points at.
func (w *world) now(ref retention.Reference) (e era, index int) {
	if eras := w.tags[ref]; len(eras) > 0 {
		return eras[len(eras)-1], len(eras) - 1
	}
	return era{}, 0
}

func (w *world) layer(repo retention.Repository) retention.Descriptor {
	if w.random.IntN(3) == 0 && len(w.shelf[repo]) > 0 {
		return choose(w.random, w.shelf[repo])
	}
	if w.random.IntN(6) == 0 && repo != secret {
		// Mounted from elsewhere.
		from := choose(w.random, []retention.Repository{mirrortest.App, {Upstream: "hub", Name: "lib"}})
		if d := choose(w.random, w.shelf[from]); d.Digest != "" {
			w.add(repo, d.MediaType, w.bodies[d.Digest].Body)
			return d
		}
	}
	size := 1 + w.random.IntN(20<<10)
	switch w.random.IntN(20) {
	case 0:
		size = 64<<10 + w.random.IntN(80<<10)
	case 1, 2, 3, 4:
		size = 20<<10 + w.random.IntN(40<<10)
	}
	w.made++
	body := make([]byte, size)
	copy(body, fmt.Sprintf("layer %d ", w.made))
	for i := 16; i < size; i += 512 {
		body[i] = byte(w.random.Uint32())
	}
	d := w.add(repo, ocispec.MediaTypeImageLayer, body)
	w.shelf[repo] = append(w.shelf[repo], d)
	return d
}

// image is a new image of a few layers; hangsOn, its subject, may be nil.
func (w *world) image(repo retention.Repository, hangsOn *retention.Descriptor) retention.Descriptor {
	w.made++
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Subject: hangsOn,
		Config: w.add(repo, ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":%d}`, w.made)),
	}
	if hangsOn != nil {
		m.ArtifactType = fmt.Sprintf("application/vnd.example.%d", w.made)
	}
	seen := map[retention.Digest]bool{}
	for range 1 + w.random.IntN(4) {
		if d := w.layer(repo); !seen[d.Digest] {
			seen[d.Digest] = true
			m.Layers = append(m.Layers, d)
		}
	}
	if repo == mirrortest.App && w.random.IntN(5) == 0 {
		// A user who may push here claims to have a layer that only the secret
		// repository has.
		if d := choose(w.random, w.shelf[secret]); d.Digest != "" {
			d.URLs = []string{"https://elsewhere.test/layer"}
			m.Layers = append(m.Layers, d)
		}
	}
	return w.encode(repo, m.MediaType, m)
}

func (w *world) index(repo retention.Repository, nested bool) retention.Descriptor {
	w.made++
	index := ocispec.Index{MediaType: mirrortest.IndexType, Annotations: map[string]string{"made": fmt.Sprint(w.made)}}
	for range 1 + w.random.IntN(3) {
		switch {
		case nested && w.random.IntN(2) == 0:
			index.Manifests = append(index.Manifests, w.index(repo, false))
			continue
		case w.random.IntN(4) == 0:
			if d := w.taggedManifest(repo); d.Digest != "" {
				index.Manifests = append(index.Manifests, d)
				continue
			}
		}
		index.Manifests = append(index.Manifests, w.image(repo, nil))
	}
	return w.encode(repo, mirrortest.IndexType, index)
}

// taggedManifest is a manifest that a tag of repo points at.
func (w *world) taggedManifest(repo retention.Repository) retention.Descriptor {
	var all []retention.Digest
	for _, tag := range w.names() {
		if e, _ := w.now(retention.Reference{Repository: repo, Ref: tag}); e.digest != "" {
			all = append(all, e.digest)
		}
	}
	d := choose(w.random, all)
	return retention.Descriptor{MediaType: w.bodies[d].MediaType, Digest: d, Size: int64(len(w.bodies[d].Body))}
}

func (w *world) names() []string { return []string{"1", "2", "3", "latest"} }

// change changes the upstream between two steps.
func (w *world) change() {
	repo, tag := choose(w.random, w.repositories()), choose(w.random, w.names())
	subject := w.taggedManifest(repo)
	switch n := w.random.IntN(20); {
	case n < 9:
		w.setTag(repo, tag, w.image(repo, nil).Digest)
	case n < 13:
		w.setTag(repo, tag, w.index(repo, n == 9).Digest)
	case n < 15: // another name for the same, or back to what was
		if was := choose(w.random, w.tags[retention.Reference{Repository: repo, Ref: choose(w.random, w.names())}]); was.digest != "" {
			w.setTag(repo, tag, was.digest)
		}
	case n < 16:
		if e, _ := w.now(retention.Reference{Repository: repo, Ref: tag}); e.digest != "" {
			w.setTag(repo, tag, "")
		}
	case subject.Digest == "":
	case n < 18:
		w.attach(repo, subject)
	default:
		w.setTag(repo, strings.Replace(subject.Digest.String(), ":", "-", 1)+".sig", w.image(repo, nil).Digest)
	}
}

// attach adds a referrer of subject, and lists it if there is no Referrers API.
func (w *world) attach(repo retention.Repository, subject retention.Descriptor) {
	w.image(repo, &subject)
	if w.API {
		return
	}
	index := ocispec.Index{MediaType: mirrortest.IndexType, Manifests: w.referrersOf(repo, subject.Digest)}
	index.SchemaVersion = 2
	w.setTag(repo, referrers.TagOf(subject.Digest), w.encode(repo, mirrortest.IndexType, index).Digest)
}

// referrersOf are the actual referrers of subject.
func (w *world) referrersOf(repo retention.Repository, subject retention.Digest) []retention.Descriptor {
	var all []retention.Descriptor
	for _, d := range sorted(w.held[repo]) {
		if on, hangs := w.hangs[d]; hangs && on == subject {
			all = append(all, retention.Descriptor{MediaType: w.bodies[d].MediaType, Digest: d, Size: int64(len(w.bodies[d].Body))})
		}
	}
	return all
}

// manifests are all that a repository ever had.
func (w *world) manifests(repo retention.Repository) []retention.Digest {
	var all []retention.Digest
	for _, d := range sorted(w.held[repo]) {
		if t := w.bodies[d].MediaType; t == ocispec.MediaTypeImageManifest || t == mirrortest.IndexType {
			all = append(all, d)
		}
	}
	return all
}

// mood is how the upstream answers.
type mood string

const (
	up    mood = "up"
	down  mood = "down"  // refuses connections
	slow  mood = "slow"  // answers later than clients wait for a check
	flaky mood = "flaky" // cuts, lies and fails, now and then
)

// testUpstream is the world as an upstream.Registry with changing moods.
type testUpstream struct {
	*world
	feels  atomic.Value // of mood
	luck   *luck
	blobs  *blobServer
	asking atomic.Int64
}

func (m *testUpstream) mood() mood { return m.feels.Load().(mood) }

func (m *testUpstream) be(now mood) { m.feels.Store(now) }

// luck is a random source for several goroutines.
type luck struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (l *luck) below(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// begin begins a request; the caller calls end.
func (m *testUpstream) begin(ctx context.Context) (end func(), err error) {
	m.asking.Add(1)
	end = func() { m.asking.Add(-1) }
	switch m.mood() {
	case down:
		return end, fmt.Errorf("unplugged: %w", upstream.ErrRefused)
	case slow:
		return end, background.Pause(ctx, 4*time.Second)
	case flaky:
		switch m.luck.below(12) {
		case 0:
			return end, fmt.Errorf("flaky: %w", upstream.ErrTimeout)
		case 1:
			return end, &upstream.RateLimitedError{RetryAfter: time.Second}
		}
	}
	return end, nil
}

func withMood[T any](ctx context.Context, m *testUpstream, fn func() (T, error)) (T, error) {
	end, err := m.begin(ctx)
	defer end()
	if err != nil {
		var none T
		return none, err
	}
	return fn()
}

func (m *testUpstream) Resolve(ctx context.Context, repo, ref string) (retention.Descriptor, error) {
	return withMood(ctx, m, func() (retention.Descriptor, error) { return m.Origin.Resolve(ctx, repo, ref) })
}

func (m *testUpstream) Manifest(ctx context.Context, repo, ref string) (upstream.Content, error) {
	return withMood(ctx, m, func() (upstream.Content, error) { return m.body(m.Origin.Manifest(ctx, repo, ref)) })
}

func (m *testUpstream) ResolveBlob(ctx context.Context, repo string, d retention.Digest) (retention.Descriptor, error) {
	return withMood(ctx, m, func() (retention.Descriptor, error) { return m.Origin.ResolveBlob(ctx, repo, d) })
}

func (m *testUpstream) Referrers(ctx context.Context, repo string, subject retention.Digest) (upstream.ReferrersList, error) {
	return withMood(ctx, m, func() (upstream.ReferrersList, error) { return m.Origin.Referrers(ctx, repo, subject) })
}

func (m *testUpstream) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	return withMood(ctx, m, func() (upstream.TagList, error) { return m.Origin.Tags(ctx, repo, page) })
}

// body lets a flaky upstream cut off manifests and flip bits.
func (m *testUpstream) body(c upstream.Content, err error) (upstream.Content, error) {
	if err != nil || m.mood() != flaky {
		return c, err
	}
	whole, err := io.ReadAll(c.Body)
	if err != nil || len(whole) == 0 {
		return c, err
	}
	switch m.luck.below(8) {
	case 0:
		c.Body = mirrortest.CutAfter(whole, m.luck.below(len(whole)), upstream.ErrUnavailable)
		return c, nil
	case 1:
		whole = slices.Clone(whole)
		whole[m.luck.below(len(whole))] ^= 1
	}
	c.Body = mirrortest.CutAfter(whole, len(whole), io.EOF)
	return c, nil
}
