package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// expired is longer than the mirror of this test believes a tag.
const (
	believed = time.Second
	expired  = 1300 * time.Millisecond
	// atOnce is how many behaviours are tried beside each other: they wait more
	// than they work.
	atOnce = 16
)

// TestDifferential pulls with each library from registries that behave in every
// way that is known, straight and through the mirror. Whatever comes straight
// has to come through; nothing is known to fail.
//
// With ENTREPOT_E2E_BEFORE set it is held against a program of before: what is
// not said to have come through it must not come.
func TestDifferential(t *testing.T) {
	s := &suite{entrepot: setting(t, "ENTREPOT_E2E_PROGRAM"), work: os.Getenv("ENTREPOT_E2E_WORK")}
	if s.work == "" {
		s.work = t.TempDir()
	}
	lines := make([][]string, len(behaviours))
	var running sync.WaitGroup
	places := make(chan struct{}, atOnce)
	t.Run("behaviours", func(t *testing.T) {
		defer running.Wait()
		for i, b := range behaviours {
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				t.Run(b.name, func(t *testing.T) { lines[i] = s.compare(t, b, i) })
			})
		}
	})
	text := differentialPage(lines)
	t.Log("\n" + text)
	if !t.Failed() && !slices.ContainsFunc(lines, func(line []string) bool { return line == nil }) && os.Getenv("ENTREPOT_E2E_BEFORE") == "" {
		if err := os.WriteFile("DIFFERENTIAL.md", []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func TestBehavioursAreToldApart(t *testing.T) {
	seen := map[string]string{}
	for _, b := range behaviours {
		for _, what := range []string{b.name, b.sentence} {
			if what == "" || b.source == "" {
				t.Errorf("%q lacks a name, a sentence or a source", b.name)
			}
			if other, twice := seen[what]; twice {
				t.Errorf("%q and %q are the same: %s", b.name, other, what)
			}
			seen[what] = b.name
		}
	}
}

// compare is one behaviour's row of the table.
func (s *suite) compare(t *testing.T, b behaviour, n int) []string {
	dir := s.folder(t)
	type pair struct {
		lib               library
		straight, through *world
	}
	var pairs []pair
	for i, lib := range libraries {
		if len(b.only) > 0 && !slices.Contains(b.only, lib.name) {
			continue
		}
		address := func(way int) string { return fmt.Sprintf("127.1.%d.%d", n+1, 1+40*i+20*way) }
		pairs = append(pairs, pair{lib, newWorld(t, b, byte(i+1), address(0)), newWorld(t, b, byte(i+1), address(1))})
	}
	var worlds []*world
	var names []string
	for _, p := range pairs {
		worlds = append(worlds, p.through)
		names = append(names, upstreamName(p.lib))
	}
	m := s.startDifferentialMirror(t, dir, b, names, worlds)
	marks := make([]string, len(pairs))
	complaints := make([][]string, len(pairs))
	asked := make([]string, len(pairs))
	var running sync.WaitGroup
	for i, p := range pairs {
		running.Go(func() {
			marks[i], complaints[i] = s.pullBoth(t.Context(), m, b, p.lib, p.straight, p.through, dir, i)
			asked[i] = strings.Join(p.through.Transcript(), "\n\t\t")
		})
	}
	running.Wait()
	line := []string{b.name}
	red := 0
	for _, lib := range libraries {
		at := slices.IndexFunc(pairs, func(p pair) bool { return p.lib.name == lib.name })
		if at < 0 {
			line = append(line, "")
			continue
		}
		line = append(line, marks[at])
		red += len(complaints[at])
		if os.Getenv("ENTREPOT_E2E_BEFORE") == "" {
			for _, complaint := range complaints[at] {
				t.Errorf("%s: %s", lib.name, complaint)
			}
		}
		if len(complaints[at]) > 0 && os.Getenv("ENTREPOT_E2E_BEFORE") == "" {
			t.Logf("%s: the upstream was asked\n\t\t%s", lib.name, asked[at])
		}
	}
	if os.Getenv("ENTREPOT_E2E_BEFORE") != "" && (red > 0) == (b.before != "") {
		t.Errorf("%d complaints, but of before the behaviour says %q", red, b.before)
	}
	return line
}

// pullBoth pulls straight and through, in all phases.
func (s *suite) pullBoth(ctx context.Context, m *mirror, b behaviour, lib library, straight, through *world, dir string, n int) (string, []string) {
	scratch := func(way string) string {
		d := filepath.Join(dir, fmt.Sprint(way, n))
		_ = os.MkdirAll(d, 0o755) // What needs it fails without it.
		return d
	}
	direct := place{host: strings.TrimPrefix(straight.URL(), "http://"), repository: straight.repo, scratch: scratch("straight")}
	if b.login {
		direct.username, direct.password = somebody, somebodysWord
	}
	mirrored := place{
		host: m.address, upstream: upstreamName(lib), scratch: scratch("through"),
		repository: strings.TrimPrefix(strings.TrimPrefix(through.repo, b.below), "/"),
	}
	var want, got [3][]step
	var both sync.WaitGroup
	run := func(at place, w *world, into *[3][]step) {
		into[0] = walk(ctx, lib, at, w, b)
		time.Sleep(b.pause)
		into[1] = walk(ctx, lib, at, w, b)
		if b.later != nil {
			b.later(w)
		}
		time.Sleep(expired) // The program has a clock of its own.
		into[2] = walk(ctx, lib, at, w, b)
	}
	both.Go(func() { run(direct, straight, &want) })
	both.Go(func() { run(mirrored, through, &got) })
	both.Wait()
	var judgements []judgement
	for i := range got {
		judgements = append(judgements, b.judge(i, want[i], got[i]))
	}
	if b.kept && judgements[2].mark != wrong {
		judgements[2] = still(got[1], got[2])
	}
	before := lastGood(judgements, got)
	through.unplug()
	time.Sleep(expired)
	judgements = append(judgements, s.stopped(ctx, b, lib, mirrored, through, before))
	var marks strings.Builder
	var complaints []string
	for i, v := range judgements {
		marks.WriteString(v.mark)
		if len(v.complaints) > 0 {
			complaints = append(complaints, fmt.Sprintf("%s (%d in all): %s", phases[i], len(v.complaints), v.complaints[0]))
		}
	}
	return marks.String(), complaints
}

func (b behaviour) judge(phase int, straight, through []step) judgement {
	v := judge(straight, through)
	if phase == 0 && b.pause > 0 {
		v = impatient(straight, through)
	}
	if b.absence != "" {
		v.complaints = slices.DeleteFunc(v.complaints, func(c string) bool { return strings.HasSuffix(c, claimed) || strings.Contains(c, claimed+":") })
		if v.mark == wrong && len(v.complaints) == 0 {
			v.mark = barred
		}
	}
	return v
}

// lastGood is what the last pull brought that was as good as straight: it is
// what there has to be with the upstream gone.
func lastGood(judgements []judgement, got [3][]step) []step {
	var before []step
	for i, steps := range got {
		if judgements[i].mark != wrong && slices.ContainsFunc(steps, func(s step) bool { return s.err == nil }) {
			before = slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return s.err != nil && !errors.Is(s.err, errOther) || s.cut })
		}
	}
	return before
}

