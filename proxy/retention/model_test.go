package retention_test

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// modelSeed replays one run, modelSteps is the length of each run, and
	// modelSeeds the number of runs.
	modelSeed  = "ENTREPOT_MODEL_SEED"
	modelSteps = "ENTREPOT_MODEL_STEPS"
	modelSeeds = "ENTREPOT_MODEL_SEEDS"
)

func fromEnvironment(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestModel runs random actions of clients, an upstream, an operator and the
// power supply against a mirror, and compares what it serves and stores with a
// small model of what must hold. The runs are the same each time, so that a
// failure is caused by a change; other seeds give other runs.
func TestModel(t *testing.T) {
	steps := int(fromEnvironment(t, modelSteps, 500))
	seeds := int(fromEnvironment(t, modelSeeds, 4))
	first := fromEnvironment(t, modelSeed, 7000)
	if os.Getenv(modelSeed) != "" {
		seeds = int(fromEnvironment(t, modelSeeds, 1))
	}
	for i := range seeds {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newModel(t, seed).run(steps) })
			if t.Failed() {
				t.Logf("again with %s=%d %s=%d", modelSeed, seed, modelSteps, steps)
			}
		})
	}
}

// model is one run of a mirror, generated from a seed.
type model struct {
	t      *testing.T
	random *rand.Rand
	up     *testUpstream
	folder string

	// State of the current process.
	*pull.Puller
	mirror.Cache
	*mirror.Mirror
	files    *disk.Cache
	records  cache.Records
	disk     *testDisk
	memory   *testMemory
	evicted  atomic.Int64
	bypassed atomic.Int64
	settings modelSettings

	known  *known
	lists  map[retention.Repository][][]string // of tags, in the order in which they were told
	before observation                         // at the last look
	// read is what clients have read of blobs that are here, and sinceRead says
	// whether it may have gone since the last look. It is replaced, never changed.
	reading   sync.Mutex
	read      map[retention.Digest]cache.Spans
	sinceRead func() bool
	damaged   map[retention.Digest]bool // drafts
	earlier   *known                    // before the errands that are under way

	broken retention.Digest // the file that was damaged last
	began  time.Time        // the step

	history []string // the last steps, for whoever has to find out
	counts  tally
}

// modelSettings differ from run to run.
type modelSettings struct {
	maxBytes   int64
	tagTTL     time.Duration
	prefetches bool // what pulling again may ask for
	smallBlob  int64
}

// tally counts what happened, so that a test that tests nothing is noticed.
type tally struct {
	steps, whole, evictions, purges, crashes, restarts, damages, stale, refused int
	looks, served, drafts, stopped                                              int // reads of ranges, those that had to be served, drafts seen, stops in the middle
	over                                                                        int64
}

// known is what the model knows of a mirror. It is replaced, never changed, so
// that the durable state can be restored after a power cut.
type known struct {
	// had is what was here of each cached manifest: blobs and children.
	had map[string]map[retention.Digest]bool
	// seen is the latest era of each tag that a client got.
	seen map[retention.Reference]int
	// pins are the pinned images that were complete, with everything they need.
	pins map[retention.Reference]map[retention.Digest]bool
	// lists are the numbers of the last tag lists that clients got.
	lists map[retention.Repository]int
	// listed is when the upstream had the last tag lists that clients got.
	listed map[retention.Repository]time.Time
}

func (k *known) clone() *known {
	next := &known{
		had: make(map[string]map[retention.Digest]bool, len(k.had)), seen: maps.Clone(k.seen),
		pins: maps.Clone(k.pins), lists: maps.Clone(k.lists), listed: maps.Clone(k.listed),
	}
	for key, had := range k.had {
		next.had[key] = maps.Clone(had)
	}
	return next
}

func newModel(t *testing.T, seed uint64) *model {
	random := rand.New(rand.NewPCG(seed, 0))
	m := &model{
		t: t, random: random, folder: t.TempDir(),
		up: &testUpstream{world: newWorld(random), luck: &luck{random: rand.New(rand.NewPCG(seed, 1))}, blobs: newBlobServer()},
		known: (&known{
			seen: map[retention.Reference]int{}, pins: map[retention.Reference]map[retention.Digest]bool{}, lists: map[retention.Repository]int{}, listed: map[retention.Repository]time.Time{},
		}).clone(),
		lists: map[retention.Repository][][]string{},
		settings: modelSettings{
			maxBytes:   choose(random, []int64{150 << 10, 400 << 10, 1 << 20}),
			tagTTL:     choose(random, []time.Duration{0, time.Minute}),
			prefetches: random.IntN(2) == 0,
			smallBlob:  choose(random, []int64{0, 1, 3000, 0}),
		},
		read: map[retention.Digest]cache.Spans{}, damaged: map[retention.Digest]bool{},
	}
	m.up.blobs.etags, m.up.blobs.noSize = random.IntN(2) == 0, random.IntN(6) == 0
	m.up.be(up)
	for range 12 {
		m.up.change()
	}
	m.start(filepath.Join(m.folder, "0"), nil)
	return m
}

