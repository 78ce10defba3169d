package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// fetched are the requests for blobs.
func fetched(fake *upstreamtest.Registry) (all []string) {
	for _, line := range fake.Transcript() {
		if strings.HasPrefix(line, "GET blobs ") {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return all
}

func TestWarm(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "through a running server", false: "on a folder that is not there yet"}[running], func(t *testing.T) {
			fake := upstreamtest.New(t)
			layer := upstreamtest.Bytes(1, 300<<10)
			fake.AddImage("team/app", "v1.0", layer, upstreamtest.Bytes(2, 1000))
			fake.AddImage("team/app", "v1.1", layer, upstreamtest.Bytes(3, 1000))
			fake.AddImage("team/app", "v2.0", upstreamtest.Bytes(4, 1000))
			amd, _ := fake.AddImage("team/wide", "", upstreamtest.Bytes(5, 1000))
			arm, armContent := fake.AddImage("team/wide", "", upstreamtest.Bytes(6, 1000))
			amd.Platform, arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}, &ocispec.Platform{OS: "linux", Architecture: "arm64"}
			fake.AddIndex("team/wide", "latest", amd, arm)
			fake.AddImage("team/compose", "3", upstreamtest.Bytes(7, 1000))
			p := newPlace(t, fake, "")
			var flags []string
			if running {
				flags = []string{"--admin", p.serve()}
			}
			dir := t.TempDir()
			write := func(name, text string) string {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			list := write("images.txt", "# what we run\nteam/app:v1.*\nNot An Image\nteam/gone:1\n")
			pod := write("manifests/pod.yaml", "kind: Pod\nspec: {containers: [{image: hub.test/team/wide}]}\n")
			t.Setenv("TAG", "3")
			compose := write("compose.yaml", "services: {a: {image: 'team/compose:${TAG}'}}\n")
			args := []string{"warm", "-f", list, "--kubernetes", filepath.Dir(pod), "--compose", compose, "--platform", "linux/amd64", "--pin"}
			code, stdout, stderr := p.run(flags, args...)
			if code != exitFailed || !strings.Contains(stderr, list+":3: ") || !strings.Contains(stderr, "1 of 5 images") {
				t.Errorf("exit %d, %s", code, stderr)
			}
			for _, want := range []string{
				"complete hub.test/team/app:v1.0: 1 manifests and 3 blobs", "complete hub.test/team/app:v1.1", "complete hub.test/team/wide:latest: 3 manifests",
				"complete hub.test/team/compose:3", "incomplete hub.test/team/gone:1", "failed hub.test/team/gone:1: ", "fetched blob sha256:",
			} {
				if !strings.Contains(stdout, want) {
					t.Errorf("it does not say %q:\n%s", want, stdout)
				}
			}
			for line := range strings.Lines(stdout) {
				if strings.HasPrefix(line, "fetch") && len(line) > 80 {
					t.Errorf("a line does not fit a terminal: %s", line)
				}
			}
			asked := fetched(fake)
			if slices.ContainsFunc(asked, func(line string) bool { return strings.Contains(line, armContent.Layers[0].Digest.Encoded()[:12]) }) {
				t.Error("a platform that was left out was fetched")
			}
			if n := len(slices.Compact(slices.Clone(asked))); n != len(asked) || n != 9 {
				t.Errorf("something was fetched twice: %q", asked)
			}
			if code, stdout, stderr = p.run(flags, "pins"); code != 0 || strings.Count(stdout, "\n") != 4 || strings.Contains(stdout, "gone") {
				t.Errorf("pins: exit %d, %s%s", code, stdout, stderr)
			}
			// Again, nothing is fetched, and the answer can be read by a program.
			code, stdout, stderr = p.run(flags, "warm", "team/app:v1.*", "--output", "json")
			lines := strings.Split(strings.TrimSpace(stdout), "\n")
			var last struct {
				Event string
				warm.Result
			}
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || code != 0 || last.Event != "end" || len(last.Images) != 2 || last.Fetched != 0 || last.Blobs != 6 {
				t.Errorf("exit %d, %+v, %v\n%s%s", code, last, err, stdout, stderr)
			}
			if asked := fetched(fake); len(asked) > 0 {
				t.Errorf("what is there was fetched: %q", asked)
			}
			for _, wrong := range [][]string{{"warm"}, {"warm", "x", "--platform", "arm"}, {"warm", "x", "--output", "table"}, {"warm", "x", "--jobs", "0"}} {
				if code, _, stderr := p.run(flags, wrong...); code != exitUsage {
					t.Errorf("%q: exit %d, %s", wrong, code, stderr)
				}
			}
		})
	}
}

func TestWhatIsWantedIsATagADigestOrBoth(t *testing.T) {
	cfg := config.Config{Upstreams: []config.Upstream{{Name: "docker.io", Default: true}, {Name: "ghcr.io"}}}
	d := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"alpine": "docker.io/library/alpine:latest @", "alpine:3": "docker.io/library/alpine:3 @", "ghcr.io/o/a:v1.*": "ghcr.io/o/a:v1.* @",
		"ghcr.io/o/a@" + d: "ghcr.io/o/a@" + d + " @", "ghcr.io/o/a:1@" + d: "ghcr.io/o/a:1 @" + d, "localhost:5000/a:1": "localhost:5000/a:1 @",
	} {
		of, err := parseWanted(cfg, text)
		if got := of.Image.String() + " @" + of.At.String(); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "App:1", "a b", "a:", "a:-x", "a:*@" + d, "a@sha256:12", "ghcr.io/", "a:x/y z", "https://ghcr.io/o/a:1", "{{ .image }}"} {
		var usage usageError
		if of, err := parseWanted(cfg, text); !errors.As(err, &usage) {
			t.Errorf("%q is taken for %s (%v)", text, of.Image, err)
		}
	}
}
