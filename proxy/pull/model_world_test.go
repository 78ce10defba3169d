package pull

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

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// world is everything that the upstream of the model has and ever had. It
// changes between steps only.
type world struct {
	*origin
	random *rand.Rand
	made   int // names what is made

	bodies map[Digest]served
	held   map[Repository]map[Digest]time.Time // since when a repository has content
	tags   map[Reference][]era
	shelf  map[Repository][]Descriptor // layers to be shared
}

// era is a time during which a tag pointed at one manifest, or at none.
type era struct {
	digest Digest
	from   time.Time
}

// secret is the repository whose layers no other has.
var secret = Repository{Upstream: "hub", Name: "secret"}

func newWorld(random *rand.Rand) *world {
	w := &world{
		origin: newOrigin(), random: random,
		bodies: map[Digest]served{}, held: map[Repository]map[Digest]time.Time{},
		tags: map[Reference][]era{}, shelf: map[Repository][]Descriptor{},
	}
	w.api = random.IntN(2) == 0
	for _, repo := range w.repositories() {
		w.put(repo.Name, "application/json", []byte("{}"), "tags") // the origin wants to have its list
	}
	return w
}

func (w *world) repositories() []Repository {
	return []Repository{hubApp, {Upstream: "hub", Name: "lib"}, {Upstream: "hub", Name: "org/tool"}, secret}
}

// choose returns one of several; the zero value of none.
func choose[T any](random *rand.Rand, of []T) (one T) {
	if len(of) > 0 {
		one = of[random.IntN(len(of))]
	}
	return one
}

func sorted[K interface{ ~string }, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (w *world) add(repo Repository, mediaType string, body []byte) Descriptor {
	d := w.put(repo.Name, mediaType, body)
	w.bodies[d.Digest] = served{mediaType, body}
	if w.held[repo] == nil {
		w.held[repo] = map[Digest]time.Time{}
	}
	if w.held[repo][d.Digest].IsZero() {
		w.held[repo][d.Digest] = time.Now()
	}
	return d
}

func (w *world) encode(repo Repository, mediaType string, v any) Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return w.add(repo, mediaType, raw)
}

// point makes a tag point at a manifest, or at none where d is empty.
func (w *world) point(repo Repository, tag string, d Digest) {
	ref := Reference{Repository: repo, Ref: tag}
	w.tags[ref] = append(w.tags[ref], era{d, time.Now()})
	if d == "" {
		w.remove(repo.Name, tag)
		return
	}
	w.put(repo.Name, w.bodies[d].mediaType, w.bodies[d].body, tag)
}

// now is what a tag points at.
func (w *world) now(ref Reference) (e era, index int) {
	if eras := w.tags[ref]; len(eras) > 0 {
		return eras[len(eras)-1], len(eras) - 1
	}
	return era{}, 0
}

