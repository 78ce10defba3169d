package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	soakPulls   = 3600
	soakImages  = 600
	soakClients = 8
	soakMarks   = 6
	soakRoom    = 256 << 20
	soakSeed    = 20261125
)

// soakMark is what the server held at one moment of the soak.
type soakMark struct {
	pulls                   int
	resident, kept, evicted int64
	goroutines, files       int
}

// shelf is a registry with more images than the cache holds. Nothing of it is
// stored: the bytes of a layer follow from its number.
type shelf struct {
	host   string
	images []soakImage
	cut    atomic.Int64 // bodies so far
}

type soakImage struct {
	manifest content
	blobs    []content
}

// layer is shared by ten images where it is the first of three.
func layer(image, number int) content {
	if number == 0 {
		image -= image % 10
	}
	r := rand.New(rand.NewPCG(uint64(image), uint64(number)))
	b := make([]byte, 64<<10+r.IntN(1<<20))
	for i := 0; i+8 < len(b); i += 8 {
		n := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(n >> (8 * j))
		}
	}
	return newContent(octets, b)
}

// newShelf describes all images, and keeps the bytes of none.
func newShelf() (*shelf, error) {
	s := &shelf{}
	for i := range soakImages {
		var descriptors []map[string]any
		var image soakImage
		for n := range 3 {
			l := layer(i, n)
			descriptors = append(descriptors, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": l.digest, "size": len(l.bytes)})
			image.blobs = append(image.blobs, content{digest: l.digest, mediaType: octets})
		}
		config := newContent(octets, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","number":%d}`, i))
		image.blobs = append(image.blobs, config)
		manifest, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": manifestType, "layers": descriptors,
			"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": len(config.bytes)},
		})
		if err != nil {
			return nil, err
		}
		image.manifest = newContent(manifestType, manifest)
		s.images = append(s.images, image)
	}
	return s, nil
}

func soakRepository(image int) string { return "team/app" + strconv.Itoa(image%50) }

func (s *shelf) start() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.host = l.Addr().String()
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(l) }() // Clients see where it fails.
	return func() { server.Close() }, nil
}