// start starts a process over a directory that must have the given records.
func (m *model) start(dir string, records map[cache.Bucket]map[string]string) {
	m.t.Helper()
	files, err := disk.Open(dir, disk.Options{
		Journal: metadata.Durable(),
		// Records become durable only on request, so that the model knows which
		// ones are.
		FlushEvery: 1 << 20 * time.Hour, FlushAt: 1 << 30,
	})
	if err != nil {
		m.t.Fatalf("start over %s: %v", dir, err)
	}
	m.files = files
	m.checkRecords(records)
	m.checkDrafts(dir, files.Blobs().AllKept())
	m.disk = newTestDisk(m.t, dir, m.settings.maxBytes, records, files.Blobs())
	m.known = m.disk.begin(m.known)
	power := m.disk
	m.memory = &testMemory{kept: map[retention.Digest][]byte{}}
	m.evicted.Store(0)
	m.bypassed.Store(0)
	m.sinceRead = m.excuses()
	m.records = testDiskRecords{files.Records(), m.disk}
	m.Mirror = mirror.New(mirror.Options{
		Blobs: testDiskBlobs{files.Blobs(), m.disk}, Records: m.records, Memory: m.memory,
		Upstreams: []pull.Upstream{{Name: "hub", Endpoints: []upstream.Endpoint{m.up}}},
		Rules:     pull.Rules{TagTTL: m.settings.tagTTL, NegativeTTL: modelNegativeTTL, MaxWait: 2 * time.Second},
		Bounds:    store.Bounds{MaxBytes: m.settings.maxBytes},
		SmallBlob: m.settings.smallBlob,
		Logger:    slog.New(slog.DiscardHandler),
		Events: mirror.Events{
			Evicted:  func(int64) { m.evicted.Add(1) },
			Bypassed: func(string) { m.bypassed.Add(1) },
			Usage:    power.counted,
		},
	})
	m.Puller, m.Cache = m.Mirror.Puller, m.Mirror.Cache()
	if files.Rebuilt() {
		if _, err := m.Ledger.RebuildMembers(m.t.Context()); err != nil {
			m.t.Errorf("reindex: %v", err)
		}
	}
	m.Start()
	if m.settings.prefetches {
		m.StartPrefetching()
	}
	m.before = observation{}
}

const modelNegativeTTL = 10 * time.Second

// stop stops the process cleanly.
func (m *model) stop() {
	m.t.Helper()
	m.Close()
	if err := m.files.Close(); err != nil {
		m.t.Errorf("close the cache: %v", err)
	}
	m.counts.over = max(m.counts.over, m.disk.over)
}

// run runs all steps.
func (m *model) run(steps int) {
	defer func() {
		m.stop()
		if m.t.Failed() {
			for _, step := range m.history {
				m.t.Log(step)
			}
		}
		m.t.Logf("%+v, validators %v, sizes %v: %+v", m.settings, m.up.blobs.etags, !m.up.blobs.noSize, m.counts)
	}()
	m.observe()
	for m.counts.steps = range steps {
		m.step()
		m.observe()
		if m.t.Failed() {
			return
		}
	}
	m.finish()
}

// note logs what happens, for a failure report.
func (m *model) note(format string, args ...any) {
	line := fmt.Sprintf("%4d %s %-5s %s", m.counts.steps, time.Now().Format(time.TimeOnly), m.up.mood(), fmt.Sprintf(format, args...))
	if m.history = append(m.history, line); len(m.history) > 60 {
		m.history = m.history[1:]
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Errorf("step %d: %s", m.counts.steps, fmt.Sprintf(format, args...))
}

// wait returns when nothing is under way, whatever the mood of the upstream.
func (m *model) wait() {
	m.t.Helper()
	for range 1000 {
		synctest.Wait()
		if m.isIdle() {
			return
		}
		time.Sleep(time.Second)
	}
	m.t.Fatalf("something goes on and on: %+v, %d requests", m.Store.State(), m.up.asking.Load())
}

func (m *model) isIdle() bool {
	state := m.Store.State()
	return m.Flights.Len() == 0 && state.Incoming == 0 && state.Waiting == 0 && state.Reserved == 0 && m.up.asking.Load() == 0
}
