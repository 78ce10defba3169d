package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// scaleServer is the program on a cache, started anew for each measurement.
type scaleServer struct {
	*server
	program, dir, cache string
	origin              string // the upstream's address
	admin               string
	more                string // of the configuration
}

func (s *scaleServer) config() string { return filepath.Join(s.dir, "entrepot.yaml") }

// start starts it, with more in its configuration: lines of the cache's section.
func (s *scaleServer) start(ctx context.Context, ofCache string) (err error) {
	s.server = &server{name: "entrepot", dir: s.dir}
	if s.host, err = freeAddress(); err != nil {
		return err
	}
	if s.admin, err = freeAddress(); err != nil {
		return err
	}
	text := fmt.Sprintf(`listen: %s
admin: %s
cache: {dir: %q%s}
freshness: {tag_ttl: 24h, referrers_ttl: 24h}
upstreams:
  - name: %s
    endpoints: ["http://%s"]
    default: true
%s`, s.host, s.admin, s.cache, ofCache, scaleUpstream, s.origin, s.more)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		return err
	}
	if err := s.server.start(s.program, []string{"serve", "--config", s.config()}); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		s.stop()
		return err
	}
	return nil
}

// spent is what a process has used since its start.
type spent struct {
	cpu     time.Duration
	written int64 // bytes that it has given to the kernel to write, to clients too
	peak    int64 // bytes resident
}

// spent is read while it runs.
func (s *scaleServer) spent() (now spent, err error) {
	if now.cpu, err = s.cpu(); err != nil {
		return now, err
	}
	if now.peak, err = s.resident("VmHWM"); err != nil {
		return now, err
	}
	// Not write_bytes: where a page of the page cache is large, that counts all of
	// it for each write to a part.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	if err != nil {
		return now, err
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(line, "wchar: "); ok {
			now.written, err = strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		}
	}
	return now, err
}

// logged waits for a line of the log that has a text.
func (s *scaleServer) logged(ctx context.Context, text string) error {
	log, err := os.Open(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	var last string // of what has been read
	for {
		more, err := io.ReadAll(log)
		if last += string(more); err != nil || strings.Contains(last, text) {
			return err
		}
		last = last[max(0, len(last)-1000):]
		select {
		case <-ctx.Done():
			return fmt.Errorf("the log has no %q: %w", text, ctx.Err())
		case <-s.ended:
			return fmt.Errorf("it has ended: %s", last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// quiet waits until it has used less than a hundredth of a CPU for a while.
func (s *scaleServer) quiet(ctx context.Context) error {
	for {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is never idle: %w", ctx.Err())
		case <-time.After(2 * time.Second):
		}
		after, err := s.cpu()
		if err != nil || after-before <= 20*time.Millisecond {
			return err
		}
	}
}

// pullOverHTTP pulls an image: the tag, the blobs, what refers to it.
func pullOverHTTP(ctx context.Context, host string, image smallImage) error {
	ask := func(kind, ref string) error {
		return askSmall(ctx, http.DefaultClient, host, image.repository+"/"+kind+"/"+ref)
	}
	if err := ask("manifests", image.tag); err != nil {
		return err
	}
	for _, b := range image.blobs {
		if err := ask("blobs", b.digest); err != nil {
			return err
		}
	}
	if err := ask("referrers", image.manifest.digest); err != nil || image.signature == nil {
		return err
	}
	if err := ask("manifests", image.signature.digest); err != nil {
		return err
	}
	return ask("blobs", image.signed.digest)
}

func askSmall(ctx context.Context, client *http.Client, host, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/v2/"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", manifestType)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return discard(resp.Body)
}

// latencies of hits are taken until stop is called, which returns their median
// and their 99th percentile.
type latencies struct{ median, p99 time.Duration }

// watchHits asks for kept manifests, one each 5 ms, while something else goes on.
func watchHits(ctx context.Context, host string, images int) (stop func() (latencies, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var all []time.Duration
	var failed error
	done := make(chan struct{})
	paths := somePaths(images, 100)
	go func() {
		defer close(done)
		client := &http.Client{Transport: &http.Transport{}}
		for n := 0; ctx.Err() == nil; n++ {
			begun := time.Now()
			if err := askSmall(ctx, client, host, paths[n%len(paths)]); err != nil {
				if ctx.Err() == nil {
					failed = err
				}
				return
			}
			all = append(all, time.Since(begun))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() (latencies, error) {
		cancel()
		<-done
		if failed != nil || len(all) == 0 {
			return latencies{}, fmt.Errorf("hits beside it: %w", failed)
		}
		slices.Sort(all)
		return latencies{all[len(all)/2], all[len(all)*99/100]}, nil
	}
}

// somePaths are the manifests of n images, spread over all but the last ones.
func somePaths(images, n int) (paths []string) {
	r := rand.New(rand.NewPCG(1, uint64(images)))
	for range n {
		image := newSmallImage(r.IntN(images * 9 / 10))
		paths = append(paths, image.repository+"/manifests/"+image.manifest.digest)
	}
	return paths
}

// list is what a run of ls showed.
type list struct {
	first, all time.Duration
	peak       int64 // of the command, in bytes
}

func (s *scaleServer) list(ctx context.Context) (l list, err error) {
	cmd := exec.CommandContext(ctx, s.program, "ls", "--config", s.config(), "--admin", s.admin)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return l, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return l, err
	}
	lines, n := bufio.NewScanner(out), 0
	for lines.Scan() {
		// The first is the head of the table.
		if n++; n == 2 {
			l.first = time.Since(begun)
		}
	}
	if err := cmd.Wait(); err != nil {
		return l, fmt.Errorf("ls: %w", err)
	}
	l.all = time.Since(begun)
	if used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		l.peak = used.Maxrss << 10
	}
	return l, nil
}
