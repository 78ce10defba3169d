package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	// modelReferrersSeed replays one run, modelReferrersSteps is the length of
	// each run, and modelReferrersSeeds the number of runs. modelReferrersWithout
	// names kinds of steps that are left out, to look behind a fault that is
	// known.
	modelReferrersSeed    = "ENTREPOT_REFERRERS_SEED"
	modelReferrersSteps   = "ENTREPOT_REFERRERS_STEPS"
	modelReferrersSeeds   = "ENTREPOT_REFERRERS_SEEDS"
	modelReferrersWithout = "ENTREPOT_REFERRERS_WITHOUT"
	// modelReferrersShrink looks for a shorter run that fails too. It takes as
	// many runs as there are steps.
	modelReferrersShrink = "ENTREPOT_REFERRERS_SHRINK"
)

func numberFromEnvironment(t *testing.T, name string, otherwise uint64) uint64 {
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

// TestReferrersModel lets a random world of registries, clients and operators go
// its way, and holds each answer about referrers against what the registries
// had: it is complete, or it carries a warning, or it is an error, and the last
// two only where something failed. The runs are the same each time; other seeds
// give other runs.
func TestReferrersModel(t *testing.T) {
	steps := int(numberFromEnvironment(t, modelReferrersSteps, 60))
	seeds := int(numberFromEnvironment(t, modelReferrersSeeds, 5))
	first := numberFromEnvironment(t, modelReferrersSeed, 4)
	if os.Getenv(modelReferrersSeed) != "" {
		seeds = int(numberFromEnvironment(t, modelReferrersSeeds, 1))
	}
	for i := range seeds {
		seed := first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := runReferrersModel(t, seed, steps, nil)
			if len(m.failures) == 0 {
				t.Logf("%+v: %v", m.settings, m.counts)
				return
			}
			if os.Getenv(modelReferrersShrink) != "" {
				m = shrinkReferrersModel(t, seed, m)
			}
			for _, line := range m.history {
				t.Log(line)
			}
			t.Logf("%+v: %v", m.settings, m.counts)
			for _, failure := range m.failures[:min(12, len(m.failures))] {
				t.Error(failure)
			}
			t.Logf("again with %s=%d %s=%d", modelReferrersSeed, seed, modelReferrersSteps, steps)
		})
	}
}

func runReferrersModel(t *testing.T, seed uint64, steps int, skipped []int) (m *referrersModel) {
	synctest.Test(t, func(t *testing.T) {
		m = newReferrersModel(t, seed)
		m.skipped = skipped
		m.run(steps)
	})
	return m
}

// shrinkReferrersModel leaves out each step that the failure does not need.
func shrinkReferrersModel(t *testing.T, seed uint64, failed *referrersModel) *referrersModel {
	var skipped []int
	for step := int(failed.step.Load()) - 1; step >= 0; step-- {
		without := append(slices.Clone(skipped), step)
		m := runReferrersModel(t, seed, int(failed.step.Load())+1, without)
		if len(m.failures) > 0 && failureKind(m.failures[0]) == failureKind(failed.failures[0]) {
			failed, skipped = m, without
		}
	}
	return failed
}

// failureKind is the beginning of what a failure says, without numbers.
func failureKind(failure string) string {
	_, says, _ := strings.Cut(failure, " about ")
	says = strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, says)
	return says[:min(60, len(says))]
}

// referrersModel is one run, generated from a seed.
type referrersModel struct {
	*modelWorld
	settings referrersSettings
	faces    []*modelMirror // the child, and its parent where it has one

	seed    uint64
	source  *rand.PCG
	step    atomic.Int64
	skipped []int
	// recovered says that all is well, and has been for so long that nothing is
	// left of what was not.
	recovered bool
	judged    int // how many answers have been
	noting    sync.Mutex
	failures  []string
	history   []string // the last steps, for whoever has to find out
	counts    map[string]int
}

