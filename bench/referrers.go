package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	awayFor       = 20 * time.Millisecond // an answer of the referrers' upstream
	referrersAsks = 8000                  // warm, of each kind; fewer of long lists
	// untilWhole is how long a list may take until it is not stale any more.
	untilWhole = 5 * time.Minute
	indexType  = "application/vnd.oci.image.index.v1+json"
)

var referrersCounts = []int{1, 10, 500, 12000}

// referrersResult is what a lookup of a subject's referrers costs.
type referrersResult struct {
	speaks string // what the upstream speaks
	count  int
	first  coldLookup    // the first answer
	known  coldLookup    // the first that was not stale
	warm   time.Duration // CPU of one warm lookup
	second float64       // warm lookups in a second
}

// coldLookup is what it takes until there is an answer: requests to the
// upstream, and time.
type coldLookup struct {
	requests int64
	took     time.Duration
}

// away is a registry that is 20 ms away, with subjects that manifests refer
// to: each kind lists them in its own way.
type away struct {
	host     string
	api      bool
	content  map[string]content
	requests atomic.Int64
}

func subject(count int) string {
	return newContent("", fmt.Appendf(nil, "subject of %d", count)).digest
}

func startAway(api bool) (*away, func(), error) {
	a := &away{api: api, content: map[string]content{}}
	for _, count := range referrersCounts {
		var listed []map[string]any
		for i := range count {
			manifest := newContent(manifestType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.signature","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":2},"annotations":{"org.example.number":"%d of %d"}}`,
				manifestType, manifestType, subject(count), i, count))
			a.content["manifests/"+manifest.digest] = manifest
			listed = append(listed, map[string]any{"mediaType": manifestType, "digest": manifest.digest, "size": len(manifest.bytes)})
		}
		index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": listed})
		if err != nil {
			return nil, nil, err
		}
		path := "manifests/" + strings.Replace(subject(count), ":", "-", 1)
		if api {
			path = "referrers/" + subject(count)
		}
		a.content[path] = newContent(indexType, index)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	a.host = l.Addr().String()
	server := &http.Server{Handler: a}
	go func() { _ = server.Serve(l) }() // The lookup sees where it fails.
	return a, func() { server.Close() }, nil
}

func (a *away) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	time.Sleep(awayFor)
	c, ok := a.content[strings.TrimPrefix(r.URL.Path, "/v2/"+repository+"/")]
	if !ok && strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	if !strings.Contains(r.URL.Path, "/referrers/") {
		w.Header().Set("Docker-Content-Digest", c.digest)
	}
	_, _ = w.Write(c.bytes) // The lookup sees where it fails.
}

// measureReferrers starts an entrepot of its own, and looks up what refers to
// each subject: once cold, and then over and over.
func measureReferrers(ctx context.Context, program, work string) ([]referrersResult, error) {
	s := &server{name: "entrepot", caches: true, dir: filepath.Join(work, "referrers")}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	var admin string
	var err error
	if s.host, err = freeAddress(); err == nil {
		admin, err = freeAddress()
	}
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {referrers_ttl: 1h}\nupstreams:\n", s.host, admin, filepath.Join(s.dir, "cache"))
	upstreams := map[string]*away{}
	for name, api := range map[string]bool{"1.0": false, "1.1": true} {
		a, stop, err := startAway(api)
		if err != nil {
			return nil, err
		}
		defer stop()
		upstreams[name] = a
		fmt.Fprintf(&config, "  - {name: %q, endpoints: [\"http://%s\"]}\n", "speaks-"+name+".example", a.host)
	}
	file, err := s.write("entrepot.yaml", config.String())
	if err != nil {
		return nil, err
	}
	if err := s.start(program, []string{"serve", "--config", file}); err != nil {
		return nil, err
	}
	defer s.stop()
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	var results []referrersResult
	for _, name := range []string{"1.0", "1.1"} {
		for _, count := range referrersCounts {
			r, err := lookUp(ctx, s, upstreams[name], name, count)
			if err != nil {
				return nil, fmt.Errorf("%d referrers in a registry that speaks %s: %w", count, name, err)
			}
			fmt.Fprintf(os.Stderr, "bench: %d referrers of %s: %+v\n", count, name, r)
			results = append(results, r)
		}
	}
	return results, nil
}

func lookUp(ctx context.Context, s *server, up *away, speaks string, count int) (referrersResult, error) {
	r := referrersResult{speaks: speaks, count: count}
	path := "/v2/speaks-" + speaks + ".example/" + repository + "/referrers/" + subject(count)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: warmClients}}
	defer client.CloseIdleConnections()
	before := up.requests.Load()
	begun := time.Now()
	var body []byte
	for known := false; !known; {
		var err error
		if body, known, err = listed(ctx, client, s.host, path, count); err != nil {
			return r, err
		}
		so := coldLookup{up.requests.Load() - before, time.Since(begun)}
		if r.first.requests == 0 && body != nil {
			r.first = so
		}
		r.known = so
		if !known && so.took > untilWhole {
			return r, fmt.Errorf("after %s and %d requests it is still stale", so.took.Round(time.Second), so.requests)
		}
		if !known {
			time.Sleep(100 * time.Millisecond)
		}
	}
	asks := int64(max(40, referrersAsks/max(1, count/10)))

	want := content{mediaType: indexType, bytes: body}
	cpu, err := s.cpu()
	if err != nil {
		return r, err
	}
	begun = time.Now()
	var asked atomic.Int64
	var clients sync.WaitGroup
	failures := make([]error, warmClients)
	for i := range warmClients {
		clients.Go(func() {
			for asked.Add(1) <= asks && failures[i] == nil {
				_, failures[i] = get(ctx, client, http.MethodGet, s.url(), path, want)
			}
		})
	}
	clients.Wait()
	for _, err := range failures {
		if err != nil {
			return r, err
		}
	}
	r.second = float64(asks) / time.Since(begun).Seconds()
	after, err := s.cpu()
	r.warm = (after - cpu) / time.Duration(asks)
	return r, err
}

// listed asks for a list that has to have so many in it, in all its pages. It
// returns the first page, and whether the list is known and not stale.
func listed(ctx context.Context, client *http.Client, host, path string, count int) (first []byte, known bool, err error) {
	found := 0
	known = true
	for path != "" {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
		if err != nil {
			return nil, false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, false, err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, false, err
		}
		var index struct{ Manifests []json.RawMessage }
		if resp.StatusCode == http.StatusServiceUnavailable {
			return nil, false, nil // nothing is known yet
		}
		if err := json.Unmarshal(body, &index); err != nil || resp.StatusCode != http.StatusOK {
			return nil, false, fmt.Errorf("%s: %.200s", resp.Status, body)
		}
		if first == nil {
			first = body
		}
		found += len(index.Manifests)
		known = known && resp.Header.Get("Warning") == ""
		path, _ = strings.CutSuffix(strings.TrimPrefix(resp.Header.Get("Link"), "<"), `>; rel="next"`)
	}
	if known && found != count {
		return nil, false, fmt.Errorf("%d listed, not %d", found, count)
	}
	return first, known, nil
}
