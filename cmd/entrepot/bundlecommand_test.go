package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A closed is a place that asks no upstream.
func newClosed(t *testing.T, more string) *place {
	t.Helper()
	fake := upstreamtest.New(t)
	t.Cleanup(func() {
		if asked := fake.Transcript(); len(asked) > 0 {
			t.Errorf("an upstream was asked: %v", asked)
		}
	})
	return newPlace(t, fake, "offline: true\n"+more)
}

// pinned has a server pull images and pin them. It returns the flags by which
// commands find it.
func (p *place) pinned(names ...string) (flags []string) {
	p.Helper()
	flags = []string{"--admin", p.serve()}
	for _, name := range names {
		if code, stdout, stderr := p.run(flags, "pin", name); code != 0 || strings.Contains(stdout, "not complete") {
			p.Fatalf("pin %s: exit %d, %s%s", name, code, stdout, stderr)
		}
	}
	return flags
}

// do runs a command that has to succeed.
func (p *place) do(flags []string, args ...string) (stdout string) {
	p.Helper()
	code, stdout, stderr := p.run(flags, args...)
	if code != 0 {
		p.Fatalf("%v: exit %d, %s%s", args, code, stdout, stderr)
	}
	return stdout
}

// verified verifies a bundle, which has to be whole.
func verified(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := entrepot(t, append([]string{"bundle", "verify"}, args...)...)
	if code != 0 {
		t.Errorf("verify %v: exit %d, %s%s", args, code, stdout, stderr)
	}
	return stdout
}

func TestImagesAreCarriedAcrossAGap(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("server running %v", running), func(t *testing.T) {
			fake := upstreamtest.New(t, upstreamtest.WithReferrers())
			one, oneOf := fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 300_000))
			out, in := newPlace(t, fake, ""), newClosed(t, "")
			from, to := out.pinned("team/app:1"), []string(nil)
			if running {
				to = []string{"--admin", in.serve()}
			} else {
				from = nil
				out.stop()
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "images.tar")
			said := out.do(from, "bundle", "create", file, "team/app:1")
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := "The digest of the file is " + digest.FromBytes(raw).String(); !strings.Contains(said, want) {
				t.Errorf("%q has no %q", said, want)
			}
			if verified := verified(t, file); !strings.Contains(verified, "hub.test/team/app:1") {
				t.Error(verified)
			}
			if _, err := os.Stat(file + ".part"); err == nil {
				t.Error("the unfinished file is still there")
			}
			if code, _, stderr := out.run(from, "bundle", "create", filepath.Join(dir, "none.tar"), "team/app:9"); code != 1 || !strings.Contains(stderr, "not complete") && !strings.Contains(stderr, "not cached") {
				t.Errorf("an image that is not there: exit %d, %s", code, stderr)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "none*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}

			if said := in.do(to, "bundle", "import", file); !strings.Contains(said, "imported  hub.test/team/app:1") || !strings.Contains(said, "1 of 1 images") {
				t.Error(said)
			}
			if !strings.Contains(in.do(to, "pins"), "hub.test/team/app:1") {
				t.Error("it is not pinned")
			}
			have := filepath.Join(dir, "have.txt")
			if err := os.WriteFile(have, []byte(in.do(to, "bundle", "have")), 0o600); err != nil {
				t.Fatal(err)
			}

			// The second month. What runs fetches what is missing.
			two, twoOf := fake.AddImage("team/app", "2", upstreamtest.Bytes(2, 200_000))
			if !running {
				out.pinned("team/app:2")
				out.stop()
			}
			for _, flag := range []string{"--have=" + have, "--since=" + file} {
				delta := filepath.Join(dir, "delta.tar")
				out.do(from, "bundle", "create", delta, "--pinned", "team/app:1", "team/app:2", flag)
				info, err := os.Stat(delta)
				if err != nil || info.Size() < 200_000 || info.Size() > 220_000 {
					t.Errorf("%s: %d bytes, %v", flag, info.Size(), err)
				}
				verified(t, "--against", have, delta)
				if said := in.do(to, "bundle", "import", delta); !strings.Contains(said, "2 of 2 images") {
					t.Error(said)
				}
			}
			if !running {
				in.serve()
			}
			for path, d := range map[string]digest.Digest{
				"manifests/1": one.Digest, "blobs/" + oneOf.Layers[0].Digest.String(): oneOf.Layers[0].Digest,
				"manifests/2": two.Digest, "blobs/" + twoOf.Layers[0].Digest.String(): twoOf.Layers[0].Digest,
			} {
				if status, body := in.get("/v2/team/app/" + path); status != http.StatusOK || digest.FromBytes(body) != d {
					t.Errorf("%s: %d", path, status)
				}
			}
		})
	}
}

func TestABundleGoesThroughPipes(t *testing.T) {
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 300_000))
	out, in := newPlace(t, fake, ""), newClosed(t, "")
	from := out.pinned("team/app:1")
	code, file, stderr := out.run(from, "bundle", "create", "-", "--all")
	if code != 0 || !strings.Contains(stderr, digest.FromString(file).String()) || !strings.HasPrefix(stderr, "standard output: ") {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	admin := in.serve()
	var stdout bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs([]string{"bundle", "import", "-", "--config", in.config, "--admin", admin})
	cmd.SetIn(strings.NewReader(file))
	cmd.SetOut(&stdout)
	if err := cmd.Execute(); err != nil || !strings.Contains(stdout.String(), "1 of 1 images") {
		t.Errorf("%v, %s", err, stdout.String())
	}
}

