package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// scaleResult is what one program needs for a cache of some size.
type scaleResult struct {
	Program string
	Images  int
	Made    time.Duration // how long the cache took to make

	Start    time.Duration // to the first answer
	Idle     int64         // bytes resident
	HitWrite float64       // bytes written for each widely spread hit

	ListFirst, ListAll       time.Duration
	ListServer, ListCommand  int64 // peak, bytes resident
	Purge                    time.Duration
	PurgePeak                int64
	ScrubFiles, ScrubLines   int
	ScrubCPU, Scrub          time.Duration
	PinsMinute               time.Duration // CPU time of an idle minute
	Evicted                  int           // images
	EvictRate, EvictWritten  float64       // images a second, and bytes an image
	EvictCPU                 time.Duration // of an image
	EvictPeak                int64
	DiskBytes, Records, Log  int64 // on disk: all, the database, its journal
	Content                  int64 // bytes of files, as they were pulled
	Alone, BesideList        latencies
	BesideEvict, BesideScrub latencies
	BesidePurge              latencies
}

// measureScale makes a cache of so many images and measures each program on a
// copy of it.
func measureScale(ctx context.Context, programs []string, work string, images int, rows string) (all []scaleResult, err error) {
	s := newSmallShelf(images)
	stop, err := s.start()
	if err != nil {
		return nil, err
	}
	defer stop()
	made, begun := filepath.Join(work, fmt.Sprint("made-", images)), time.Now()
	if err := makeCache(ctx, s, made); err != nil {
		return nil, fmt.Errorf("make the cache: %w", err)
	}
	took := time.Since(begun)
	fmt.Fprintf(os.Stderr, "bench: %d images made in %s\n", images, took.Round(time.Second))
	for i, program := range programs {
		dir := filepath.Join(work, fmt.Sprint(images, "-", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return all, err
		}
		folder := made
		if i < len(programs)-1 {
			folder = filepath.Join(dir, "cache")
			if out, err := exec.CommandContext(ctx, "cp", "-a", made, folder).CombinedOutput(); err != nil {
				return all, fmt.Errorf("copy the cache: %w: %s", err, out)
			}
		}
		r := scaleResult{Program: filepath.Base(program), Images: images, Made: took}
		err := r.measure(ctx, &scaleServer{program: program, dir: dir, cache: folder, origin: s.host}, rows)
		all = append(all, r)
		if text, err := json.Marshal(r); err == nil {
			fmt.Fprintf(os.Stderr, "%s\n", text)
		}
		if err := errors.Join(err, os.RemoveAll(folder)); err != nil {
			return all, fmt.Errorf("%s, %d images: %w", program, images, err)
		}
	}
	return all, nil
}

func (r *scaleResult) measure(ctx context.Context, s *scaleServer, rows string) error {
	var err error
	if r.DiskBytes, r.Content, err = diskUse(s.cache); err != nil {
		return err
	}
	for path, size := range map[string]*int64{"records.db": &r.Records, "records.journal": &r.Log} {
		info, err := os.Stat(filepath.Join(s.cache, path))
		if err != nil {
			return err
		}
		*size = info.Size()
	}
	steps := []struct {
		name string
		do   func(context.Context, *scaleServer) error
	}{
		{"idle", r.measureIdle}, {"ls", r.measureList}, {"purge", r.measurePurge}, {"scrub", r.measureScrub},
		{"pins", r.measurePins}, {"eviction", r.measureEviction},
	}
	for _, step := range steps {
		if rows != "" && !slices.Contains(strings.Split(rows, ","), step.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %d images, %s, %s\n", r.Images, r.Program, step.name)
		if err := step.do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// measureIdle measures what a start takes, and what is written for hits.
func (r *scaleResult) measureIdle(ctx context.Context, s *scaleServer) error {
	begun := time.Now()
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	r.Start = time.Since(begun)
	time.Sleep(5 * time.Second)
	var err error
	r.Idle, err = s.resident("VmRSS")
	s.stop()
	if err != nil {
		return err
	}
	const hits = 4000
	few, spread := somePaths(r.Images, 10), somePaths(r.Images, hits)
	var written [2]int64
	for i, paths := range [][]string{few, spread} {
		if err := s.start(ctx, ""); err != nil {
			return err
		}
		for n := range hits {
			if err := askSmall(ctx, http.DefaultClient, s.host, paths[n%len(paths)]); err != nil {
				s.stop()
				return err
			}
		}
		time.Sleep(25 * time.Second) // until the uses are saved
		now, err := s.spent()
		s.stop()
		if err != nil {
			return err
		}
		written[i] = now.written
	}
	r.HitWrite = float64(written[1]-written[0]) / hits
	return nil
}

func (r *scaleResult) measureList(ctx context.Context, s *scaleServer) error {
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	defer s.stop()
	alone := watchHits(ctx, s.host, r.Images)
	time.Sleep(5 * time.Second)
	var err error
	if r.Alone, err = alone(); err != nil {
		return err
	}
	beside := watchHits(ctx, s.host, r.Images)
	l, err := s.list(ctx)
	var hits error
	if r.BesideList, hits = beside(); err != nil || hits != nil {
		return errors.Join(err, hits)
	}
	r.ListFirst, r.ListAll, r.ListCommand = l.first, l.all, l.peak
	r.ListServer, err = s.resident("VmHWM")
	return err
}

func (r *scaleResult) measurePurge(ctx context.Context, s *scaleServer) error {
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	defer s.stop()
	beside := watchHits(ctx, s.host, r.Images)
	var took []time.Duration
	for i := range 5 { // of those that nobody asks for
		image := newSmallImage(r.Images - 2 - i)
		body := marshal(map[string]any{"upstream": scaleUpstream, "repository": image.repository, "ref": image.tag})
		begun := time.Now()
		if err := post(ctx, s.admin, "/cache/purge", body, func(string) {}); err != nil {
			return errors.Join(err, ignore(beside()))
		}
		took = append(took, time.Since(begun))
	}
	var err error
	if r.BesidePurge, err = beside(); err != nil {
		return err
	}
	slices.Sort(took)
	r.Purge = took[len(took)/2]
	r.PurgePeak, err = s.resident("VmHWM")
	return err
}

func ignore(latencies, error) error { return nil }

func (r *scaleResult) measureScrub(ctx context.Context, s *scaleServer) error {
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	before, err := s.cpu()
	if err != nil {
		s.stop()
		return err
	}
	beside, begun, last := watchHits(ctx, s.host, r.Images), time.Now(), ""
	err = post(ctx, s.admin, "/cache/scrub?rate=0", nil, func(line string) {
		r.ScrubLines++
		last = line
	})
	r.Scrub = time.Since(begun)
	var hits error
	r.BesideScrub, hits = beside()
	after, cpuErr := s.cpu()
	s.stop()
	r.ScrubCPU = after - before
	var scrubbed struct{ Files, Unreadable int }
	if err := errors.Join(err, hits, cpuErr, json.Unmarshal([]byte(last), &scrubbed)); err != nil {
		return err
	}
	r.ScrubFiles = scrubbed.Files
	return nil
}

func (r *scaleResult) measurePins(ctx context.Context, s *scaleServer) error {
	s.more = fmt.Sprintf("pins: [%q]\n", scaleUpstream+"/**")
	defer func() { s.more = "" }()
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	defer s.stop()
	time.Sleep(5 * time.Second)
	if err := s.quiet(ctx); err != nil {
		return err
	}
	before, err := s.cpu()
	if err != nil {
		return err
	}
	time.Sleep(time.Minute)
	after, err := s.cpu()
	r.PinsMinute = after - before
	return err
}

// measureEviction has the half of a cache evicted, of a large one a tenth.
func (r *scaleResult) measureEviction(ctx context.Context, s *scaleServer) error {
	tags, err := countTags(s.cache)
	if err != nil {
		return err
	}
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	values, err := metrics(ctx, s.admin)
	s.stop()
	if err != nil {
		return err
	}
	used := int64(values["entrepot_cache_bytes"] + values["entrepot_cache_records_bytes"])
	room := used * 6 / 10
	if r.Images > 20_000 {
		room = used * 96 / 100
	}
	if err := s.start(ctx, fmt.Sprintf(", max_size: %d", room)); err != nil {
		return err
	}
	begun := time.Now()
	beside := watchHits(ctx, s.host, r.Images/10) // they are used now, and stay
	err = s.logged(ctx, "msg=evicted ")
	if err != nil {
		err = errors.Join(err, ignore(beside()))
	} else {
		r.BesideEvict, err = beside()
	}
	took := time.Since(begun)
	all, spentErr := s.spent()
	s.stop()
	if err = errors.Join(err, spentErr); err != nil {
		return err
	}
	left, err := countTags(s.cache)
	if err != nil {
		return err
	}
	if r.Evicted = tags - left; r.Evicted <= 0 {
		return errors.New("nothing was evicted")
	}
	n := float64(r.Evicted)
	r.EvictRate, r.EvictWritten, r.EvictPeak = n/took.Seconds(), float64(all.written)/n, all.peak
	r.EvictCPU = all.cpu / time.Duration(r.Evicted)
	return nil
}

func post(ctx context.Context, host, path string, body []byte, each func(line string)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("POST %s: %s: %s", path, resp.Status, lines.Text())
		}
		each(lines.Text())
	}
	return lines.Err()
}

// countTags counts the tags of images on record, in a cache that nobody has open.
func countTags(dir string) (n int, err error) {
	kept, err := disk.Open(dir, disk.Options{Journal: metadata.Durable()})
	if err != nil {
		return 0, err
	}
	err = metadata.New(kept.Records(), nil).EachTag(func(_ metadata.Repository, tag string, _ metadata.Digest) {
		if !strings.HasPrefix(tag, "sha256-") {
			n++
		}
	})
	return n, errors.Join(err, kept.Close())
}

// diskUse is what a folder takes on disk, and how long its published files are.
func diskUse(dir string) (blocks, content int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			blocks += stat.Blocks * 512
		}
		if !entry.IsDir() && strings.HasPrefix(path, filepath.Join(dir, "blobs")+"/") {
			content += info.Size()
		}
		return nil
	})
	return blocks, content, err
}

