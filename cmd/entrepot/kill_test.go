package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	// killChild names the configuration in the process that is killed.
	killChild = "KILL_TEST_CONFIGURATION"
	killTimes = "ENTREPOT_KILLS"
	killSeed  = "ENTREPOT_KILL_SEED"
	// killBound is the most that the killed server may keep, in bytes.
	killBound = 2 << 20
	// killGroups is how long most records wait for their turn, on a disk that
	// keeps up.
	killGroups = time.Second
)

// TestKill kills the program under load at any instant, again and again, and
// looks each time at what it does without its upstream, over the same folder.
func TestKill(t *testing.T) {
	times, seed := 8, uint64(time.Now().UnixNano())
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
	everWhole              int
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
	clean(t)
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
	l.cmd.Env = append(os.Environ(), killChild+"="+k.config)
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

// load pulls until the server is killed.
func (l *life) load(killed <-chan struct{}) {
	var clients sync.WaitGroup
	for i := range 4 {
		seed := l.k.random.Uint64()
		clients.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for !l.dying.Load() {
				l.act(random, i)
			}
		})
	}
	clients.Go(func() { l.watch(killed) })
	clients.Wait()
}

// act is one thing that a client does.
func (l *life) act(random *rand.Rand, i int) {
	k := l.k
	switch n := random.IntN(10); {
	case n < 3, k.nothing():
		l.pull(k.make(random, "churn", fmt.Sprint("c", random.IntN(50)), 100<<10), true)
	case n < 5 && i == 0: // its own tags, so that it knows where they point
		l.pull(k.make(random, "steady", fmt.Sprint("s", random.IntN(60)), 600), true)
	case n < 6: // another tag, which moves
		l.pull(k.make(random, "moving", fmt.Sprint("m", i), 20<<10), true)
	default:
		k.mu.Lock()
		one := k.recent[random.IntN(len(k.recent))]
		k.mu.Unlock()
		l.pull(one, false)
	}
}

func (k *killing) nothing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.recent) == 0
}

// make puts a new image into the registry.
func (k *killing) make(random *rand.Rand, repo, tag string, size int) made {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made++
	var layers [][]byte
	for i := range 1 + random.IntN(4) {
		layer := make([]byte, 1+random.IntN(size))
		copy(layer, fmt.Sprintf("%d %d ", k.made, i))
		layers = append(layers, layer)
	}
	if random.IntN(2) == 0 {
		layers = append(layers, []byte("shared by all of "+repo))
	}
	d, m := k.fake.AddImage(repo, tag, layers...)
	one := made{repo: repo, tag: tag, digest: d.Digest, parts: append(m.Layers, m.Config)}
	k.recent = append(k.recent, one)
	if len(k.recent) > 60 {
		k.recent = k.recent[1:]
	}
	if repo == "steady" {
		k.steady[tag] = append(k.steady[tag], &one)
	}
	return one
}

// pull pulls as a runtime does. Unless the server is being killed everything
// has to succeed.
func (l *life) pull(one made, byTag bool) {
	ref := one.digest.String()
	if byTag && one.repo != "churn" { // those tags move under everybody's hands
		ref = one.tag
	}
	if err := l.tryPull(one, ref); err != nil && !l.dying.Load() {
		l.k.Errorf("round %d: pull %s:%s: %v", l.k.round, one.repo, ref, err)
	}
	l.k.pulls.Add(1)
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	l.k.pulled[one.digest.String()] = time.Now()
}

