package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	// killChild names the configuration in the process that is killed.
	killChild = "KILL_TEST_CONFIGURATION"
	killTimes = "ENTREPOT_KILLS"
	killSeed  = "ENTREPOT_KILL_SEED"
	// killBound is the most that the killed server may keep, in bytes: sixty pinned
	// images, what records and journal take on a fast machine, and as much again.
	killBound = 4 << 20
	// killGroups is how long most records wait for their turn, on a disk that
	// keeps up.
	killGroups = time.Second
)

// TestKill kills the program under load at any instant, again and again, and
// looks each time at what it does without its upstream, over the same folder.
func TestKill(t *testing.T) {
	t.Parallel() // it waits for its processes
	times, seed := 10, uint64(time.Now().UnixNano())
	for name, into := range map[string]func(uint64){killTimes: func(n uint64) { times = int(n) }, killSeed: func(n uint64) { seed = n }} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			into(n)
		}
	}
	t.Logf("again with %s=%d %s=%d", killTimes, times, killSeed, seed)
	k := newKilling(t, seed)
	for k.round = range times {
		k.loadAndKill()
		k.examine()
		if t.Failed() {
			break
		}
	}
	t.Logf("%d files of checksums lay beside content", k.sums)
	t.Logf("%d kills under load, %d of them before the server answered, and %d while it was examined; %d pulls, %d images seen whole; "+
		"lost of these %d bytes; %d moves of tags forgotten, the oldest after %s; the most kept was %d bytes above the bound",
		k.kills, k.early, k.examined, k.pulls.Load(), k.everWhole, k.lost, k.forgotten, k.oldest.Round(time.Millisecond), k.over)
}

// TestKillChild is the process that TestKill kills.
func TestKillChild(t *testing.T) {
	if config := os.Getenv(killChild); config != "" {
		os.Exit(execute(context.Background(), []string{"serve", "--config", config}, os.Stdout, os.Stderr))
	}
}

// killing is a folder, and the servers that live and die over it.
type killing struct {
	*testing.T
	random *rand.Rand
	fake   *upstreamtest.Registry
	dir    string
	config string
	round  int
	died   time.Time // when the last one was killed

	mu     sync.Mutex
	made   int
	recent []made               // what there is to pull, the newest last
	steady map[string][]*made   // of pinned tags, everything they ever pointed at
	served map[string]int       // of pinned tags, the version that was there after the last kill
	whole  map[string]time.Time // when the server said so last, by digest
	pulled map[string]time.Time // when a pull ended last, by digest
	told   map[string]time.Time // when a tag was seen to point at it
	stays  time.Time            // what was told before has to survive a kill

	pulls                  atomic.Int64
	kills, early, examined int
	everWhole, sums        int
	forgotten              int
	lost, over             int64
	oldest                 time.Duration
}

// made is an image of the registry for tests.
type made struct {
	repo, tag string
	digest    digest.Digest
	parts     []ocispec.Descriptor
}

func newKilling(t *testing.T, seed uint64) *killing {
	k := &killing{
		T: t, random: rand.New(rand.NewPCG(seed, 0)), fake: upstreamtest.New(t), dir: filepath.Join(t.TempDir(), "cache"),
		steady: map[string][]*made{}, served: map[string]int{}, whole: map[string]time.Time{}, pulled: map[string]time.Time{}, told: map[string]time.Time{},
	}
	k.config = filepath.Join(t.TempDir(), "entrepot.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nlog: {level: error}\n"+
		"cache: {dir: %q, max_size: %d, min_free: 0, memory: 1MiB}\nfreshness: {tag_ttl: 0s, negative_ttl: 0s}\npins: [\"hub.test/steady:*\"]\n"+
		"upstreams: [{name: hub.test, default: true, endpoints: [%q]}]\n", k.dir, killBound, k.fake.URL())
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// life is one process over the folder.
type life struct {
	k              *killing
	cmd            *exec.Cmd
	said           *bufio.Scanner
	stderr         bytes.Buffer
	clients, admin string
	dying          atomic.Bool
	client         *http.Client
}

var address = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)

func (k *killing) start() *life {
	k.Helper()
	l := &life{k: k, cmd: exec.Command(os.Args[0], "-test.run=^TestKillChild$"), client: &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	l.cmd.Env = append(otherVariables(), killChild+"="+k.config)
	l.cmd.Stderr = &l.stderr
	stdout, err := l.cmd.StdoutPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() { _ = l.cmd.Process.Kill() }) // where a test ends before it has
	l.said = bufio.NewScanner(stdout)
	return l
}

// announced returns once the process says where it listens, or has ended.
func (l *life) announced() bool {
	for _, into := range []*string{&l.clients, &l.admin} {
		if !l.said.Scan() {
			return false
		}
		*into = address.FindString(l.said.Text())
	}
	go func() {
		for l.said.Scan() {
		}
	}()
	return l.clients != "" && l.admin != ""
}

// kill ends the process as a power cut would, but that the kernel lives on.
func (l *life) kill() {
	l.k.Helper()
	l.k.died = time.Now()
	l.dying.Store(true)
	if err := l.cmd.Process.Kill(); err != nil {
		l.k.Errorf("the server has ended by itself: %v, %s", err, l.stderr.String())
	}
	if err := l.cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		l.k.Errorf("the server ended by itself: %v, %s", err, l.stderr.String())
	}
	if l.stderr.Len() > 0 {
		l.k.Errorf("the server complains: %s", l.stderr.String())
	}
	l.client.CloseIdleConnections()
}

// get asks for a path; the body is whole, or there is an error.
func (l *life) get(url string) (status int, body []byte, header http.Header, err error) {
	resp, err := l.client.Get(url)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, resp.Header, err
}

// loadAndKill lets clients pull and tags move, and kills the server in the middle.
func (k *killing) loadAndKill() {
	l := k.start()
	after := time.Duration(k.random.IntN(400)) * time.Millisecond
	before := k.random.IntN(8) == 0
	switch {
	case k.round%8 == 1:
		// Long enough for some of it to have to last.
		after, before = 2*killGroups, false
	case before:
		after = time.Duration(k.random.IntN(80)) * time.Millisecond
	}
	killed := make(chan struct{})
	var deadline *time.Timer
	kill := func() { deadline = time.AfterFunc(after, func() { l.kill(); close(killed) }) }
	if before {
		k.early++
		kill()
	} else if l.announced() {
		kill()
		l.load(killed)
	} else {
		k.Fatalf("the server does not start: %s", l.stderr.String())
	}
	<-killed
	deadline.Stop()
	k.kills++
}

func (l *life) inventory() (list retention.Inventory, err error) {
	status, body, _, err := l.get(l.admin + "/cache")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	return list, err
}
