package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	// hostileName is the upstream that answers what it likes. At sharedName, which
	// does not, somebody may push what they like to a repository. soundName has
	// nothing to do with either.
	hostileName, sharedName, soundName = "hostile.test", "shared.test", "sound.test"
	// hostileMemory is what may be in use at any time, and hostileAllocated what
	// a step may take altogether, in bytes.
	hostileMemory, hostileAllocated = 512 << 20, 2 << 30
	// hostileRequests is how many requests to an upstream a step may lead to.
	hostileRequests = 500
	// hostileWait is how long a client of the sound upstream may wait, and
	// statusWait any client for a status.
	hostileWait, statusWait = 5 * time.Second, 45 * time.Second
	// calmAfter is how long after an upstream has mended all of it has to be there
	// again: no Retry-After is believed for longer.
	calmAfter = 2 * time.Hour
)

// TestArbitraryUpstreamsAndClients has arbitrary clients ask for what an
// arbitrary upstream has, and for what somebody has pushed to a repository of a
// shared one, against the whole program. Nothing of that ends a task with a
// panic, takes more memory, requests or time than it may, is served by a digest
// that it does not have, or gives away what another repository has; clients of
// another upstream notice nothing, and when the upstream has mended it is as if
// nothing had been.
// ENTREPOT_HOSTILE_SEED, _SEEDS and _STEPS have it go otherwise, or longer.
func TestArbitraryUpstreamsAndClients(t *testing.T) {
	first, n := numberFromEnvironment(t, "ENTREPOT_HOSTILE_SEED", 1), numberFromEnvironment(t, "ENTREPOT_HOSTILE_SEEDS", 2)
	for seed := first; seed < first+n; seed++ {
		dir := t.TempDir()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			var caught []string
			var mu sync.Mutex
			panics.Handle(func(task string, value any, stack []byte) {
				mu.Lock()
				defer mu.Unlock()
				caught = append(caught, fmt.Sprintf("%s: %v\n%s", task, value, stack))
			})
			defer panics.Handle(nil)
			synctest.Test(t, func(t *testing.T) { newArbitraryWorld(t, dir, seed).run() })
			for _, what := range caught {
				t.Error(what)
			}
		})
	}
}

// arbitraryWorld is a whole entrepot before three upstreams.
type arbitraryWorld struct {
	*enclosed
	t              *testing.T
	odd            *odd
	mu             sync.Mutex // held while something is drawn from odd
	net            upstreamtest.Network
	hostile, sound *upstreamtest.Registry
	shared         *sharedRegistry
	image          arbitraryImage
	asked          atomic.Int64 // requests to the hostile upstream in this step
}

// arbitraryImage is what the hostile upstream has when it is not hostile.
type arbitraryImage struct {
	manifest, referrer ocispec.Descriptor
	layers             [][]byte
}

func newArbitraryWorld(t *testing.T, dir string, seed uint64) *arbitraryWorld {
	t.Helper()
	w := &arbitraryWorld{t: t, odd: &odd{Rand: rand.New(rand.NewPCG(seed, 2)), t: t}}
	w.hostile = upstreamtest.New(t, upstreamtest.WithNetwork(&w.net), upstreamtest.WithReferrers())
	w.sound = upstreamtest.New(t, upstreamtest.WithNetwork(&w.net), upstreamtest.WithReferrers())
	w.image.layers = [][]byte{upstreamtest.Bytes(1, 1000), upstreamtest.Bytes(2, 100<<10)}
	manifest, m := w.hostile.AddImage("app", "1", w.image.layers...)
	w.image.manifest, w.image.referrer = manifest, w.hostile.AddReferrer("app", manifest, "application/x", []byte("signature"))
	w.odd.digests = append(digestsOf(manifest, m), w.image.referrer.Digest.String())
	w.odd.realm = w.hostile.TokenURL()
	w.hostile.Always("", w.answerArbitrarily)

	// What anybody can read is not private, however it is had.
	var credentials upstream.Keychain
	var auth upstreamtest.Auth
	if seed%2 == 1 {
		auth = upstreamtest.Auth{Scheme: "basic", Username: "mirror", Password: "secret"}
		credentials = upstream.CredentialsFunc(func(context.Context) (upstream.Credentials, error) {
			return upstream.Credentials{Username: auth.Username, Password: auth.Password}, nil
		})
	}
	w.shared = newSharedRegistry(t, &w.net, auth, w.odd)
	w.enclosed = newEnclosed(t, &w.net, dir,
		pull.Rules{TagTTL: time.Minute, ReferrersTTL: time.Minute, NegativeTTL: 10 * time.Second, MaxWait: 2 * time.Second},
		enclosedUpstream{name: soundName, endpoints: []*upstreamtest.Registry{w.sound}},
		enclosedUpstream{name: hostileName, endpoints: []*upstreamtest.Registry{w.hostile}, maxRequests: 8},
		enclosedUpstream{name: sharedName, endpoints: []*upstreamtest.Registry{w.shared.Registry}, credentials: credentials})
	return w
}

