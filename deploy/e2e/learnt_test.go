package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// atHand is how much longer a pull may take with the upstream gone than one
	// of what is kept: the upstream refuses, and is not waited for.
	atHand = 2 * time.Second
	// learns is how long the mirror has to learn what it will be asked.
	learns = 30 * time.Second
)

// learntFrom are the registries from which the mirror has to learn what refers
// to an image.
var learntFrom = []struct{ name, api, tag string }{
	{"the API lists", "lists", "404"},
	{"the API lists none", listsNone, "404"},
	{"no API, a fallback tag", "404 as text", "lists"},
	{"no API, no fallback tag", "404 as text", "404"},
}

// TestDockerPullsWhatContainerdPulled has a node pull with containerd, which
// asks for no referrers, and another with Docker, which fails where it is told
// nothing of them: with the upstream gone, and with the mirror told to ask
// nobody, as with the upstream there.
func TestDockerPullsWhatContainerdPulled(t *testing.T) {
	s := newSuite(t)
	key := newReferringKey(t)
	// Of each there are two: one stays, and says how long a hit takes.
	var stay, left []*inquiry
	for i, from := range learntFrom {
		for n, all := range []*[]*inquiry{&stay, &left} {
			a := &inquiry{api: says(apiSays, from.api), tag: says(tagSays, from.tag), way: beside, upstream: fmt.Sprintf("r%d%d.example", i, n)}
			a.registry = newReferring(t, key, 2*i+n, "", a.api, a.tag)
			*all = append(*all, a)
		}
	}
	all := slices.Concat(stay, left)
	m := s.newReferrersMirror(t)
	m.configureReferrers(t, all, "freshness: {tag_ttl: 1s}\n")
	m.start(t)
	c := s.startContainerd(t, m, "containerd", nil, []string{"--local"}).(*containerd)
	d := s.startMoby(t, m).(*moby)

	var pulled [][]string
	for _, a := range all {
		c.ctr(t, "images", "pull", "--local", "--hosts-dir", c.hostsDir, a.upstream+"/"+referringRepo+":1")
		pulled = append(pulled, a.registry.Transcript())
	}
	m.waitLearnt(t, all)
	var lines []string
	for i, a := range all {
		learnt := a.registry.Transcript()
		checkAskedOnce(t, a, slices.Concat(pulled[i], learnt))
		if i < len(stay) {
			lines = append(lines, fmt.Sprintf("| %s | %s | %s |", learntFrom[i].name, methods(pulled[i]), methods(learnt)))
			t.Logf("%s: for the pull\n%s\nand to learn\n%s", learntFrom[i].name, strings.Join(pulled[i], "\n"), strings.Join(learnt, "\n"))
		}
	}

	time.Sleep(expired) // Then the upstream is asked whether a tag has moved.
	for _, a := range left {
		a.registry.Stop()
	}
	for i := range learntFrom {
		hit := d.pullSigned(t, stay[i])
		gone := d.pullSigned(t, left[i])
		checkAtHand(t, learntFrom[i].name+", the upstream gone", hit, gone)
	}
	d.forget(t)
	m.stop(t)
	m.configureReferrers(t, all, "offline: true\n")
	m.start(t)
	for i := range learntFrom {
		checkAtHand(t, learntFrom[i].name+", offline", d.pullSigned(t, stay[i]), d.pullSigned(t, left[i]))
	}

	put(t, "learnt", `## What Docker asks for, where containerd pulled first

A node pulls an attested image by `+"`ctr images pull`"+`, which asks for no referrers. Then the mirror learns of its own accord what
Docker asks for beside the image. The upstream is asked once for each, and then unplugged, or the mirror is told to ask nobody:
Docker on another node pulls the image, and the signature where there is one, in the time of a hit.

| upstream | asked for the pull | asked to learn |
|---|---|---|
`+strings.Join(lines, "\n")+"\n")
}

// says is what a registry says that is known by a name.
func says(all []said, name string) said {
	return all[slices.IndexFunc(all, func(one said) bool { return one.name == name })]
}

