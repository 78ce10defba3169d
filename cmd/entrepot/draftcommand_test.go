package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// look reads a part of a blob, and leaves.
func (p *place) look(path, ranges string) {
	p.Helper()
	req, err := http.NewRequest(http.MethodGet, p.clients+path, nil)
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Range", ranges)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusPartialContent {
		p.Fatalf("%s of %s: %s, %d bytes, %v", ranges, path, resp.Status, len(body), err)
	}
}

var draftBytes = regexp.MustCompile(`(?m)^entrepot_cache_drafts_bytes (\S+)$`)

// What a client has read of a blob is shown and purged through the server that
// runs, and on the folder of one that does not.
func TestCommandsAboutUnfinishedDownloads(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "through a running server", false: "on a stopped folder"}[running], func(t *testing.T) {
			fake := upstreamtest.New(t)
			const whole, read = 20 << 20, 1 << 20
			model := fake.AddBlob("team/model", upstreamtest.Bytes(1, whole))
			other := fake.AddBlob("team/other", upstreamtest.Bytes(2, whole))
			p := newPlace(t, fake, "")
			p.serve()
			for repository, d := range map[string]fmt.Stringer{"team/model": model.Digest, "team/other": other.Digest} {
				p.look("/v2/"+repository+"/blobs/"+d.String(), fmt.Sprintf("bytes=%d-%d", 10<<20, 10<<20+read-1))
			}
			p.stop() // keeps what there is of a download
			var flags []string
			metrics := func() string { return "" }
			if running {
				admin := p.serve()
				flags = []string{"--admin", admin}
				metrics = func() string {
					resp, err := http.Get("http://" + admin + "/metrics")
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					text, err := io.ReadAll(resp.Body)
					found := draftBytes.FindSubmatch(text)
					if err != nil || found == nil {
						t.Fatalf("the metrics do not tell the bytes of drafts: %v", err)
					}
					return string(found[1])
				}
			}

			list := p.list(flags)
			if len(list.Drafts) != 2 || len(list.Images) != 0 {
				t.Fatalf("ls: %+v", list)
			}
			d := list.Drafts[0]
			if d.Digest != model.Digest || d.Upstream != "hub.test" || d.Repository != "team/model" || d.Size != whole || d.Bytes < read || d.Bytes > 2*read || d.KeptAt.IsZero() {
				t.Errorf("ls: %+v", d)
			}
			both := d.Bytes + list.Drafts[1].Bytes
			if list.Bytes < both || list.Strays != list.Bytes {
				t.Errorf("ls: %+v", list)
			}
			if got := metrics(); running && got != fmt.Sprintf("%g", float64(list.Bytes)) {
				t.Errorf("the metrics tell %s bytes, want %d", got, list.Bytes)
			}
			line := fmt.Sprintf("hub.test/team/model  %s  %s of 20 MiB  ", shortDigest(model.Digest), size(d.Bytes))
			if code, table, stderr := p.run(flags, "ls"); code != 0 || !strings.Contains(table, line) || !strings.Contains(table, "0 images and 2 unfinished downloads, ") {
				t.Errorf("ls as a table: exit %d, %s%s", code, table, stderr)
			}

			code, dry, stderr := p.run(flags, "purge", "team/model", "--dry-run")
			want := fmt.Sprintf("would purge 0 tags, 0 manifests, 0 files and 1 unfinished downloads, %s\n", size(list.Bytes/2))
			if code != 0 || dry != want || len(p.list(flags).Drafts) != 2 {
				t.Errorf("purge --dry-run: exit %d, %s%s", code, dry, stderr)
			}
			want = strings.Replace(want, "would purge", "purged", 1)
			for left, target := range []string{"hub.test/team/other", model.Digest.String()} {
				if code, stdout, stderr := p.run(flags, "purge", target); code != 0 || stdout != want {
					t.Errorf("purge %s: exit %d, %s%s", target, code, stdout, stderr)
				}
				if list := p.list(flags); len(list.Drafts) != 1-left {
					t.Errorf("ls after it: %+v", list)
				}
			}
			if got := metrics(); running && got != "0" {
				t.Errorf("the metrics tell %s bytes, and nothing is left", got)
			}
			if files, err := filepath.Glob(filepath.Join(p.cache, "drafts", "*")); err != nil || len(files) > 0 {
				t.Errorf("%v is left, %v", files, err)
			}
		})
	}
}