// answerArbitrarily is a fault. Where a client's request leads to ever more
// requests, they come to an end here.
func (w *arbitraryWorld) answerArbitrarily(r *upstreamtest.Registry, rw http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
	if n := w.asked.Add(1); n > hostileRequests {
		if n == hostileRequests+1 {
			w.t.Errorf("a step led to more than %d requests, at last for %s %.200s", hostileRequests, req.Method, req.URL)
		}
		panic(http.ErrAbortHandler)
	}
	w.mu.Lock()
	answer := w.odd.answer(q.Kind)
	w.mu.Unlock()
	if answer == nil {
		answer = (*upstreamtest.Registry).Answer
	}
	answer(r, rw, req, q)
}

func (w *arbitraryWorld) run() {
	var most, allocated uint64
	var before, after runtime.MemStats
	for step := range int(numberFromEnvironment(w.t, "ENTREPOT_HOSTILE_STEPS", 50)) {
		w.asked.Store(0)
		runtime.ReadMemStats(&before)
		w.mu.Lock()
		w.odd.coming = neighbourOf(step)
		w.odd.pushTo(w.hostile)
		w.mu.Unlock()
		var asked sync.WaitGroup
		for range 3 {
			asked.Go(func() { w.ask(w.question()) })
		}
		w.askShared(step, &asked)
		if step%5 == 4 {
			w.askNeighbour(step)
		}
		asked.Wait()
		time.Sleep(time.Second)
		runtime.ReadMemStats(&after)
		most, allocated = max(most, after.HeapAlloc), max(allocated, after.TotalAlloc-before.TotalAlloc)
	}
	if most > hostileMemory {
		w.t.Errorf("%d MiB were in use", most>>20)
	}
	if allocated > hostileAllocated {
		w.t.Errorf("a step took %d MiB in all", allocated>>20)
	}
	w.judgeCalm()
}

func (w *arbitraryWorld) question() (method, path string, header http.Header) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.odd.question()
}

// answered is what a client got.
type answered struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// send sends a request, whose status has to come in time.
func (w *arbitraryWorld) send(method, path string, header http.Header) answered {
	at := &url.URL{Scheme: "http", Host: "mirror.test"}
	at.Path, at.RawQuery, _ = strings.Cut(path, "?")
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	resp, err := w.client.Do((&http.Request{Method: method, URL: at, Header: header}).WithContext(ctx))
	if err != nil {
		w.t.Errorf("%s %.200s: %v", method, path, err)
		return answered{err: err}
	}
	defer resp.Body.Close()
	if took := time.Since(began); took > statusWait {
		w.t.Errorf("%s %.200s: status %d after %s", method, path, resp.StatusCode, took)
	}
	a := answered{status: resp.StatusCode, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	if ctx.Err() != nil {
		w.t.Errorf("%s %.200s: it takes over 10 minutes", method, path)
	}
	return a
}

// ask asks for something. Whatever it gets by a digest has that digest.
func (w *arbitraryWorld) ask(method, path string, header http.Header) answered {
	a := w.send(method, path, header)
	path, _, _ = strings.Cut(path, "?")
	d, err := digest.Parse(path[strings.LastIndex(path, "/")+1:])
	if err != nil || a.err != nil || a.status != http.StatusOK || strings.Contains(path, "/referrers/") {
		return a
	}
	if named := a.header.Get("Docker-Content-Digest"); named != d.String() {
		w.t.Errorf("%s %.200s, %v: 200 of %.200s", method, path, header, named)
	}
	if method == http.MethodGet && d.Algorithm().FromBytes(a.body) != d {
		w.t.Errorf("%s %.200s, %v: 200 with other content: %.200q", method, path, header, a.body)
	}
	return a
}

func neighbourOf(step int) neighbour {
	layer := upstreamtest.Bytes(byte(step/5), 50<<10+step/5)
	return neighbour{fmt.Sprint("image", step/5), layer, digest.FromBytes(layer).String()}
}

// neighbour is what the sound upstream is about to have, and what arbitrary
// clients ask the hostile one for meanwhile.
type neighbour struct {
	repository string
	layer      []byte
	digest     string // of the layer
}

// askNeighbour pulls something new from the sound upstream, and something that
// was pulled before.
func (w *arbitraryWorld) askNeighbour(step int) {
	of := neighbourOf(step)
	manifest, _ := w.sound.AddImage(of.repository, "1", of.layer)
	all := map[string][]byte{
		"/v2/" + of.repository + "/manifests/1":        w.sound.BodyOf(of.repository, manifest.Digest.String()),
		"/v2/" + of.repository + "/blobs/" + of.digest: of.layer,
	}
	if step%2 == 0 {
		all["/v2/image0/manifests/1"] = w.sound.BodyOf("image0", "1")
	}
	for path, want := range all {
		began := time.Now()
		a := w.send(http.MethodGet, path, nil)
		if took := time.Since(began); a.err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, want) || took > hostileWait {
			w.t.Errorf("step %d: %s: status %d, %d bytes, %v, after %s", step, path, a.status, len(a.body), a.err, took)
		}
	}
}

