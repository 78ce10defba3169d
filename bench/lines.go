package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	lineRounds = 3
	// lineDelay is how long a request takes to the far end and back.
	lineDelay = 20 * time.Millisecond
	// pullJobs is how many layers a client fetches at once, as containerd does.
	pullJobs = 3
)

// line is a way to an upstream, and what is pulled over it.
type line struct {
	name   string
	each   float64 // bytes a second of a connection; 0 is without a bound
	all    float64 // of all of them
	ranges bool
	layers []int // sizes of the image's layers in bytes
}

var lines = []line{
	{"256 MiB, 100 MB/s a connection", 100e6, 0, true, []int{256 << 20}},
	{"the same, and ranges are ignored", 100e6, 0, false, []int{256 << 20}},
	{"256 MiB, 100 MB/s in all", 0, 100e6, true, []int{256 << 20}},
	{"85 MB in four layers, 100 MB/s a connection", 100e6, 0, true, []int{52_000_000, 20_000_000, 10_000_000, 3_000_000}},
}

// lineResult is one pull.
type lineResult struct {
	first, took time.Duration
	sent        int64 // bytes of bodies, by the upstream
}

// farEnd is the upstream at the end of a line. It has as many images as there are
// rounds.
type farEnd struct {
	line
	host    string
	all     *rate.Limiter
	content map[string]content
	layers  [][]content
	sent    atomic.Int64
}

func image(round int) string { return fmt.Sprintf("/v2/library/far%d/", round) }

func startFarEnd(l line) (f *farEnd, stop func(), err error) {
	f = &farEnd{line: l, all: rate.NewLimiter(rate.Inf, 0), content: map[string]content{}}
	if l.all > 0 {
		f.all = rate.NewLimiter(rate.Limit(l.all), upstreamBurst)
	}
	for round := range 2 * lineRounds {
		var layers []content
		described := []map[string]any{}
		for i, size := range l.layers {
			c := newContent(octets, random(size, byte(10*round+i)))
			layers = append(layers, c)
			described = append(described, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": c.digest, "size": size})
			f.content[image(round)+"blobs/"+c.digest] = c
		}
		config := newContent(octets, []byte("{}"))
		f.content[image(round)+"blobs/"+config.digest] = config
		manifest, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": manifestType, "layers": described,
			"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": 2},
		})
		if err != nil {
			return nil, nil, err
		}
		f.content[image(round)+"manifests/"+tag] = newContent(manifestType, manifest)
		f.layers = append(f.layers, layers)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	f.host = listener.Addr().String()
	server := &http.Server{Handler: f, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		limit := rate.NewLimiter(rate.Inf, 0)
		if l.each > 0 {
			limit = rate.NewLimiter(rate.Limit(l.each), upstreamBurst)
		}
		return context.WithValue(ctx, lineKey{}, limit)
	}}
	go func() { _ = server.Serve(listener) }() // The pull sees where it fails.
	return f, func() { server.Close() }, nil
}

type lineKey struct{}

