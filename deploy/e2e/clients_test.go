package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is a client and how it is led through the mirror.
type row struct {
	name, tool string
	how        string
	registries []string       // whose images it pulls; empty: of every one
	movesOn    bool           // asks the registry itself where the mirror is down
	upstreams  []registryKind // empty: the one that knows nothing of 1.1
	start      func(*testing.T, *suite, *mirror) client
}

var rows = []row{
	{name: "containerd 2, pulled by ctr", tool: "containerd", how: "hosts.toml", movesOn: true, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startContainerd(t, m, "containerd", nil, []string{"--local"})
	}},
	{name: "containerd 2, pulled by its transfer service", tool: "containerd", how: "hosts.toml with referrers", movesOn: true, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startContainerd(t, m, "containerd", []string{"--containerd-version", s.tool(t, "containerd").version}, nil)
	}},
	{name: "containerd 2, pulled by crictl as a kubelet does", tool: "crictl", how: "hosts.toml with referrers", movesOn: true, upstreams: both, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startKubelet(t, m)
	}},
	{name: "containerd 1.6", tool: "containerd16", how: "hosts.toml", movesOn: true, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startContainerd(t, m, "containerd16", nil, nil)
	}},
	{name: "Docker", tool: "docker", how: "registry-mirrors", registries: []string{"docker.io"}, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startDocker(t, m)
	}},
	{name: "Docker, the newest", tool: "moby", how: "hosts.toml with referrers", movesOn: true, upstreams: both, start: func(t *testing.T, s *suite, m *mirror) client {
		return s.startMoby(t, m)
	}},
	{name: "Podman", tool: "podman", how: "registries.conf", movesOn: true, start: func(t *testing.T, s *suite, m *mirror) client { return s.startPodman(t, m) }},
	{name: "skopeo", tool: "skopeo", how: "registries.conf", movesOn: true, start: func(t *testing.T, s *suite, m *mirror) client { return s.startSkopeo(t, m) }},
	{name: "crane", tool: "crane", how: "prefix", start: func(t *testing.T, s *suite, m *mirror) client { return s.startCrane(t, m) }},
	{name: "oras", tool: "oras", how: "prefix", start: func(t *testing.T, s *suite, m *mirror) client { return s.startOras(t, m) }},
	{name: "regctl", tool: "regctl", how: "prefix", start: func(t *testing.T, s *suite, m *mirror) client { return s.startRegctl(t, m) }},
}

// staleAfter is short enough to wait for, and longer than any client is busy
// with a tag within one pull.
const staleAfter = 12 * time.Second

func TestClientsPullThroughTheMirror(t *testing.T) {
	s := newSuite(t)
	results := &table{}
	t.Run("clients", func(t *testing.T) {
		for _, r := range rows {
			upstreams := r.upstreams
			if len(upstreams) == 0 {
				upstreams = both[:1]
			}
			for _, u := range upstreams {
				t.Run(r.name+"/"+u.name, func(t *testing.T) {
					t.Parallel()
					results.add(s.pullThrough(t, r, u)...)
				})
			}
		}
	})
	put(t, "runtimes", `## Images

Each client pulls an image of two platforms and six layers from each of the registries that it can be led through the mirror
to; what arrives is compared with what was pushed, digest by digest. The columns say what the upstream was asked meanwhile; "to pull again" is what the mirror then asked of its own
accord: what refers to the image and to a platform of it, of the Referrers API and, with HEAD, of the fallback tag.

`+results.sorted("client", "version", "led by", "upstream", "first pull", "to pull again", "second pull", "when stale", "upstream stopped", "after `kill -9`, upstream stopped", "image run"))
}