func (l *life) tryPull(one made, ref string) error {
	if err := l.prove("/v2/"+one.repo+"/manifests/"+ref, one.digest); err != nil {
		return err
	}
	if ref == one.tag {
		l.k.mu.Lock()
		l.k.told[one.digest.String()] = time.Now()
		l.k.mu.Unlock()
	}
	errs := make(chan error, len(one.parts))
	for _, part := range one.parts {
		go func() { errs <- l.prove("/v2/"+one.repo+"/blobs/"+part.Digest.String(), part.Digest) }()
	}
	var all []error
	for range one.parts {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// prove asks for content, and is sure of it.
func (l *life) prove(path string, want digest.Digest) error {
	status, body, _, err := l.get(l.clients + path)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("%s: %d %s", path, status, body)
	case digest.FromBytes(body) != want:
		if status == http.StatusOK {
			l.k.Errorf("round %d: %s has other bytes", l.k.round, path)
		}
		return fmt.Errorf("%s has other bytes", path)
	}
	return nil
}

// watch asks the server what is whole and what is durable, until it is killed.
func (l *life) watch(killed <-chan struct{}) {
	for {
		asked := time.Now()
		list, err := l.inventory()
		if err == nil {
			l.k.note(list, asked)
			err = l.noteDurable()
		}
		if err != nil && !l.dying.Load() {
			l.k.Errorf("round %d: %v", l.k.round, err)
		}
		select {
		case <-killed:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *life) inventory() (list pull.Inventory, err error) {
	status, body, _, err := l.get(l.admin + "/cache")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	return list, err
}

// keeps says whether a manifest is kept now.
func (l *life) keeps(key string) bool {
	list, err := l.inventory()
	if err != nil {
		l.k.Errorf("round %d: %v", l.k.round, err)
	}
	return slices.ContainsFunc(list.Images, func(image pull.Kept) bool { return image.Digest.String() == key })
}

// note remembers what was whole when it was asked.
func (k *killing) note(list pull.Inventory, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = max(k.over, list.Bytes-killBound)
	for _, image := range list.Images {
		key := image.Digest.String()
		if !image.Whole {
			delete(k.whole, key)
			continue
		}
		if k.whole[key].IsZero() {
			k.everWhole++
		}
		k.whole[key] = asked
	}
}

var recordsBehind = regexp.MustCompile(`(?m)^entrepot_records_behind_seconds (\S+)$`)

// noteDurable remembers what the server says of its records: what was told
// before is written, however slow the disk is.
func (l *life) noteDurable() error {
	asked := time.Now()
	_, body, _, err := l.get(l.admin + "/metrics")
	if err != nil {
		return err
	}
	found := recordsBehind.FindSubmatch(body)
	if found == nil {
		return fmt.Errorf("the metrics do not tell how far the records are behind: %s", body)
	}
	seconds, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return err
	}
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	if safe := asked.Add(-time.Duration(seconds * float64(time.Second))); safe.After(l.k.stays) {
		l.k.stays = safe
	}
	return nil
}

// examine starts a server whose upstream refuses, over what the killed one
// left, and looks at everything. Then it kills that too.
func (k *killing) examine() {
	k.Helper()
	died := k.died
	drafts := k.names("drafts")
	k.fake.Always("", upstreamtest.Redirect("http://127.0.0.1:1/"))
	defer k.fake.Mend()
	l := k.start()
	if !l.announced() {
		k.Fatalf("round %d: the server does not start again: %s", k.round, l.stderr.String())
	}
	for _, name := range k.names("drafts") {
		if slices.Contains(drafts, name) {
			k.Errorf("round %d: the draft %s is left", k.round, name)
		}
	}
	list, err := l.inventory()
	if err != nil {
		k.Fatalf("round %d: %v", k.round, err)
	}
	kept := map[string]pull.Kept{}
	for _, image := range list.Images {
		kept[image.Digest.String()] = image
	}
	for key, image := range kept {
		k.examineImage(l, key, image)
	}
	for tag, versions := range k.steady {
		k.examineTag(l, tag, versions, died)
	}
	k.examineFolder(list)
	clear(k.told) // what counts from here on is what was served now
	k.examined++
	l.kill()
	for key := range k.whole {
		if !kept[key].Whole {
			delete(k.whole, key) // evicted, or pulled too shortly before
		}
	}
}

// examineImage pulls what is kept, without an upstream.
func (k *killing) examineImage(l *life, key string, image pull.Kept) {
	status, body, _, err := l.get(l.clients + "/v2/" + image.Repository + "/manifests/" + key)
	if err != nil || status != http.StatusOK || digest.FromBytes(body).String() != key {
		if err == nil && status != http.StatusOK && !l.keeps(key) {
			return // evicted since it was listed
		}
		k.Errorf("round %d: the manifest %s is kept, and not served: %d, %v", k.round, key, status, err)
		return
	}
	before := k.whole[key]
	if !image.Whole && (before.IsZero() || !k.pulled[key].Before(before)) {
		return // it never was, or it may have been evicted and be on its way back
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		k.Error(err)
	}
	for _, part := range append(m.Layers, m.Config) {
		if err := l.prove("/v2/"+image.Repository+"/blobs/"+part.Digest.String(), part.Digest); err != nil {
			if !l.keeps(key) {
				return
			}
			k.lost += part.Size
			k.Errorf("round %d: %s of %s was whole, and is served without a part: %v", k.round, key, image.Repository, err)
		}
	}
}

// examineTag looks at a pinned tag: nothing evicts its images.
func (k *killing) examineTag(l *life, tag string, versions []*made, died time.Time) {
	least, known := k.served[tag] // the latest version that must have lasted
	if !known {
		least = -1
	}
	for i, one := range versions {
		if at, told := k.told[one.digest.String()]; told && at.Before(k.stays) {
			least = max(least, i)
		}
	}
	status, body, _, err := l.get(l.clients + "/v2/steady/manifests/" + tag)
	if err != nil {
		k.Errorf("round %d: %v", k.round, err)
		return
	}
	at := -1
	if status == http.StatusOK {
		d := digest.FromBytes(body)
		at = slices.IndexFunc(versions, func(one *made) bool { return one.digest == d })
	}
	for _, one := range versions[at+1:] {
		if told, ok := k.told[one.digest.String()]; ok {
			k.forgotten++
			k.oldest = max(k.oldest, died.Sub(told))
		}
	}
	if at < least {
		k.Errorf("round %d: the pinned steady:%s has lost its image or points backwards, at version %d after %d: %d", k.round, tag, at, least, status)
	}
	k.served[tag] = at
}

// examineFolder sees to it that nothing lies in the folder but what belongs
// there, and that it is what its name says.
func (k *killing) examineFolder(list pull.Inventory) {
	var total int64
	err := filepath.WalkDir(k.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(k.dir, path)
		folders := strings.Split(name, string(filepath.Separator))
		switch {
		case slices.Contains([]string{"format", "lock", "records.db", "records.journal"}, name):
		case folders[0] == "drafts": // of the server that lives
		case len(folders) == 4 && folders[0] == "blobs" && folders[1] == "sha256" && strings.HasPrefix(folders[3], folders[2]):
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // evicted just now
			}
			if sum := sha256.Sum256(content); err != nil || hex.EncodeToString(sum[:]) != folders[3] {
				k.Errorf("round %d: the file %s is not what its name says: %v", k.round, name, err)
			}
			total += int64(len(content))
		default:
			k.Errorf("round %d: the file %s belongs to nobody", k.round, name)
		}
		return nil
	})
	if err != nil {
		k.Error(err)
	}
	if total > list.Bytes {
		k.Errorf("round %d: %d bytes lie in the folder, and %d are known", k.round, total, list.Bytes)
	}
	k.over = max(k.over, total-killBound)
	if k.over > 64<<10 {
		k.Errorf("round %d: %d bytes more are kept than may be", k.round, k.over)
	}
}

func (k *killing) names(folder string) []string {
	entries, err := os.ReadDir(filepath.Join(k.dir, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}