// judgeCalm says what is left when the upstream has mended: nothing.
func (w *arbitraryWorld) judgeCalm() {
	w.hostile.Mend()
	time.Sleep(calmAfter)
	if n := w.behind.Flights.Len(); n > 0 {
		w.t.Errorf("%d downloads go on", n)
	}
	if connections, blobs := w.places.Taken(); connections+blobs > 0 {
		w.t.Errorf("%d connections and %d blobs have a place", connections, blobs)
	}
	// As many at once as there are places at the upstream, and one more: one that
	// was not given back is noticed.
	var asked sync.WaitGroup
	for i := range 9 {
		fresh := upstreamtest.Bytes(byte(i), 20<<10)
		of := fmt.Sprint("calm", i)
		w.hostile.AddImage(of, "1", fresh)
		w.hostile.Always("GET blobs "+of, upstreamtest.Slow(time.Second))
		asked.Go(func() {
			w.wantCalm("/v2/"+hostileName+"/"+of+"/manifests/1", w.hostile.BodyOf(of, "1"))
			w.wantCalm("/v2/"+hostileName+"/"+of+"/blobs/"+digest.FromBytes(fresh).String(), fresh)
		})
	}
	asked.Wait()
	app := "/v2/" + hostileName + "/app"
	w.wantCalm(app+"/manifests/1", w.hostile.BodyOf("app", "1"))
	w.wantCalm(app+"/manifests/"+w.image.manifest.Digest.String(), w.hostile.BodyOf("app", "1"))
	for _, layer := range w.image.layers {
		w.wantCalm(app+"/blobs/"+digest.FromBytes(layer).String(), layer)
	}
	var tags struct{ Tags []string }
	if a := w.send(http.MethodGet, app+"/tags/list", nil); a.status != http.StatusOK || json.Unmarshal(a.body, &tags) != nil || !slices.Equal(tags.Tags, []string{"1"}) {
		w.t.Errorf("the list of tags: %d, %.200q", a.status, a.body)
	}
	var list ocispec.Index
	a := w.send(http.MethodGet, app+"/referrers/"+w.image.manifest.Digest.String(), nil)
	if a.status != http.StatusOK || json.Unmarshal(a.body, &list) != nil || len(list.Manifests) != 1 || list.Manifests[0].Digest != w.image.referrer.Digest {
		w.t.Errorf("the referrers: %d, %.500q", a.status, a.body)
	}
}

func (w *arbitraryWorld) wantCalm(path string, want []byte) {
	a := w.send(http.MethodGet, path, nil)
	if a.err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, want) {
		w.t.Errorf("when the upstream has mended, %s: status %d, %d bytes of %d, %v: %.300q", path, a.status, len(a.body), len(want), a.err, a.body[:min(len(a.body), 300)])
	}
	if a.header.Get("Warning") != "" {
		w.t.Errorf("when the upstream has mended, %s: %s", path, a.header.Get("Warning"))
	}
}