// pullSigned has Docker pull an image with its signature, if there is one, and
// says how long that took.
func (d *moby) pullSigned(t *testing.T, a *inquiry) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := d.tryPull(t.Context(), a.upstream+"/"+referringRepo, "1"); err != nil {
		t.Errorf("API: %s, tag: %s: %v", a.api.name, a.tag.name, err)
	}
	took := time.Since(begin)
	if truth(a.api, a.tag) == toldSome {
		checkBlobs(t, d.blobs(), []string{a.registry.signatures[a.registry.attestation.Digest].Digest.String()})
	}
	return took
}

func checkAtHand(t *testing.T, what string, hit, took time.Duration) {
	t.Helper()
	t.Logf("%s: a pull takes %s, a hit %s", what, took.Round(time.Millisecond), hit.Round(time.Millisecond))
	if took > hit+atHand {
		t.Errorf("%s: a pull takes %s, a hit %s", what, took, hit)
	}
}

// methods counts requests by their method.
func methods(transcript []string) string {
	by := map[string]int{}
	for _, line := range transcript {
		method, _, _ := strings.Cut(line, " ")
		by[method]++
	}
	return fmt.Sprintf("%d HEAD, %d GET", by[http.MethodHead], by[http.MethodGet])
}

// checkAskedOnce checks that no question was asked twice for one image.
func checkAskedOnce(t *testing.T, a *inquiry, transcript []string) {
	t.Helper()
	slices.Sort(transcript)
	for i := 1; i < len(transcript); i++ {
		if transcript[i] == transcript[i-1] {
			t.Errorf("API: %s, tag: %s: asked for twice: %s\nin\n%s", a.api.name, a.tag.name, transcript[i], strings.Join(transcript, "\n"))
		}
	}
}

// waitLearnt waits until nothing is left to learn of an image of each upstream.
func (m *mirror) waitLearnt(t *testing.T, all []*inquiry) {
	t.Helper()
	m.waitKept(t, func(kept []keptImage) bool {
		whole := map[string]bool{}
		for _, image := range kept {
			if image.Whole && len(image.Unlearnt) == 0 {
				whole[image.Upstream] = true
			}
		}
		return !slices.ContainsFunc(all, func(a *inquiry) bool { return !whole[a.upstream] })
	})
}

// waitAllLearnt waits until nothing is left to learn of what is kept.
func (m *mirror) waitAllLearnt(t *testing.T) {
	t.Helper()
	m.waitKept(t, func(kept []keptImage) bool {
		return !slices.ContainsFunc(kept, func(i keptImage) bool { return len(i.Unlearnt) > 0 })
	})
}

// keptImage is an image as "entrepot ls" shows it.
type keptImage struct {
	Upstream string
	Whole    bool
	Unlearnt []string
}

// waitKept waits until what is kept is as is says.
func (m *mirror) waitKept(t *testing.T, is func([]keptImage) bool) {
	t.Helper()
	for deadline := time.Now().Add(learns); ; time.Sleep(100 * time.Millisecond) {
		out := command(t, environment(m.dir), m.program, "ls", "--output", "json", "--config", m.config())
		var kept struct{ Images []keptImage }
		if err := json.Unmarshal([]byte(out), &kept); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if is(kept.Images) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not all is learnt after %s: %s", learns, out)
		}
	}
}

// newReferrersMirror is an entrepot that is yet to be configured.
func (s *suite) newReferrersMirror(t *testing.T) *mirror {
	t.Helper()
	return &mirror{
		program: s.entrepot, dir: s.folder(t),
		address: "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
		admin:   "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
	}
}

// configureReferrers puts entrepot before every registry that is asked through
// it.
func (m *mirror) configureReferrers(t *testing.T, all []*inquiry, settings string) {
	t.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, "listen: %s\nadmin: %s\ncache: {dir: %s}\n%supstreams:\n", m.address, m.admin, filepath.Join(m.dir, "cache"), settings)
	for _, a := range all {
		if a.way != straight {
			fmt.Fprintf(&config, "  - name: %s\n    aliases: [%q]\n    endpoints: [%q]\n", a.upstream, buildkitHost(a), a.registry.URL())
		}
	}
	if err := os.WriteFile(m.config(), []byte(config.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
