package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/retention"
)

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
		l.pull(k.make(random, "moving", fmt.Sprint("m", i), 400<<10), true) // of several pieces, some of them
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

// note remembers what was whole when it was asked.
func (k *killing) note(list retention.Inventory, asked time.Time) {
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
