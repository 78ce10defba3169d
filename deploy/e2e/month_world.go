package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// chance is randomness that many share.
type chance struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newChance(seed uint64) *chance { return &chance{r: rand.New(rand.NewPCG(seed, 1))} }

func (c *chance) below(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

// between is a time from a to b.
func (c *chance) between(a, b time.Duration) time.Duration {
	return a + time.Duration(c.below(int(b-a)))
}

// bytes are n that nobody else has.
func (c *chance) bytes(n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.r.Uint32())
	}
	return b
}

// monthWorld knows what there is upstream, since when, and until when.
type monthWorld struct {
	*chance
	upstreams []*monthUpstream
	images    []*monthImage

	mu    sync.Mutex // held while something changes
	kills []period
}

// period is a time; the end is zero while it lasts.
type period struct{ from, to time.Time }

func (s period) overlaps(from, to time.Time) bool {
	return !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from))
}

// monthUpstream is a registry that fails at random, more or less often.
type monthUpstream struct {
	*fake.Registry
	chance *chance
	mu     sync.Mutex
	often  int // of a hundred requests, so many fail
}

func (u *monthUpstream) fails(often int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.often = often
}

// meet has a request fail by chance.
func (u *monthUpstream) meet(r *fake.Registry, w http.ResponseWriter, req *http.Request, q fake.Request) {
	u.mu.Lock()
	often := u.often
	u.mu.Unlock()
	if u.chance.below(100) >= often {
		r.Answer(w, req, q)
		return
	}
	n := u.chance.below(200 << 10)
	faults := []fake.Fault{
		fake.Status(http.StatusServiceUnavailable, "UNAVAILABLE"), fake.Status(http.StatusInternalServerError, "UNKNOWN"),
		fake.RateLimited(1 + n%2), fake.HTML(), fake.Page(http.StatusNotFound), fake.Page(http.StatusServiceUnavailable), fake.Hangup(),
		fake.CutAfter(n), fake.StallAfter(n), fake.Corrupt(n), fake.Slow(time.Duration(n) * 50 * time.Microsecond),
		fake.Pause(n, time.Duration(n)*50*time.Microsecond),
	}
	faults[n%len(faults)](r, w, req, q)
}

// monthImage is a tag that moves.
type monthImage struct {
	up       *monthUpstream
	repo     string
	path     string // of its repository at the mirror
	api      bool
	versions []monthVersion
}

// monthVersion is what the tag has pointed at.
type monthVersion struct {
	manifest ocispec.Descriptor
	layers   []digest.Digest
	held     period // when the tag pointed at it
	attached []monthReferrer
}

type monthReferrer struct {
	ocispec.Descriptor
	since time.Time
}

func (w *monthWorld) addImage(up *monthUpstream, repo, path string, api bool) {
	image := &monthImage{up: up, repo: repo, path: path, api: api}
	w.images = append(w.images, image)
	w.move(image)
}

// move has the tag of an image point at another one.
func (w *monthWorld) move(image *monthImage) {
	layers := [][]byte{w.bytes(50<<10 + w.below(300<<10)), w.bytes(100<<10 + w.below(500<<10))}
	w.mu.Lock()
	defer w.mu.Unlock()
	version := monthVersion{held: period{from: time.Now()}}
	version.manifest, _ = image.up.AddImage(image.repo, "1", layers...)
	for _, layer := range layers {
		version.layers = append(version.layers, digest.FromBytes(layer))
	}
	if n := len(image.versions); n > 0 {
		image.versions[n-1].held.to = time.Now()
	}
	image.versions = append(image.versions, version)
}

// attach attaches a referrer to what the tag points at.
func (w *monthWorld) attach(image *monthImage) {
	payload := w.bytes(200)
	w.mu.Lock()
	defer w.mu.Unlock()
	version := &image.versions[len(image.versions)-1]
	kind := fmt.Sprintf("application/vnd.example.%d", len(version.attached)%3)
	referrer := image.up.AddReferrer(image.repo, version.manifest, kind, payload)
	version.attached = append(version.attached, monthReferrer{Descriptor: referrer})
	if !image.api {
		var all []ocispec.Descriptor
		for _, other := range version.attached {
			other.ArtifactType = kind
			all = append(all, other.Descriptor)
		}
		image.up.AddFallbackTag(image.repo, version.manifest.Digest, all...)
	}
	version.attached[len(version.attached)-1].since = time.Now()
}

// popular is an image: some are pulled again and again, some hardly ever.
func (w *monthWorld) popular() *monthImage {
	n := len(w.images)
	return w.images[min(w.below(n), w.below(n), w.below(n))]
}

// change moves tags and attaches referrers until it is told to stop.
func (w *monthWorld) change(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.between(20*time.Millisecond, 150*time.Millisecond)):
		}
		image := w.popular()
		if w.below(4) == 0 {
			w.move(image)
		} else {
			w.attach(image)
		}
	}
}

// weather has the upstreams fail now more, now less often. What fails always does
// so for longer than anything is fresh.
func (w *monthWorld) weather(stop <-chan struct{}) {
	lasts := time.Second
	for {
		select {
		case <-stop:
			return
		case <-time.After(lasts):
		}
		often := []int{0, 0, 5, 20, 50, 100}[w.below(6)]
		w.upstreams[w.below(len(w.upstreams))].fails(often)
		lasts = w.between(time.Second, 3*time.Second)
		if often == 100 {
			lasts += 2 * monthTTL
		}
	}
}

// killed notes that the mirror is away, or that it is back.
func (w *monthWorld) killed() (back func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kills = append(w.kills, period{from: time.Now()})
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.kills[len(w.kills)-1].to = time.Now()
	}
}

// wasKilled says whether the mirror was away in that time, or a moment before or
// after.
func (w *monthWorld) wasKilled(from, to time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kill := range w.kills {
		if kill.overlaps(from.Add(-time.Second), to.Add(time.Second)) {
			return true
		}
	}
	return false
}