// sameCaches compares the files and the records of two caches.
func sameCaches(ctx context.Context, a, b string) error {
	var found [2]map[string]string
	for i, dir := range []string{a, b} {
		found[i] = map[string]string{}
		kept, err := disk.Open(dir, disk.Options{Journal: metadata.Durable()})
		if err != nil {
			return err
		}
		err = kept.Blobs().Walk(ctx, func(d cache.Digest, size int64) bool {
			found[i]["file "+d.String()] = strconv.FormatInt(size, 10)
			return true
		})
		for _, bucket := range scaleBuckets {
			err = errors.Join(err, kept.Records().Scan(cache.Bucket(bucket), "", func(key string, value []byte) bool {
				text := string(value)
				if slices.Contains([]string{"checked", "used", "referrers"}, bucket) {
					text = strconv.Itoa(len(strings.TrimRight(text, "0123456789.Z\"}"))) // it has a time
				}
				found[i]["record "+bucket+" "+strings.ReplaceAll(key, "\x00", " ")] = text
				return true
			}))
		}
		if err := errors.Join(err, kept.Close()); err != nil {
			return err
		}
	}
	var wrong []string
	for i, one := range found {
		for name, value := range one {
			if other, ok := found[1-i][name]; !ok || i == 0 && other != value && !strings.HasPrefix(name, "record used") && !strings.HasPrefix(name, "record checked") && !strings.HasPrefix(name, "record referrers") {
				wrong = append(wrong, fmt.Sprintf("%s: %q in %s, %q (%t) in the other", name, value, []string{a, b}[i], other, ok))
			}
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("they differ in %d of %d: %s", len(wrong), len(found[0]), strings.Join(wrong[:min(len(wrong), 20)], "\n"))
	}
	fmt.Fprintf(os.Stderr, "bench: what is made is what pulls make: %d files and records\n", len(found[0]))
	return nil
}
