package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/upstream"
)

// modelMirror is a whole entrepot in a network within the process: the face, the
// mirror, and the real remotes with their policies, over a cache in memory.
type modelMirror struct {
	model     *referrersModel
	name      string
	address   string
	upstreams []string
	parent    *modelMirror // nil for none
	direct    bool         // it asks registries beside the parent

	cache   *memory.Cache
	records *journaledRecords

	// Of the process that runs.
	mirror  *pulling.Mirror
	client  *http.Client
	stop    func()
	evicted atomic.Bool

	// known is what it has listed of each subject as all that there is, as far
	// as that has been there since.
	known map[*modelSubject]knownList
	// passed are the artifacts that have come through it.
	passed map[digest.Digest]time.Time
}

func (f *modelMirror) open() {
	f.cache = memory.New()
	f.records = &journaledRecords{Records: f.cache.Records(), buckets: map[cache.Bucket]bool{}}
	f.forget()
	f.start()
}

// forget forgets what has to be known: the cache may have lost it.
func (f *modelMirror) forget() {
	f.known, f.passed = map[*modelSubject]knownList{}, map[digest.Digest]time.Time{}
}

// start starts a process over the cache.
func (f *modelMirror) start() {
	t, settings := f.model.t, f.model.settings
	log := slog.New(modelLog{f, ""})
	var endpoints, each []upstream.Endpoint
	slots := upstream.NewSlots(32)
	var remotes []*upstream.Remote
	for _, at := range f.upstreams {
		has, saw := metadata.RememberReferrersAPI(f.records, "hub.test", at)
		remote, err := upstream.NewRemote(upstream.RemoteOptions{
			Name: "hub.test", Endpoint: at, Dial: f.model.net.Dial, HasReferrers: has, SawReferrers: saw, UserAgent: f.name,
		})
		if err != nil {
			t.Fatal(err)
		}
		e := upstream.Breaker(upstream.Retry(remote))
		remotes, endpoints, each = append(remotes, remote), append(endpoints, e), append(each, slots.LimitEndpoint(e))
	}
	u := pull.Upstream{
		Name: "hub.test", Registry: upstream.SecondConnection(slots.Limit(upstream.Fallback(endpoints...))), Endpoints: each,
		CosignTags: settings.cosign, BuildKitAttestations: settings.buildKit,
	}
	if settings.immutable {
		u.Immutable = func(string) bool { return true }
	}
	if settings.lowQuota {
		u.Quota = func() float64 { return 0.05 }
	}
	f.evicted.Store(false)
	bounds := store.Bounds{MaxBytes: settings.maxBytes}
	if settings.maxBytes == 0 {
		bounds.MaxBytes = math.MaxInt64
	}
	f.mirror = pulling.New(pulling.Options{
		Blobs: f.cache.Blobs(), Records: f.records, Memory: &modelMemory{kept: map[digest.Digest][]byte{}}, Upstreams: []pull.Upstream{u},
		Rules:  pull.Rules{TagTTL: settings.tagTTL, ReferrersTTL: settings.referrersTTL, NegativeTTL: settings.negativeTTL, MaxWait: 2 * time.Second},
		Bounds: bounds, Logger: log,
		Events: pulling.Events{Evicted: func(int64) { f.evicted.Store(true) }},
	})
	f.mirror.Start()
	if settings.prefetches {
		f.mirror.StartPrefetching()
	}
	server := proxy.HTTPServer(proxy.New(proxy.Options{
		Puller: f.mirror.Puller, Logger: log, Upstreams: []proxy.Upstream{{Name: "hub.test", Default: true}},
	}), log)
	l, err := f.model.net.Listen(f.address)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	f.client = &http.Client{Transport: &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return f.model.net.Dial(ctx, network, f.address)
		},
	}}
	f.stop = func() {
		server.Close()
		f.mirror.Close()
		for _, remote := range remotes {
			remote.Close()
		}
	}
}

func (f *modelMirror) close() { f.stop() }

// restart ends the process and starts another. After a kill the last records are
// lost, and after damage all that are not written twice. The clock may have been
// wrong, so that what is on record is of next year.
func (f *modelMirror) restart(how string) {
	f.stop()
	switch how {
	case "killed":
		f.records.lose(f.model.random.IntN)
		f.forget()
	case "damaged":
		f.records.damage()
		f.forget()
	case "dated":
		f.records.date()
	}
	f.model.mu.Lock()
	for _, e := range f.model.endpoints {
		if !e.seen[f.name].IsZero() && how != "stopped" {
			e.forgot[f.name] = true
		}
	}
	f.model.mu.Unlock()
	f.start()
	if how == "damaged" {
		if _, err := f.mirror.Ledger.RebuildMembers(f.model.t.Context()); err != nil {
			f.model.fail("rebuild: %v", err)
		}
	}
}

// hasSeen says whether the mirror, or its parent, knew at a time that a registry
// has the API.
func (f *modelMirror) hasSeen(e *modelEndpoint, at time.Time) bool {
	if f.parent != nil && !f.direct {
		return f.parent.hasSeen(e, at)
	}
	since := e.seen[f.name]
	return !since.IsZero() && !since.After(at) && !e.forgot[f.name]
}

