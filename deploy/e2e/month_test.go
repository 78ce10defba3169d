package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

const (
	monthImages  = 50
	monthClients = 10
	// monthEnd is within what time all is well once the upstreams are.
	monthEnd = 45 * time.Second
)

// TestAMonth has clients pull images whose tags move and to which referrers are
// attached, from upstreams that fail at random, through a mirror that has room
// for a part of them and is killed every few seconds. It is judged by what the
// clients see. ENTREPOT_MONTH_SEED and ENTREPOT_MONTH_SECONDS have it go
// otherwise, or longer.
func TestAMonth(t *testing.T) {
	s := readSuite(t)
	seed, lasts := uint64(monthNumber(t, "ENTREPOT_MONTH_SEED", 1)), time.Duration(monthNumber(t, "ENTREPOT_MONTH_SECONDS", 60))*time.Second
	t.Logf("seed %d", seed)
	w := &monthWorld{chance: newChance(seed)}
	for _, options := range [][]fake.Option{{fake.WithReferrers()}, nil} {
		up := &monthUpstream{Registry: fake.New(t, options...), chance: w.chance}
		up.Always("", up.meet)
		w.upstreams = append(w.upstreams, up)
	}
	for i := range monthImages {
		repo := fmt.Sprintf("team/app%d", i)
		if i%2 == 0 {
			w.addImage(w.upstreams[0], repo, "/v2/"+repo, true)
		} else {
			w.addImage(w.upstreams[1], repo, "/v2/registry.example/"+repo, false)
		}
	}
	m := s.newMirror(t, nil)
	writeFile(t, m.config(), fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %s, max_size: 15MiB, min_free: 0}\n"+
		"freshness: {tag_ttl: %[4]s, referrers_ttl: %[4]s, negative_ttl: 1s}\n"+
		"upstreams: [{name: docker.io, default: true, endpoints: [%[5]q]}, {name: registry.example, endpoints: [%[6]q]}]\n",
		m.address, m.admin, filepath.Join(m.dir, "cache"), monthTTL, w.upstreams[0].URL(), w.upstreams[1].URL()))
	m.start(t)

	c := newMonthClient(w, "http://"+m.address)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { w.change(stop) })
	var weather sync.WaitGroup
	weather.Go(func() { w.weather(stop) })
	for range monthClients {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.pull(w.popular())
			}
		})
	}
	for began := time.Now(); time.Since(began) < lasts; {
		time.Sleep(w.between(3*time.Second, 7*time.Second))
		back := w.killed()
		m.crash(t)
		m.start(t)
		back()
		c.count("a kill")
	}
	close(stop)
	weather.Wait()
	for _, up := range w.upstreams {
		up.fails(0)
	}
	mended := time.Now()
	all.Wait()
	for left := w.images; len(left) > 0; {
		var still []*monthImage
		for _, image := range left {
			if !c.pull(image) {
				still = append(still, image)
			}
		}
		if time.Since(mended) > monthEnd && len(still) > 0 {
			t.Errorf("%s after the upstreams are well %d images are not, the first of them %s", monthEnd, len(still), still[0].path)
			break
		}
		left = still
	}
	t.Logf("all was well after %s; seen: %v", time.Since(mended).Round(time.Millisecond), c.seen)
	for _, wrong := range c.wrongs {
		t.Error(wrong)
	}
	for what, least := range map[string]int{"a kill": 5, "a whole image": 100, "a stale answer": 10, "an error": 10, "a broken body": 1} {
		if c.seen[what] < least && lasts >= time.Minute {
			t.Errorf("%s was seen %d times: nothing much has happened", what, c.seen[what])
		}
	}
}

func monthNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