// referrersSettings differ from run to run.
type referrersSettings struct {
	topology     string // what the child asks: one registry, two, a parent, or a parent and a registry
	referrersTTL time.Duration
	negativeTTL  time.Duration
	tagTTL       time.Duration
	maxBytes     int64
	cosign       bool // tags are configured
	buildKit     bool // attestations without a subject are configured
	immutable    bool // all tags are said to be
	lowQuota     bool
	prefetches   bool
	long         bool // one subject has more referrers than are read at once
}

func newReferrersModel(t *testing.T, seed uint64) *referrersModel {
	source := rand.NewPCG(seed, 0)
	random := rand.New(source)
	m := &referrersModel{modelWorld: newModelWorld(t, random), seed: seed, source: source, counts: map[string]int{}}
	m.settings = referrersSettings{
		topology:     pick(random, "one", "one", "two", "two", "parent", "parent and one"),
		referrersTTL: pick(random, 5*time.Minute, 5*time.Minute, time.Minute, time.Second),
		negativeTTL:  pick(random, 30*time.Second, 30*time.Second, time.Second),
		tagTTL:       pick(random, time.Minute, time.Hour, 0),
		maxBytes:     pick(random, 0, 0, 0, int64(12<<10)),
		cosign:       random.IntN(2) == 0,
		buildKit:     random.IntN(2) == 0,
		immutable:    random.IntN(4) == 0,
		lowQuota:     random.IntN(4) == 0,
		prefetches:   random.IntN(2) == 0,
		long:         random.IntN(16) == 0 && !without("long"),
	}
	if m.settings.long {
		m.settings.maxBytes = 0
	}
	m.cosign, m.buildKit = m.settings.cosign, m.settings.buildKit
	endpoints := 1
	if m.settings.topology == "two" {
		endpoints = 2
	}
	for range endpoints {
		m.addEndpoint()
	}
	var registries []string
	for _, e := range m.endpoints {
		m.note("%s has %s", e.name, e.ways())
		registries = append(registries, e.registry.URL())
	}
	child := &modelMirror{model: m, name: "child", address: "127.0.0.1:500", upstreams: registries}
	if strings.HasPrefix(m.settings.topology, "parent") {
		parent := &modelMirror{model: m, name: "parent", address: "127.0.0.1:501", upstreams: registries}
		m.faces = append(m.faces, parent)
		child.parent, child.upstreams = parent, []string{"http://" + parent.address}
		if m.settings.topology == "parent and one" {
			child.upstreams, child.direct = append(child.upstreams, registries...), true
		}
	}
	m.faces = append(m.faces, child)
	for _, face := range m.faces {
		face.open()
	}
	for range 2 + random.IntN(3) {
		m.addSubject()
	}
	if m.settings.long {
		m.attachMany(m.subjects[0])
	}
	m.look()
	return m
}

// run runs all steps.
func (m *referrersModel) run(steps int) {
	defer func() {
		for _, face := range slices.Backward(m.faces) {
			face.close()
		}
	}()
	if m.settings.long {
		steps = min(steps, 30) // they take their time
	}
	for step := range steps {
		m.step.Store(int64(step))
		// Each step has its own luck, so that others can be left out.
		m.source.Seed(m.seed, uint64(step)+1)
		if slices.Contains(m.skipped, step) {
			continue
		}
		if m.doStep(); len(m.failures) > 0 {
			return
		}
	}
	m.recover()
}

// note logs what happens, for a failure report.
func (m *referrersModel) note(format string, args ...any) {
	line := fmt.Sprintf("%4d %s %s", m.step.Load(), time.Now().Format("02 15:04:05.000"), fmt.Sprintf(format, args...))
	m.noting.Lock()
	defer m.noting.Unlock()
	if m.history = append(m.history, line); len(m.history) > 90 {
		m.history = m.history[1:]
	}
}

func (m *referrersModel) fail(format string, args ...any) {
	m.noting.Lock()
	defer m.noting.Unlock()
	m.failures = append(m.failures, fmt.Sprintf("step %d at %s: %s", m.step.Load(), time.Now().Format("02 15:04:05.000"), fmt.Sprintf(format, args...)))
}

// pick returns one of several values.
func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// without says whether a kind of step is left out.
func without(kind string) bool {
	return slices.Contains(strings.Split(os.Getenv(modelReferrersWithout), ","), kind)
}
