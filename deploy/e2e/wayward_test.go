package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// trial is one client before one lapse of an upstream.
type trial struct {
	*looker
	lapse
	upstream string
	front    *wayward
	errand   *errand
	parent   *mirror
}

// TestWaywardReferrers has clients look for what is attached to their images
// while the upstream is wayward, and when it has mended. What they find straight
// they find through the mirror, or they fail: nothing is said to be absent that
// is there.
func TestWaywardReferrers(t *testing.T) {
	s := readSuite(t)
	distribution := s.startDistribution(t, s.folder(t))
	known := &attachments{digests: map[string]bool{}}
	registries := map[bool]http.Handler{
		true:  registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))),
		false: reverseProxy(distribution.host),
	}
	pushed := map[bool]map[string]*errand{true: {}, false: {}}
	for api, handler := range registries {
		at := newWayward(t, handler, known)
		for _, k := range lookers {
			dir := s.folder(t)
			e := &errand{suite: s, t: t, dir: dir, registry: at.host(), host: at.host(), env: environment(dir), pushed: map[string]string{}, notes: map[string]string{}}
			if err := k.attach(e); err != nil {
				t.Fatalf("%s attaches: %v", k.name, err)
			}
			pushed[api][k.repository] = e
			for _, d := range attachedTo(t, "http://"+at.host()+"/v2/"+k.repository, e.digest(k.repository)) {
				known.digests[d] = true
			}
		}
	}

	var trials []*trial
	child, parent := s.newReferrersMirror(t), s.newReferrersMirror(t)
	configured := map[*mirror][]string{}
	for i, one := range lapses() {
		name := fmt.Sprintf("u%d.example", i)
		front := newWayward(t, registries[one.api], known)
		endpoints := []string{front.URL}
		if one.second != nil {
			second := newWayward(t, registries[one.api], known)
			second.be(one.second)
			endpoints = append(endpoints, second.URL)
		}
		if one.chain {
			configured[parent] = append(configured[parent], upstreamSettings(name, endpoints))
			endpoints = []string{"http://" + parent.address + "/v2/" + name}
		}
		configured[child] = append(configured[child], upstreamSettings(name, endpoints))
		for _, k := range lookers {
			trials = append(trials, &trial{looker: k, lapse: one, upstream: name, front: front, errand: pushed[one.api][k.repository], parent: parent})
		}
	}
	for m, upstreams := range configured {
		text := fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {tag_ttl: 1h, referrers_ttl: 2s, negative_ttl: 2s}\nupstreams:\n%s", m.address, m.admin, filepath.Join(m.dir, "cache"), strings.Join(upstreams, ""))
		if err := os.WriteFile(m.config(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		m.start(t)
	}
	runTrials(t, child, trials)
}

func upstreamSettings(name string, endpoints []string) string {
	return fmt.Sprintf("  - {name: %s, endpoints: [%s]}\n", name, strings.Join(endpoints, ", "))
}

// attachedTo are the digests of what is attached to an image, by what a registry
// itself says.
func attachedTo(t *testing.T, repository, subject string) (all []string) {
	t.Helper()
	for _, path := range []string{"/referrers/" + subject, "/manifests/" + strings.Replace(subject, ":", "-", 1)} {
		status, _, body, err := raw(t.Context(), repository+path)
		if err != nil {
			t.Fatal(err)
		}
		var index ocispec.Index
		if status == http.StatusOK && json.Unmarshal(body, &index) == nil {
			for _, d := range index.Manifests {
				all = append(all, d.Digest.String())
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("nothing is attached to %s of %s", subject, repository)
	}
	return all
}

func raw(ctx context.Context, url string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}

// runTrials runs all lapses, a few at once. Those of one lapse share a registry.
func runTrials(t *testing.T, m *mirror, trials []*trial) {
	t.Helper()
	var mu sync.Mutex
	var lines, violations []string
	byLapse := map[string][]*trial{}
	var names []string
	for _, one := range trials {
		if byLapse[one.lapse.name] == nil {
			names = append(names, one.lapse.name)
		}
		byLapse[one.lapse.name] = append(byLapse[one.lapse.name], one)
	}
	places := make(chan struct{}, 12)
	var running sync.WaitGroup
	for _, name := range names {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			line, wrong := runLapse(t, m, byLapse[name])
			mu.Lock()
			defer mu.Unlock()
			lines, violations = append(lines, line), append(violations, wrong...)
		})
	}
	running.Wait()
	slices.Sort(lines)
	t.Logf("straight, through the mirror, and once it has mended:\n%s", strings.Join(lines, "\n"))
	if len(violations) > 0 {
		t.Errorf("%d times something is not as it must be:\n%s", len(violations), strings.Join(violations, "\n"))
	}
}

// runLapse has all clients look during one lapse and after it.
func runLapse(t *testing.T, m *mirror, trials []*trial) (line string, violations []string) {
	one := trials[0]
	if one.before != nil {
		one.front.be(one.before)
		for _, c := range trials {
			c.askBefore(t.Context(), m)
		}
	}
	time.Sleep(one.rest)
	one.front.be(one.during)
	during := make([][2]verdict, len(trials))
	var looking sync.WaitGroup
	var mu sync.Mutex
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		violations = append(violations, one.lapse.name+": "+fmt.Sprintf(format, args...))
	}
	for i, c := range trials {
		looking.Go(func() {
			straight, _ := c.looks(t.Context(), c.front.host(), c.front.host())
			through, err := c.looks(t.Context(), m.address, m.address+"/"+c.upstream)
			during[i] = [2]verdict{straight, through}
			answers, absent := c.rawAnswers(t.Context(), m)
			if absent && !c.says {
				complain("%s: %s", c.looker.name, answers)
			}
			if through == toldNone && !c.says && !c.wasNone && (straight == toldSome || !c.blind && straight != toldNone) {
				complain("%s: straight %s, through the mirror it says that there are none (%s)", c.looker.name, straight, answers)
			}
			if straight == toldSome && through == untold {
				t.Logf("%s: %s: straight it is found, through it fails: %s (%s)", c.lapse.name, c.looker.name, oneLine(err), answers)
			}
		})
	}
	looking.Wait()
	one.front.be(nil)
	mended := make([]bool, len(trials))
	for i, c := range trials {
		looking.Go(func() {
			// The breaker, and what failed in a row, rest for half a minute at most.
			for end := time.Now().Add(40 * time.Second); !mended[i] && time.Now().Before(end); time.Sleep(time.Second) {
				got, _ := c.looks(t.Context(), m.address, m.address+"/"+c.upstream)
				mended[i] = got == toldSome
			}
			if !mended[i] {
				complain("%s: it is not found when the registry has mended", c.looker.name)
			}
		})
	}
	looking.Wait()
	var cells []string
	for i, c := range trials {
		cells = append(cells, fmt.Sprintf("%s %s%s%s", c.tool[strings.LastIndex(c.tool, "/")+1:], during[i][0], during[i][1], map[bool]string{true: "●", false: "✗"}[mended[i]]))
	}
	return one.lapse.name + ": " + strings.Join(cells, ", "), violations
}