// stopped pulls once more with the upstream gone.
func (s *suite) stopped(ctx context.Context, b behaviour, lib library, at place, w *world, before []step) judgement {
	if b.passed != "" || len(before) == 0 {
		return judgement{mark: barred}
	}
	// What never came is not asked for: clients go on asking for long.
	var came []ask
	for i, a := range b.asked() {
		if slices.ContainsFunc(before, func(s step) bool { return s.ask == i && s.err == nil }) {
			came = append(came, a)
		}
	}
	b.asks = came
	return still(before, walk(ctx, lib, at, w, b))
}

func upstreamName(lib library) string {
	return strings.NewReplacer("/", "-", "_", "-").Replace(lib.name) + ".example"
}

// startDifferentialMirror starts entrepot in front of a world for each library.
func (s *suite) startDifferentialMirror(t *testing.T, dir string, b behaviour, names []string, worlds []*world) *mirror {
	t.Helper()
	m := &mirror{
		program: s.entrepot, dir: dir,
		address: "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
		admin:   "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
	}
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(somebodysWord), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %s}\nfreshness: {tag_ttl: %s, referrers_ttl: %s, negative_ttl: %s}\nupstreams:\n",
		m.address, m.admin, filepath.Join(dir, "cache"), believed, believed, cmp.Or(b.forgets, 30*time.Second))
	for i, w := range worlds {
		endpoint := w.URL()
		if b.below != "" {
			endpoint += "/v2/" + b.below
		}
		config += fmt.Sprintf("  - name: %s\n    endpoints: [%q]\n    trusted_realms: [localhost]\n", names[i], endpoint)
		if b.login {
			config += fmt.Sprintf("    credentials: {username: %s, password_file: %s}\n", somebody, secret)
		}
		config += b.settings
	}
	if err := os.WriteFile(m.config(), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	return m
}

func differentialPage(lines [][]string) string {
	var b strings.Builder
	b.WriteString("# What registries do, and what comes through\n\nWritten by `deploy/e2e/run`.\n\n")
	b.WriteString("Each client library pulls from a registry that behaves so, straight and through the mirror: the first pull, the second, one when\n" +
		"what is kept is stale, and one with the upstream stopped; a mark each. ✓ it came as it comes straight; + it came, though straight it\n" +
		"does not; – it does not come straight either, or nothing of it is kept. What comes straight and not through fails the suite.\n\n")
	columns := []string{"behaviour"}
	for _, lib := range libraries {
		columns = append(columns, lib.name)
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, line := range lines {
		if line != nil {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		}
	}
	b.WriteString("\nThe behaviours, and where they were seen:\n\n")
	for i, line := range lines {
		if line == nil {
			continue
		}
		fmt.Fprintf(&b, "- **%s.** %s (%s)", behaviours[i].name, behaviours[i].sentence, behaviours[i].source)
		if behaviours[i].passed != "" {
			fmt.Fprintf(&b, " Not kept: %s", behaviours[i].passed)
		}
		b.WriteString("\n")
	}
	return b.String()
}