// isSureOf says whether each mirror on the way to a registry knew at a time that
// it has the API.
func (f *modelMirror) isSureOf(e *modelEndpoint, at time.Time) bool {
	return f.hasSeen(e, at) && (f.parent == nil || f.parent.isSureOf(e, at))
}

func (f *modelMirror) mayHaveSeen(e *modelEndpoint) bool {
	return !e.seen[f.name].IsZero() || f.parent != nil && f.parent.mayHaveSeen(e)
}

// knownList is a list that was all there was.
type knownList struct {
	listed map[digest.Digest]bool
	judged int // how many answers had been judged then
}

// modelAnswer is what a client got.
type modelAnswer struct {
	status   int
	code     string
	warnings string
	typed    string
	digest   string
	body     []byte
	err      error
	took     time.Duration
}

func (f *modelMirror) ask(method, path string, header ...string) modelAnswer {
	began := time.Now()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+f.address+"/v2/"+modelRepo+"/"+path, nil)
	if err != nil {
		f.model.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return modelAnswer{err: err, took: time.Since(began)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a := modelAnswer{
		status: resp.StatusCode, warnings: strings.Join(resp.Header["Warning"], ", "), typed: resp.Header.Get("Content-Type"),
		digest: resp.Header.Get("Docker-Content-Digest"), body: body, err: err, took: time.Since(began),
	}
	var list struct {
		Errors []struct{ Code, Message string }
	}
	if a.status != http.StatusOK && json.Unmarshal(body, &list) == nil && len(list.Errors) > 0 {
		// The end of the message has the reason.
		a.code = list.Errors[0].Code + ": …" + list.Errors[0].Message[max(0, len(list.Errors[0].Message)-90):]
	}
	return a
}

func (a modelAnswer) has(warning string) bool { return strings.Contains(a.warnings, warning+" -") }

// modelLog notes what a mirror logs.
type modelLog struct {
	face *modelMirror
	with string
}

func (l modelLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l modelLog) WithGroup(string) slog.Handler                    { return l }

func (l modelLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return modelLog{l.face, fmt.Sprint(l.with, " ", attrs)}
}

func (l modelLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "request" {
		text := l.with
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		l.face.model.note("%s logs: %s%s", l.face.name, r.Message, text)
	}
	return nil
}

// modelMemory is a memory that drops nothing by chance.
type modelMemory struct {
	mu   sync.Mutex
	kept map[digest.Digest][]byte
}

func (r *modelMemory) Get(d digest.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	content, ok := r.kept[d]
	return content, ok
}

func (r *modelMemory) Put(d digest.Digest, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[d] = content
}

func (r *modelMemory) Delete(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.kept, d)
}

// journaledRecords can lose what was written last, as a process does that is
// killed, and what is not written twice.
type journaledRecords struct {
	cache.Records

	mu      sync.Mutex
	undo    []func() // since the last Flush
	buckets map[cache.Bucket]bool
}

// mostLost is how many changes a kill loses at most.
const mostLost = 40

func (r *journaledRecords) before(b cache.Bucket, key string) {
	r.buckets[b] = true
	if len(r.undo) > 10*mostLost {
		r.undo = slices.Clone(r.undo[len(r.undo)-mostLost:])
	}
	value, err := r.Records.Get(b, key)
	r.undo = append(r.undo, func() {
		if err == nil {
			r.Records.Put(b, key, value)
		} else {
			r.Records.Delete(b, key)
		}
	})
}

func (r *journaledRecords) Put(b cache.Bucket, key string, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before(b, key)
	r.Records.Put(b, key, value)
}

func (r *journaledRecords) Delete(b cache.Bucket, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before(b, key)
	r.Records.Delete(b, key)
}

func (r *journaledRecords) Flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.undo = nil
	return r.Records.Flush(ctx)
}

// lose loses some of the last changes.
func (r *journaledRecords) lose(random func(n int) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := random(min(len(r.undo), mostLost) + 1)
	for _, undo := range slices.Backward(r.undo[len(r.undo)-n:]) {
		undo()
	}
	r.undo = nil
}

// date dates what is on record about referrers and tags to next year.
func (r *journaledRecords) date() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range slices.Sorted(maps.Keys(r.buckets)) {
		changed := map[string][]byte{}
		_ = r.Records.Scan(b, "", func(key string, value []byte) bool {
			var record map[string]any
			if json.Unmarshal(value, &record) != nil {
				return true
			}
			if text, _ := record["At"].(string); text != "" {
				if at, err := time.Parse(time.RFC3339, text); err == nil {
					record["At"] = at.AddDate(1, 0, 0)
					changed[key], _ = json.Marshal(record)
				}
			}
			return true
		})
		for key, value := range changed {
			r.Records.Put(b, key, value)
		}
	}
	r.undo = nil
}

// damage loses the buckets that are not written twice.
func (r *journaledRecords) damage() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range slices.Sorted(maps.Keys(r.buckets)) {
		if slices.Contains(metadata.Durable(), b) {
			continue
		}
		var keys []string
		_ = r.Records.Scan(b, "", func(key string, _ []byte) bool { keys = append(keys, key); return true })
		for _, key := range keys {
			r.Records.Delete(b, key)
		}
	}
	r.undo = nil
}