// stocked is an upstream of a kind that holds the suite's images.
func (s *suite) stocked(t *testing.T, kind registryKind) *upstream {
	t.Helper()
	if kind.name == withoutAPI.name {
		return s.startUpstream(t, s.store)
	}
	up := kind.start(t, s)
	for _, img := range s.images {
		if pushed := s.push(t, up.host, img.registry, img.repository); pushed.digest != img.digest {
			t.Fatalf("%s was pushed as %s, and before as %s", img.reference(), pushed.digest, img.digest)
		}
	}
	up.take()
	return up
}

// pullThrough takes a client through a mirror's life: never seen, seen, stale,
// without its upstream, and crashed without its upstream.
func (s *suite) pullThrough(t *testing.T, r row, kind registryKind) (columns []string) {
	images := s.images
	if len(r.registries) > 0 {
		images = slices.DeleteFunc(slices.Clone(images), func(i image) bool { return !slices.Contains(r.registries, i.registry) })
	}
	up := s.stocked(t, kind)
	m := s.startMirror(t, up, time.Hour)
	c := r.start(t, s, m)
	pull := func(when string) requests {
		wrong := t.Failed()
		for _, img := range images {
			c.pull(t, img)
			c.check(t, img)
		}
		if !wrong && t.Failed() {
			t.Fatalf("the pull %s did not bring what was pushed", when)
		}
		return up.take()
	}
	again := func(when string) requests {
		c.forget(t)
		return pull(when)
	}
	columns = []string{r.name, s.tool(t, r.tool).version, r.how, kind.name}

	first, learnt := pull("of something never seen").apart()
	m.waitAllLearnt(t)
	more, rest := up.take().apart()
	learnt = append(learnt, rest...)
	ran := false
	checkFirst(t, append(first, more...), images)
	checkLearnt(t, learnt, images, kind)
	if runs, ok := c.(runner); ok {
		for _, img := range images {
			if got := runs.run(t, img); strings.TrimSpace(got) != img.greeting {
				t.Errorf("%s prints %q, want %q", img.reference(), got, img.greeting)
			}
		}
		ran = true
	}

	fresh := again("while fresh")
	if len(fresh) > 0 {
		t.Errorf("a pull of what is fresh asks the upstream:\n%s", fresh)
	}

	m.stop(t)
	m.configure(t, staleAfter)
	m.start(t)
	time.Sleep(staleAfter)
	stale := again("while stale")
	checkStale(t, stale, images)

	up.stop(t)
	time.Sleep(staleAfter)
	again("with the upstream stopped")

	m.crash(t)
	m.start(t)
	time.Sleep(staleAfter)
	again("after kill -9, with the upstream stopped")
	return append(columns, first.summary(), learnt.summary(), fresh.summary(), stale.summary(), "pulled", "pulled", whether(ran, "yes"))
}

// checkFirst checks that nothing crossed the line twice, whichever repository
// it was for, and that nothing but the pulled images was asked for.
func checkFirst(t *testing.T, asked requests, images []image) {
	t.Helper()
	checkNobodyElse(t, asked)
	allowed := map[string]bool{}
	for _, img := range images {
		repository := "/v2/" + img.repository
		allowed["HEAD "+repository+"/manifests/"+img.tag] = true
		for _, d := range img.blobs(architectures...) {
			allowed["GET "+repository+"/blobs/"+d] = true
		}
		for _, arch := range architectures {
			allowed["GET "+repository+"/manifests/"+img.platforms[arch].manifest] = true
		}
		byTag, byDigest := "GET "+repository+"/manifests/"+img.tag, "GET "+repository+"/manifests/"+img.digest
		allowed[byTag], allowed[byDigest] = true, true
		if n := len(asked.where(func(q request) bool { return q.method+" "+q.path == byTag || q.method+" "+q.path == byDigest })); n != 1 {
			t.Errorf("the index of %s was downloaded %d times, want once", img.reference(), n)
		}
		for _, d := range img.blobs("amd64") {
			if n := len(asked.where(func(q request) bool { return strings.HasSuffix(q.path, "/blobs/"+d) })); n != 1 {
				t.Errorf("%s of %s was asked for %d times, want once", d, img.reference(), n)
			}
		}
	}
	seen := map[string]bool{}
	for _, q := range asked {
		line := q.method + " " + q.path
		if q.path == "/v2/" && q.method == http.MethodGet {
			continue
		}
		if !allowed[line] || q.status != http.StatusOK {
			t.Errorf("the upstream was asked for something else: %s", q)
		}
		// Repositories share blobs, so one digest is one download.
		key := q.method + " " + q.path[strings.LastIndex(q.path, "/")+1:]
		if strings.Contains(q.path, "/manifests/") {
			key = line
		}
		if seen[key] {
			t.Errorf("asked for twice: %s", q)
		}
		seen[key] = true
	}
	if t.Failed() {
		t.Logf("the upstream was asked:\n%s", asked)
	}
}