func (v verdict) String() string { return [...]string{"✗", "○", "●"}[v] }

// looks has the client look for what is attached, at a host under a prefix.
func (c *trial) looks(ctx context.Context, host, prefix string) (verdict, error) {
	limited, stop := context.WithTimeout(ctx, longest)
	defer stop()
	return c.look(limited, c.errand.at(host, prefix))
}

// askBefore has somebody ask the mirror, as a build does, before the lapse.
func (c *trial) askBefore(ctx context.Context, m *mirror) {
	asked := m.address
	if c.chain {
		asked = c.parent.address // another of its clients
	}
	for _, path := range c.questions() {
		_, _, _, _ = raw(ctx, "http://"+asked+"/v2/"+c.upstream+"/"+c.repository+path)
	}
}

// questions are the paths at which the referrers of the image are, and what
// refers to it.
func (c *trial) questions() []string {
	subject := c.errand.digest(c.repository)
	all := []string{"/manifests/" + strings.Replace(subject, ":", "-", 1), "/referrers/" + subject}
	for d := range c.front.known.digests {
		all = append(all, "/manifests/"+d)
	}
	return all
}

// rawAnswers are the mirror's own answers, and whether one of them says that
// nothing is attached, without a warning that it could not ask.
func (c *trial) rawAnswers(ctx context.Context, m *mirror) (answers string, absent bool) {
	var all []string
	for _, path := range c.questions()[:2] {
		status, header, body, err := raw(ctx, "http://"+m.address+"/v2/"+c.upstream+"/"+c.repository+path)
		if err != nil {
			return err.Error(), false
		}
		said := strconv.Itoa(status)
		warning := header.Get("Warning")
		var index ocispec.Index
		if status == http.StatusOK && json.Unmarshal(body, &index) == nil {
			said += fmt.Sprintf(" with %d", len(index.Manifests))
			absent = absent || len(index.Manifests) == 0 && warning == ""
		}
		absent = absent || status == http.StatusNotFound && warning == ""
		if warning != "" {
			said += ", Warning: " + warning[:3]
		}
		all = append(all, said)
	}
	return "by the tag " + all[0] + ", by the API " + all[1], absent
}