func (f *farEnd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(lineDelay)
	c, ok := f.content[r.URL.Path]
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`)) // The client sees that it is cut.
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Docker-Content-Digest", c.digest)
	if !f.ranges {
		r.Header.Del("Range")
	}
	each, _ := r.Context().Value(lineKey{}).(*rate.Limiter)
	http.ServeContent(lineWriter{w, r.Context(), []*rate.Limiter{each, f.all}, &f.sent}, r, "", time.Time{}, bytes.NewReader(c.bytes))
}

// lineWriter writes at the pace of a line.
type lineWriter struct {
	http.ResponseWriter
	ctx    context.Context
	limits []*rate.Limiter
	sent   *atomic.Int64
}

func (w lineWriter) Write(p []byte) (int, error) {
	written := 0
	for piece := range slices.Chunk(p, 64<<10) {
		for _, limit := range w.limits {
			if limit.Limit() == rate.Inf {
				continue
			}
			if err := limit.WaitN(w.ctx, len(piece)); err != nil {
				return written, err
			}
		}
		n, err := w.ResponseWriter.Write(piece)
		written += n
		w.sent.Add(int64(n))
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// pull pulls an image as a runtime does.
func (f *farEnd) pull(ctx context.Context, host string, round int) (lineResult, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pullJobs}}
	defer client.CloseIdleConnections()
	before, began := f.sent.Load(), time.Now()
	if _, err := get(ctx, client, http.MethodGet, "http://"+host, image(round)+"manifests/"+tag, f.content[image(round)+"manifests/"+tag]); err != nil {
		return lineResult{}, err
	}
	blobs := time.Now()
	firsts, failures := make([]time.Duration, len(f.layers[round])), make([]error, len(f.layers[round]))
	jobs := make(chan struct{}, pullJobs)
	var all sync.WaitGroup
	for i, layer := range f.layers[round] {
		jobs <- struct{}{}
		all.Go(func() {
			defer func() { <-jobs }()
			start := time.Since(blobs)
			firsts[i], failures[i] = get(ctx, client, http.MethodGet, "http://"+host, image(round)+"blobs/"+layer.digest, layer)
			firsts[i] += start
		})
	}
	all.Wait()
	for _, err := range failures {
		if err != nil {
			return lineResult{}, err
		}
	}
	return lineResult{firsts[0], time.Since(began), f.sent.Load() - before}, nil
}

// linesTable measures cold pulls over each line, straight and through entrepot in
// turns, and returns the page's section about them.
func linesTable(ctx context.Context, program, work string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `
## A cold pull of one client, over a line of %d ms

The medians of %d pulls, straight from the upstream and through entrepot in turns, each of other content, with
`+"`connections_per_blob: 4`"+`.

| what, and the line | straight | through entrepot | ratio | first byte, straight | through | upstream bytes ÷ bytes |
|---|---|---|---|---|---|---|
`, lineDelay.Milliseconds(), lineRounds)
	for i, l := range lines {
		fmt.Fprintf(os.Stderr, "bench: cold, %s\n", l.name)
		straight, through, err := measureLine(ctx, l, program, filepath.Join(work, fmt.Sprintf("line%d", i)))
		if err != nil {
			return "", fmt.Errorf("%s: %w", l.name, err)
		}
		size := 0
		for _, n := range l.layers {
			size += n
		}
		a, z := middleOf(straight), middleOf(through)
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s | %s | %.3f |\n", l.name, milliseconds(a.took), milliseconds(z.took),
			z.took.Seconds()/a.took.Seconds(), milliseconds(a.first), milliseconds(z.first), float64(z.sent)/float64(size))
	}
	return b.String(), nil
}

func middleOf(results []lineResult) lineResult {
	return slices.SortedFunc(slices.Values(results), func(a, b lineResult) int { return int(a.took - b.took) })[len(results)/2]
}

func measureLine(ctx context.Context, l line, program, dir string) (straight, through []lineResult, err error) {
	f, stop, err := startFarEnd(l)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	s := &server{name: "entrepot", caches: true, dir: dir}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, nil, err
	}
	if s.host, err = freeAddress(); err != nil {
		return nil, nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	config, err := s.write("entrepot.yaml", fmt.Sprintf("listen: %s\nadmin: %s\ncache: {dir: %q}\nupstreams: [{name: far.bench, default: true, endpoints: [\"http://%s\"], connections_per_blob: 4}]\n",
		s.host, admin, filepath.Join(s.dir, "cache"), f.host))
	if err != nil {
		return nil, nil, err
	}
	if err := s.start(program, []string{"serve", "--config", config}); err != nil {
		return nil, nil, err
	}
	defer s.stop()
	if err := s.waitReady(ctx); err != nil {
		return nil, nil, err
	}
	for round := range lineRounds {
		a, err := f.pull(ctx, f.host, 2*round)
		if err != nil {
			return nil, nil, fmt.Errorf("straight: %w", err)
		}
		z, err := f.pull(ctx, s.host, 2*round+1)
		if err != nil {
			return nil, nil, fmt.Errorf("through: %w", err)
		}
		straight, through = append(straight, a), append(through, z)
	}
	return straight, through, nil
}