func TestAnImportThatIsRefusedSaysWhy(t *testing.T) {
	in := newClosed(t, "")
	sound := writeBundle(t, strings.Repeat("layer", 200_000), false, false)
	raw, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	damaged, cut, foreign := filepath.Join(dir, "damaged"), filepath.Join(dir, "cut"), filepath.Join(dir, "foreign")
	flipped := bytes.Clone(raw)
	flipped[len(raw)-5000] ^= 1
	for name, content := range map[string][]byte{damaged: flipped, cut: raw[:len(raw)-5000], foreign: bytes.ReplaceAll(raw, []byte("hub.test"), []byte("hug.test"))} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	delta := writeBundle(t, "another layer", false, true)
	flags := []string{"--admin", in.serve()}
	for file, want := range map[string]string{
		damaged: "its bytes are something else", cut: "its end is missing", foreign: "hug.test/app", delta: "not every image was imported", in.config: "not a bundle",
	} {
		code, stdout, stderr := in.run(flags, "bundle", "import", file)
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s%s", filepath.Base(file), code, stdout, stderr)
		}
		if file == delta && !strings.Contains(stdout, "refused   hub.test/app:1  blob "+digest.FromString("another layer").String()+" is neither in the bundle nor here") {
			t.Errorf("%s", stdout)
		}
		if have := in.do(flags, "bundle", "have"); have != "" {
			t.Errorf("%s: left: %s", filepath.Base(file), have)
		}
	}
	if said := in.do(flags, "bundle", "import", sound); !strings.Contains(said, "1 of 1 images") {
		t.Error(said)
	}
}

const importChild = "IMPORT_TEST_ARGUMENTS"

// TestImportChild is the process that TestKilledImports kills.
func TestImportChild(t *testing.T) {
	if args := os.Getenv(importChild); args != "" {
		os.Exit(execute(t.Context(), strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
}

// TestKilledImports kills imports at any instant, and looks at what is there then:
// each image is whole or absent. Run again, they end whole.
func TestKilledImports(t *testing.T) {
	times, seed := 40, uint64(time.Now().UnixNano())
	for name, into := range map[string]func(uint64){killTimes: func(n uint64) { times = int(n) }, killSeed: func(n uint64) { seed = n }} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			into(n)
		}
	}
	t.Logf("again with %s=%d %s=%d", killTimes, times, killSeed, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	out := newPlace(t, fake, "")
	var names []string
	for n := range 8 {
		fake.AddImage("team/app", strconv.Itoa(n), upstreamtest.Bytes(byte(n+1), 200_000))
		names = append(names, "team/app:"+strconv.Itoa(n))
	}
	from := out.pinned(names...)
	file := filepath.Join(t.TempDir(), "images.tar")
	out.do(from, append([]string{"bundle", "create", file}, names...)...)
	importing := func(p *place) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestImportChild$")
		cmd.Env = append(otherVariables(), importChild+"="+strings.Join([]string{"bundle", "import", file, "--config", p.config}, "\n"))
		return cmd
	}
	began := time.Now()
	if said, err := importing(newClosed(t, "")).CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, said)
	}
	took := time.Since(began)
	absent, some, all := 0, 0, 0
	for range times {
		p := newClosed(t, "")
		cmd := importing(p)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.AfterFunc(time.Duration(random.Int64N(int64(took))), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		after.Stop()
		whole := 0
		if _, err := os.Stat(filepath.Join(p.cache, "format")); err == nil {
			var list retention.Inventory
			if err := json.Unmarshal([]byte(p.do(nil, "ls", "-o", "json")), &list); err != nil {
				t.Fatal(err)
			}
			for _, image := range list.Images {
				if !image.Whole || len(image.Tags) != 1 {
					t.Errorf("half an image: %+v", image)
				}
			}
			whole = len(list.Images)
		}
		switch whole {
		case 0:
			absent++
		case len(names):
			all++
		default:
			some++
		}
		if said := p.do(nil, "bundle", "import", file); !strings.Contains(said, "8 of 8 images") {
			t.Error(said)
		}
		if list := p.list(nil); len(list.Images) != len(names) || list.Strays != 0 {
			t.Errorf("run again: %d images, %d bytes of nobody", len(list.Images), list.Strays)
		}
	}
	t.Logf("of %d imports of %s that were killed %d left no image, %d some, %d all", times, took.Round(time.Millisecond), absent, some, all)
}

func TestALayoutOfAnotherToolIsImported(t *testing.T) {
	in := newClosed(t, "")
	ours, err := os.ReadFile(writeBundle(t, "layer", false, false))
	if err != nil {
		t.Fatal(err)
	}
	var theirs bytes.Buffer
	to := tar.NewWriter(&theirs)
	for from := tar.NewReader(bytes.NewReader(ours)); ; {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "entrepot.json" {
			continue
		}
		content = bytes.ReplaceAll(content, []byte("hub.test/app:1"), []byte("team/app:1")) // as docker save writes it
		h.Size = int64(len(content))
		if err := to.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "theirs.tar")
	if err := os.WriteFile(file, theirs.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--admin", in.serve()}
	if code, _, stderr := in.run(flags, "bundle", "import", file); code != 1 || !strings.Contains(stderr, "--as") {
		t.Errorf("without a registry: exit %d, %s", code, stderr)
	}
	if said := in.do(flags, "bundle", "import", file, "--as", "hub.test"); !strings.Contains(said, "imported  hub.test/team/app:1") {
		t.Error(said)
	}
	if status, _ := in.get("/v2/team/app/manifests/1"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
}