func (w *world) layer(repo Repository) Descriptor {
	if w.random.IntN(3) == 0 && len(w.shelf[repo]) > 0 {
		return choose(w.random, w.shelf[repo])
	}
	if w.random.IntN(6) == 0 && repo != secret {
		// Mounted from elsewhere.
		from := choose(w.random, []Repository{hubApp, {Upstream: "hub", Name: "lib"}})
		if d := choose(w.random, w.shelf[from]); d.Digest != "" {
			w.add(repo, d.MediaType, w.bodies[d.Digest].body)
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

// image is a new image of a few layers; hangsOn may be nil.
func (w *world) image(repo Repository, hangsOn *Descriptor) Descriptor {
	w.made++
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Subject: hangsOn,
		Config: w.add(repo, ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":%d}`, w.made)),
	}
	if hangsOn != nil {
		m.ArtifactType = fmt.Sprintf("application/vnd.example.%d", w.made)
	}
	seen := map[Digest]bool{}
	for range 1 + w.random.IntN(4) {
		if d := w.layer(repo); !seen[d.Digest] {
			seen[d.Digest] = true
			m.Layers = append(m.Layers, d)
		}
	}
	if repo == hubApp && w.random.IntN(5) == 0 {
		// Whoever may push here claims to have a layer that only the secret
		// repository has.
		if d := choose(w.random, w.shelf[secret]); d.Digest != "" {
			d.URLs = []string{"https://elsewhere.test/layer"}
			m.Layers = append(m.Layers, d)
		}
	}
	return w.encode(repo, m.MediaType, m)
}

func (w *world) index(repo Repository, nested bool) Descriptor {
	w.made++
	index := ocispec.Index{MediaType: indexType, Annotations: map[string]string{"made": fmt.Sprint(w.made)}}
	for range 1 + w.random.IntN(3) {
		switch {
		case nested && w.random.IntN(2) == 0:
			index.Manifests = append(index.Manifests, w.index(repo, false))
			continue
		case w.random.IntN(4) == 0:
			if d := w.tagged(repo); d.Digest != "" {
				index.Manifests = append(index.Manifests, d)
				continue
			}
		}
		index.Manifests = append(index.Manifests, w.image(repo, nil))
	}
	return w.encode(repo, indexType, index)
}

// tagged is some manifest that a tag of repo points at.
func (w *world) tagged(repo Repository) Descriptor {
	var all []Digest
	for _, tag := range w.names() {
		if e, _ := w.now(Reference{Repository: repo, Ref: tag}); e.digest != "" {
			all = append(all, e.digest)
		}
	}
	d := choose(w.random, all)
	return Descriptor{MediaType: w.bodies[d].mediaType, Digest: d, Size: int64(len(w.bodies[d].body))}
}

func (w *world) names() []string { return []string{"1", "2", "3", "latest"} }

// change is what happens upstream between two steps.
func (w *world) change() {
	repo, tag := choose(w.random, w.repositories()), choose(w.random, w.names())
	subject := w.tagged(repo)
	switch n := w.random.IntN(20); {
	case n < 9:
		w.point(repo, tag, w.image(repo, nil).Digest)
	case n < 13:
		w.point(repo, tag, w.index(repo, n == 9).Digest)
	case n < 15: // another name for the same, or back to what was
		if was := choose(w.random, w.tags[Reference{Repository: repo, Ref: choose(w.random, w.names())}]); was.digest != "" {
			w.point(repo, tag, was.digest)
		}
	case n < 16:
		if e, _ := w.now(Reference{Repository: repo, Ref: tag}); e.digest != "" {
			w.point(repo, tag, "")
		}
	case subject.Digest == "":
	case n < 18:
		w.attach(repo, subject)
	default:
		w.point(repo, strings.Replace(subject.Digest.String(), ":", "-", 1)+".sig", w.image(repo, nil).Digest)
	}
}

// attach makes something refer to subject, and lists it where there is no
// Referrers API.
func (w *world) attach(repo Repository, subject Descriptor) {
	w.image(repo, &subject)
	if w.api {
		return
	}
	index := ocispec.Index{MediaType: indexType, Manifests: w.referring(repo, subject.Digest)}
	index.SchemaVersion = 2
	w.point(repo, referrers.TagOf(subject.Digest), w.encode(repo, indexType, index).Digest)
}

// referring is what refers to subject, in truth.
func (w *world) referring(repo Repository, subject Digest) []Descriptor {
	var all []Descriptor
	for _, d := range sorted(w.held[repo]) {
		_, _, s, err := referrers.Names(w.bodies[d].mediaType, w.bodies[d].body)
		if err == nil && s != nil && s.Digest == subject {
			all = append(all, Descriptor{MediaType: w.bodies[d].mediaType, Digest: d, Size: int64(len(w.bodies[d].body))})
		}
	}
	return all
}

// manifests are all that a repository ever had.
func (w *world) manifests(repo Repository) []Digest {
	var all []Digest
	for _, d := range sorted(w.held[repo]) {
		if t := w.bodies[d].mediaType; t == ocispec.MediaTypeImageManifest || t == indexType {
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

// moody is the world as an upstream.Registry of changing moods.
type moody struct {
	*world
	feels  atomic.Value // of mood
	luck   *luck
	asking atomic.Int64
}

func (m *moody) mood() mood { return m.feels.Load().(mood) }

func (m *moody) be(now mood) { m.feels.Store(now) }

// luck is a source of chance for several goroutines.
type luck struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (l *luck) below(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// begin is how every request begins; the caller calls end.
func (m *moody) begin(ctx context.Context) (end func(), err error) {
	m.asking.Add(1)
	end = func() { m.asking.Add(-1) }
	switch m.mood() {
	case down:
		return end, fmt.Errorf("unplugged: %w", upstream.ErrRefused)
	case slow:
		return end, pause(ctx, 4*time.Second)
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

func moodily[T any](ctx context.Context, m *moody, fn func() (T, error)) (T, error) {
	end, err := m.begin(ctx)
	defer end()
	if err != nil {
		var none T
		return none, err
	}
	return fn()
}

func (m *moody) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return moodily(ctx, m, func() (Descriptor, error) { return m.origin.Resolve(ctx, repo, ref) })
}

func (m *moody) Manifest(ctx context.Context, repo, ref string) (upstream.Content, error) {
	return moodily(ctx, m, func() (upstream.Content, error) { return m.body(m.origin.Manifest(ctx, repo, ref)) })
}

func (m *moody) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return moodily(ctx, m, func() (Descriptor, error) { return m.origin.ResolveBlob(ctx, repo, d) })
}

func (m *moody) Blob(ctx context.Context, repo string, d Digest, from, n int64) (upstream.Content, error) {
	return moodily(ctx, m, func() (upstream.Content, error) { return m.body(m.origin.Blob(ctx, repo, d, from, n)) })
}

func (m *moody) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return moodily(ctx, m, func() ([]Descriptor, error) { return m.origin.Referrers(ctx, repo, subject) })
}

func (m *moody) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	return moodily(ctx, m, func() (upstream.TagList, error) { return m.origin.Tags(ctx, repo, page) })
}

// body lets a flaky upstream cut bodies and turn bits over.
func (m *moody) body(c upstream.Content, err error) (upstream.Content, error) {
	if err != nil || m.mood() != flaky {
		return c, err
	}
	whole, err := io.ReadAll(c.Body)
	if err != nil || len(whole) == 0 {
		return c, err
	}
	switch m.luck.below(8) {
	case 0:
		c.Body = cutAfter(whole, m.luck.below(len(whole)), upstream.ErrUnavailable)
		return c, nil
	case 1:
		whole = slices.Clone(whole)
		whole[m.luck.below(len(whole))] ^= 1
	}
	c.Body = cutAfter(whole, len(whole), io.EOF)
	return c, nil
}