// find is what a path names, with its bytes.
func (s *shelf) find(path string) (content, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return content{}, false
	}
	for i, image := range s.images {
		name, ok := strings.CutPrefix(rest, soakRepository(i)+"/")
		if !ok {
			continue
		}
		if name == "manifests/"+strconv.Itoa(i) || name == "manifests/"+image.manifest.digest {
			return image.manifest, true
		}
		for n, b := range image.blobs {
			if name != "blobs/"+b.digest {
				continue
			}
			if n < 3 {
				b = layer(i, n)
			}
			return b, true
		}
	}
	return content{}, false
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := s.find(r.URL.Path)
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`) // Clients see where it fails.
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Docker-Content-Digest", c.digest)
	var out http.ResponseWriter = w
	if r.Method == http.MethodGet && len(c.bytes) > 64<<10 && s.cut.Add(1)%50 == 0 {
		out = &cutWriter{w, len(c.bytes) / 2}
	}
	http.ServeContent(out, r, "", time.Time{}, bytes.NewReader(c.bytes))
}

// cutWriter breaks the connection off.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), w.left)])
	if w.left -= n; w.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// measureSoak pulls until as much has happened as in a busy hour, and looks at
// the server now and then.
func measureSoak(ctx context.Context, program, work string) ([]soakMark, error) {
	shelf, err := newShelf()
	if err != nil {
		return nil, err
	}
	stop, err := shelf.start()
	if err != nil {
		return nil, err
	}
	defer stop()
	s := &server{name: "entrepot", dir: filepath.Join(work, "soak")}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	if s.host, err = freeAddress(); err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file, err := s.write("entrepot.yaml", fmt.Sprintf("listen: %s\nadmin: %s\nlog: {level: warn}\ncache: {dir: %q, max_size: %d, min_free: 0}\n"+
		"freshness: {tag_ttl: 5s, referrers_ttl: 5s, negative_ttl: 1s}\nupstreams: [{name: shelf.example, default: true, endpoints: [\"http://%s\"]}]\n",
		s.host, admin, filepath.Join(s.dir, "cache"), soakRoom, shelf.host))
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
	var marks []soakMark
	for mark := range soakMarks {
		if err := soak(ctx, s, shelf, uint64(mark)); err != nil {
			return nil, err
		}
		m, err := look(ctx, s, admin)
		if err != nil {
			return nil, err
		}
		m.pulls = (mark + 1) * soakPulls / soakMarks
		fmt.Fprintf(os.Stderr, "bench: soak: %+v\n", m)
		marks = append(marks, m)
	}
	return marks, flat(marks)
}

// soak makes a part of the pulls, side by side.
func soak(ctx context.Context, s *server, shelf *shelf, part uint64) error {
	failures := make([]error, soakClients)
	var clients sync.WaitGroup
	for i := range soakClients {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			r := rand.New(rand.NewPCG(soakSeed+part, uint64(i)))
			// Few images are pulled often, and most now and then.
			popular := rand.NewZipf(r, 1.2, 20, soakImages-1)
			for range soakPulls / soakMarks / soakClients {
				if failures[i] = soakPull(ctx, client, s.host, shelf, int(popular.Uint64()), r); failures[i] != nil {
					return
				}
			}
		})
	}
	clients.Wait()
	return errors.Join(failures...)
}

// soakPull pulls one image, as the kinds of clients that there are do.
func soakPull(ctx context.Context, client *http.Client, host string, shelf *shelf, number int, r *rand.Rand) error {
	image, base := shelf.images[number], "/v2/"+soakRepository(number)+"/"
	ask := func(method, path, asked string, want int, check func(io.Reader) error) error {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+host+base+path, nil)
		if err != nil {
			return err
		}
		if asked != "" {
			req.Header.Set("Range", asked)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			return fmt.Errorf("%s %s: %s, want %d", method, path, resp.Status, want)
		}
		if check == nil {
			return nil
		}
		if err := check(resp.Body); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		return nil
	}
	if err := ask(http.MethodHead, "manifests/"+strconv.Itoa(number), "", http.StatusOK, nil); err != nil {
		return err
	}
	if err := ask(http.MethodGet, "manifests/"+image.manifest.digest, "", http.StatusOK, proves(image.manifest.digest)); err != nil {
		return err
	}
	if err := ask(http.MethodGet, "referrers/"+image.manifest.digest, "", http.StatusOK, discard); err != nil {
		return err
	}
	if r.IntN(20) == 0 {
		if err := ask(http.MethodGet, "manifests/nothing-"+strconv.Itoa(r.IntN(1000)), "", http.StatusNotFound, discard); err != nil {
			return err
		}
	}
	for _, blob := range image.blobs {
		var err error
		switch r.IntN(20) {
		case 0: // a client that leaves
			err = ask(http.MethodGet, "blobs/"+blob.digest, "", http.StatusOK, func(body io.Reader) error {
				_, err := io.CopyN(io.Discard, body, 32)
				return err
			})
		case 1:
			err = ask(http.MethodGet, "blobs/"+blob.digest, "bytes=0-15", http.StatusPartialContent, discard)
		default:
			err = ask(http.MethodGet, "blobs/"+blob.digest, "", http.StatusOK, proves(blob.digest))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func discard(body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}

func proves(digest string) func(io.Reader) error {
	return func(body io.Reader) error {
		b, err := io.ReadAll(body)
		if err == nil && newContent("", b).digest != digest {
			err = fmt.Errorf("%d bytes that are not those of the digest", len(b))
		}
		return err
	}
}

// look waits until nothing is under way and reads the server's own metrics.
func look(ctx context.Context, s *server, admin string) (soakMark, error) {
	var m soakMark
	for range 100 {
		values, err := metrics(ctx, admin)
		if err != nil {
			return m, err
		}
		m.goroutines, m.files = int(values["go_goroutines"]), int(values["process_open_fds"])
		m.kept, m.evicted = int64(values["entrepot_cache_bytes"]), int64(values["entrepot_cache_evicted_bytes_total"])
		if values["entrepot_flights"] == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	var err error
	m.resident, err = s.resident("VmRSS")
	return m, err
}

// metrics are those without labels.
func metrics(ctx context.Context, admin string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = number
		}
	}
	return values, nil
}

// flat fails where what a server holds grows with what it has done. The first
// mark is left out: until then the cache and its memory fill.
func flat(marks []soakMark) error {
	early, late := marks[1], marks[len(marks)-1]
	switch {
	case late.goroutines > early.goroutines+8:
		return fmt.Errorf("%d goroutines have become %d", early.goroutines, late.goroutines)
	case late.files > early.files+16: // idle connections come and go
		return fmt.Errorf("%d open files have become %d", early.files, late.files)
	case late.resident > early.resident*5/4+16<<20:
		return fmt.Errorf("%d MiB resident have become %d", early.resident>>20, late.resident>>20)
	case late.kept > soakRoom:
		return fmt.Errorf("%d bytes are kept of %d", late.kept, soakRoom)
	case late.evicted == 0:
		return errors.New("nothing was evicted: the soak is too small")
	}
	return nil
}
