package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestKillWhileRangesAreRead kills the program at any instant while clients read
// ranges of a blob. What was there when it last stopped properly is served
// without the upstream afterwards, nothing else than the content ever is, and the
// whole costs only what is missing.
func TestKillWhileRangesAreRead(t *testing.T) {
	t.Parallel() // it waits for its processes
	const kills = 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	p := newPiecesKilling(t, seed)
	l := p.begin()
	kept := l.readRanges(40)
	l.stop()
	again := 0
	for round := range kills {
		p.loadAndKill()
		p.fake.Stop()
		l = p.begin()
		l.wantServed(kept)
		again += len(l.readRanges(20))
		l.kill()
		p.fake.Start()
		if round%3 == 2 { // what is read now stays from now on
			l = p.begin()
			kept = append(kept, l.readRanges(10)...)
			l.stop()
		}
		if t.Failed() {
			return
		}
	}
	var durable cache.Spans
	for _, span := range kept {
		durable.Add(span)
	}
	before := p.fake.BlobBytes()
	l = p.begin()
	status, body, _, err := l.get(l.clients + p.path)
	if err != nil || status != http.StatusOK || !bytes.Equal(body, p.content) {
		t.Errorf("the whole: %d, %d bytes, %v", status, len(body), err)
	}
	size := int64(len(p.content))
	fetched, missing := p.fake.BlobBytes()-before, size-durable.Len()
	if fetched > missing+size/50 {
		t.Errorf("%d bytes were fetched for the whole, of which %d were missing", fetched, missing)
	}
	l.kill()
	t.Logf("%d kills, %d answers while ranges were read, %d ranges were there after a stop and %d others after a kill; %d bytes of %d were missing, %d were fetched",
		kills, p.answers, len(kept), again, missing, size, fetched)
}

// At an update, the next one is started while the former one still lets its
// clients finish.
func TestAStartWaitsForTheFormerProcessToStop(t *testing.T) {
	p := newPiecesKilling(t, 1)
	former := p.begin()
	kept := former.readRanges(5)
	next := piecesLife{p.start(), p}
	announced := make(chan bool)
	go func() { announced <- next.announced() }()
	select {
	case <-announced:
		t.Fatalf("it did not wait: %s", next.stderr.String())
	case <-time.After(500 * time.Millisecond):
	}
	former.stop()
	if !<-announced {
		t.Fatalf("it did not start: %s", next.stderr.String())
	}
	p.fake.Stop()
	next.wantServed(kept)
	next.kill()
}

// Each try to open a folder that is locked takes nothing with it.
func TestAFolderThatIsLockedCostsNothing(t *testing.T) {
	clean(t)
	p := newPiecesKilling(t, 1)
	former := p.begin()
	cfg, _, err := config.Load(config.Options{File: p.config})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := admin.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	ignore := goleak.IgnoreCurrent()
	for range 5 {
		if _, _, err := openMirror(t.Context(), cfg, machine{}, metrics, slog.New(slog.DiscardHandler)); !errors.Is(err, cache.ErrLocked) {
			t.Errorf("opened: %v", err)
		}
	}
	goleak.VerifyNone(t, ignore)
	former.kill()
}

// piecesKilling is a killing of a program that serves ranges of one blob.
type piecesKilling struct {
	*killing
	content []byte
	path    string
	answers int
}

func newPiecesKilling(t *testing.T, seed uint64) *piecesKilling {
	k := &killing{T: t, random: rand.New(rand.NewPCG(seed, 0)), fake: upstreamtest.New(t)}
	p := &piecesKilling{killing: k, content: upstreamtest.Bytes(7, 24<<20)}
	_, manifest := k.fake.AddImage("app", "1", p.content)
	p.path = "/v2/app/blobs/" + manifest.Layers[0].Digest.String()
	k.config = filepath.Join(t.TempDir(), "entrepot.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nlog: {level: error}\ncache: {dir: %q, min_free: 0}\n"+
		"upstreams: [{name: hub.test, default: true, endpoints: [%q]}]\n", filepath.Join(t.TempDir(), "cache"), k.fake.URL())
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

type piecesLife struct {
	*life
	p *piecesKilling
}

// begin starts the program.
func (p *piecesKilling) begin() piecesLife {
	p.Helper()
	l := piecesLife{p.start(), p}
	if !l.announced() {
		p.Fatalf("the server does not start: %s", l.stderr.String())
	}
	return l
}

// stop stops the program properly.
func (l piecesLife) stop() {
	l.p.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		l.p.Error(err)
	}
	if err := l.cmd.Wait(); err != nil {
		l.p.Errorf("the server ended with %v: %s", err, l.stderr.String())
	}
	l.client.CloseIdleConnections()
}

// loadAndKill kills the program while four clients read ranges.
func (p *piecesKilling) loadAndKill() {
	l := p.begin()
	var clients sync.WaitGroup
	answers := make([]int, 4)
	for i := range answers {
		random := rand.New(rand.NewPCG(p.random.Uint64(), 0))
		clients.Go(func() {
			for !l.dying.Load() {
				if _, ok := l.readRange(random); ok {
					answers[i]++
				}
			}
		})
	}
	time.Sleep(time.Duration(p.random.IntN(250)) * time.Millisecond)
	l.kill()
	clients.Wait()
	for _, n := range answers {
		p.answers += n
	}
}

// readRanges reads n ranges, and returns those that were served.
func (l piecesLife) readRanges(n int) (read []cache.Span) {
	for range n {
		if span, ok := l.readRange(l.p.random); ok {
			read = append(read, span)
		}
	}
	return read
}

func (l piecesLife) wantServed(spans []cache.Span) {
	l.p.Helper()
	for _, span := range spans {
		if !l.readSpan(span) {
			l.p.Errorf("%d is not there any more", span)
		}
	}
}

// readRange reads a range of up to 100 KiB.
func (l piecesLife) readRange(random *rand.Rand) (cache.Span, bool) {
	from := random.Int64N(int64(len(l.p.content)) - 100<<10)
	span := cache.Span{From: from, To: from + 1 + random.Int64N(100<<10)}
	return span, l.readSpan(span)
}

// readSpan says whether a range was served. Whatever is served has to be the
// content's.
func (l piecesLife) readSpan(span cache.Span) bool {
	l.p.Helper()
	req, err := http.NewRequestWithContext(l.p.Context(), http.MethodGet, l.clients+l.p.path, http.NoBody)
	if err != nil {
		l.p.Error(err)
		return false
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", span.From, span.To-1))
	resp, err := l.client.Do(req)
	if err != nil {
		if !l.dying.Load() {
			l.p.Error(err)
		}
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch want := l.p.content[span.From:span.To]; {
	case resp.StatusCode == http.StatusBadGateway:
		return false
	case resp.StatusCode == http.StatusPartialContent && err != nil && bytes.HasPrefix(want, body):
		return false // some of it was there
	case resp.StatusCode != http.StatusPartialContent || err != nil || !bytes.Equal(body, want):
		l.p.Errorf("%d: %s, %d bytes or others, %v", span, resp.Status, len(body), err)
		return false
	}
	return true
}