// apart takes what is asked about referrers out of the rest: with whether a HEAD
// that finds nothing is to be believed, which is learnt from what was brought.
func (all requests) apart() (rest, ofReferrers requests) {
	is := func(q request) bool {
		return strings.Contains(q.path, "/referrers/") || strings.Contains(q.path, "/manifests/sha256-") ||
			q.method == http.MethodHead && strings.Contains(q.path, "/manifests/sha256:")
	}
	return all.where(func(q request) bool { return !is(q) }), all.where(is)
}

// checkLearnt checks that the mirror asked once what refers to each image and
// to the platforms of it that were pulled, and about nothing else: in a way that
// is not counted as a pull, where the registry's answer to HEAD is not such that
// it could be anybody's.
func checkLearnt(t *testing.T, asked requests, images []image, kind registryKind) {
	t.Helper()
	checkNobodyElse(t, asked)
	allowed := map[string]bool{}
	for _, img := range images {
		subjects := []string{img.digest}
		for _, arch := range architectures {
			subjects = append(subjects, img.platforms[arch].manifest)
		}
		for i, subject := range subjects {
			tag := "HEAD /v2/" + img.repository + "/manifests/" + strings.Replace(subject, ":", "-", 1)
			allowed["GET /v2/"+img.repository+"/referrers/"+subject], allowed[tag] = true, true
			allowed["HEAD /v2/"+img.repository+"/manifests/"+subject] = true
			if kind.name != withoutAPI.name {
				allowed[strings.Replace(tag, "HEAD", "GET", 1)] = true // F34: errors are text/plain, as an ingress' are
			}
			if n := len(asked.where(func(q request) bool { return q.method+" "+q.path == tag })); n != 1 && i == 0 {
				t.Errorf("the fallback tag of %s was asked for %d times, want once:\n%s", img.reference(), n, asked)
			}
		}
	}
	seen := map[string]bool{}
	for _, q := range asked {
		line := q.method + " " + q.path
		if !allowed[line] || seen[line] {
			t.Errorf("what refers to an image is asked otherwise, or again: %s\nin\n%s", q, asked)
		}
		seen[line] = true
	}
}

// checkStale checks that each tag was asked about once, and nothing else.
func checkStale(t *testing.T, asked requests, images []image) {
	t.Helper()
	checkNobodyElse(t, asked)
	var got, want []string
	for _, q := range asked {
		got = append(got, q.method+" "+q.path)
	}
	for _, img := range images {
		want = append(want, "HEAD /v2/"+img.repository+"/manifests/"+img.tag)
	}
	if !slices.Equal(got, want) {
		t.Errorf("a pull of what is stale asks the upstream\n%s\nwant %v", asked, want)
	}
}

// agentPrefix begins the User-Agent of all that entrepot asks.
const agentPrefix = "entrepot"

// checkNobodyElse checks that no client went round the mirror.
func checkNobodyElse(t *testing.T, asked requests) {
	t.Helper()
	for _, q := range asked {
		if !strings.HasPrefix(q.agent, agentPrefix) {
			t.Errorf("a client went round the mirror: %s", q)
		}
	}
}
