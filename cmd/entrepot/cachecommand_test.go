package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// place is a cache with a configuration, and a server over it that may run.
type place struct {
	*testing.T
	config, cache string
	clients       string // the server's URL
	stop          func()
}

// newPlace configures hub.test, which is the registry for tests, as default.
func newPlace(t *testing.T, fake *upstreamtest.Registry, more string) *place {
	t.Helper()
	clean(t)
	dir := t.TempDir()
	p := &place{T: t, config: filepath.Join(dir, "entrepot.yaml"), cache: filepath.Join(dir, "cache")}
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nlog: {level: error}\ncache: {dir: %q}\n"+
		"upstreams: [{name: hub.test, default: true, endpoints: [%q]}]\n%s", p.cache, fake.URL(), more)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

var announced = regexp.MustCompile(`http://(\S+)|(unix://\S+)`)

// serve runs the server until stop, and returns its admin address.
func (p *place) serve() (admin string) {
	p.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stdout, out := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- execute(ctx, []string{"serve", "--config", p.config}, out, &stderr)
		out.Close()
	}()
	lines := bufio.NewReader(stdout)
	var said [2]string
	for i := range said {
		line, err := lines.ReadString('\n')
		found := announced.FindStringSubmatch(line)
		if err != nil || found == nil {
			p.Fatalf("line %d is %q, %v; exit %d, stderr %s", i, line, err, <-done, stderr.String())
		}
		said[i] = found[1] + found[2]
	}
	go io.Copy(io.Discard, lines)
	p.clients = "http://" + said[0]
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if code := <-done; code != 0 {
			p.Errorf("serve: exit %d, stderr %s", code, stderr.String())
		}
	}
	p.Cleanup(p.stop)
	return said[1]
}

func (p *place) get(path string) (status int, body []byte) {
	p.Helper()
	resp, err := http.Get(p.clients + path)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, body
}

// run runs a command about the place; flags choose who answers.
func (p *place) run(flags []string, args ...string) (code int, stdout, stderr string) {
	p.Helper()
	return entrepot(p.T, append(append(args, "--config", p.config), flags...)...)
}

func (p *place) list(flags []string) retention.Inventory {
	p.Helper()
	code, stdout, stderr := p.run(flags, "ls", "--output", "json")
	var list retention.Inventory
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 {
		p.Fatalf("ls: exit %d, %s%s, %v", code, stdout, stderr, err)
	}
	return list
}

// whole waits until the only image is: the last byte of a blob goes out before
// its file has its name.
func (p *place) whole(flags []string) {
	p.Helper()
	for deadline := time.Now().Add(10 * time.Second); !p.list(flags).Images[0].Whole; {
		if time.Now().After(deadline) {
			p.Fatalf("what was pulled is not kept: %+v", p.list(flags))
		}
	}
}

// Whatever can be done with a cache can be done through the server that runs,
// and on the folder of one that does not.
func TestCommandsAboutWhatIsKept(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "through a running server", false: "on a stopped folder"}[running], func(t *testing.T) {
			fake := upstreamtest.New(t)
			one, content := fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 300<<10))
			manifest, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			fake.AddManifest("team/app", one.MediaType, manifest, "also")
			p := newPlace(t, fake, "pins: [hub.test/team/fixed]\n")
			admin := p.serve()
			for _, path := range []string{"manifests/1", "manifests/also", "blobs/" + content.Config.Digest.String(), "blobs/" + content.Layers[0].Digest.String()} {
				if status, body := p.get("/v2/team/app/" + path); status != http.StatusOK {
					t.Fatalf("%s: %d %s", path, status, body)
				}
			}
			var flags []string
			pinned := "pinned hub.test/team/app:1: 1 manifests and 2 blobs, 0 of them (0 B) fetched now\n"
			if running {
				flags = []string{"--admin", admin}
			} else {
				p.stop()
				// What refers to it nobody has asked for, and nobody can ask now.
				pinned = "pinned hub.test/team/app:1, which is not complete yet: a running entrepot will fetch the rest\n"
			}
			does := func(want string, args ...string) {
				t.Helper()
				if code, stdout, stderr := p.run(flags, args...); code != 0 || !strings.HasPrefix(stdout, want) {
					t.Errorf("%s: exit %d, stderr %s\ngot\n%s\nwant\n%s", args, code, stderr, stdout, want)
				}
			}
			fails := func(want string, args ...string) {
				t.Helper()
				if code, _, stderr := p.run(flags, args...); code != 1 || stderr != "entrepot: "+want+"\n" {
					t.Errorf("%s: exit %d, got\n%s\nwant\n%s", args, code, stderr, want)
				}
			}

			p.whole(flags)
			list := p.list(flags)
			if len(list.Images) != 1 || list.Images[0].Digest != one.Digest || strings.Join(list.Images[0].Tags, " ") != "1 also" ||
				!list.Images[0].Whole || list.Images[0].Pinned || list.Images[0].LastPulled.IsZero() || list.Bytes < 300<<10 {
				t.Errorf("ls: %+v", list)
			}
			if _, table, _ := p.run(flags, "ls"); !strings.Contains(table, "hub.test/team/app:1,also  "+one.Digest.String()[:19]) {
				t.Errorf("ls as a table:\n%s", table)
			}

			does("hub.test/team/fixed (configuration)\n", "pins")
			does(pinned, "pin", "team/app:1")
			does("hub.test/team/app:1\nhub.test/team/fixed (configuration)\n", "pins")
			if !p.list(flags).Images[0].Pinned {
				t.Error("ls does not show the pin")
			}
			name := "hub.test/team/app@" + one.Digest.String()
			fails(name+": it is pinned: unpin it first", "purge", "hub.test/team/app")
			does("unpinned hub.test/team/app:1\n", "unpin", "team/app:1")
			fails("hub.test/team/app:1 is not pinned: \"entrepot pins\" lists the images that are", "unpin", "team/app:1")
			fails("hub.test/team/fixed:1 is pinned by the configuration: remove it from pins there", "unpin", "team/fixed:1")

			// Of one tag of two only the tag goes.
			does("tag       hub.test/team/app:also\npurged 1 tags, 0 manifests and 0 files, 0 B\n", "purge", "team/app:also")
			fails("team/app:also is not in the cache: \"entrepot ls\" lists the images that are", "purge", "team/app:also")

			// Damage is found, set aside, and fetched again.
			damaged := content.Layers[0].Digest
			file := filepath.Join(p.cache, "blobs", "sha256", damaged.Encoded()[:2], damaged.Encoded())
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[1000] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := p.run(flags, "scrub")
			if code != 0 || !strings.HasPrefix(stdout, "damaged  "+damaged.String()+"\nscrubbed 3 files, ") || !strings.Contains(stdout, ": 1 damaged and quarantined") {
				t.Errorf("scrub: exit %d, %s%s", code, stdout, stderr)
			}
			if p.list(flags).Images[0].Whole {
				t.Error("what lacks its layer is called whole")
			}
			if !running {
				p.serve()
			}
			if status, body := p.get("/v2/team/app/blobs/" + damaged.String()); status != http.StatusOK || damaged.Algorithm().FromBytes(body) != damaged {
				t.Errorf("what was damaged is not fetched again: %d, %d bytes", status, len(body))
			}
			if !running {
				p.stop()
			}
			p.whole(flags)

			before := p.list(flags).Bytes
			code, dry, stderr := p.run(flags, "purge", "hub.test/team/app", "--dry-run")
			if code != 0 || !strings.Contains(dry, "would purge 1 tags, 1 manifests and 3 files, ") || p.list(flags).Bytes != before {
				t.Errorf("purge --dry-run: exit %d, %s%s", code, dry, stderr)
			}
			does(strings.Replace(dry, "would purge", "purged", 1), "purge", "hub.test/team/app")
			if list := p.list(flags); len(list.Images) != 0 || list.Bytes != 0 {
				t.Errorf("after the purge: %+v", list)
			}
		})
	}
}

func TestCommandsAboutWhatIsKeptSayWhoIsMissing(t *testing.T) {
	fake := upstreamtest.New(t)
	p := newPlace(t, fake, "")
	code, _, stderr := p.run(nil, "ls")
	if want := "entrepot: there is no cache in " + p.cache + ": name its folder with --cache-dir or --config, or a server with --admin\n"; code != 1 || stderr != want {
		t.Errorf("without a cache: exit %d, %s", code, stderr)
	}
	if _, err := os.Stat(p.cache); err == nil {
		t.Error("ls made a cache")
	}
	p.serve()
	// The configuration's admin address is any free port, so nobody answers there.
	code, _, stderr = p.run(nil, "ls")
	if code != 1 || !strings.Contains(stderr, "another entrepot has "+p.cache+" open, but nothing answers on the admin address 127.0.0.1:0: name its admin address with --admin") {
		t.Errorf("with a server that can't be found: exit %d, %s", code, stderr)
	}
	code, _, stderr = p.run([]string{"--admin", strings.TrimPrefix(fake.URL(), "http://")}, "ls")
	if code != 1 || !strings.Contains(stderr, "is it the admin address of an entrepot?") {
		t.Errorf("with another's address: exit %d, %s", code, stderr)
	}
}

func TestCommandsAboutWhatIsKeptRefuseWhatNamesNothing(t *testing.T) {
	p := newPlace(t, upstreamtest.New(t), "")
	for _, c := range []struct{ args, want string }{
		{"purge", "name one image, repository or digest, as in: entrepot purge docker.io/library/alpine:3"},
		{"purge a b", "name one image, repository or digest, as in: entrepot purge docker.io/library/alpine:3"},
		{"pin", "name one image, as in: entrepot pin docker.io/library/alpine:3"},
		{"ls now", `entrepot ls takes no arguments, but got "now"`},
	} {
		code, _, stderr := p.run(nil, strings.Fields(c.args)...)
		if code != 2 || stderr != "entrepot: "+c.want+"\n" {
			t.Errorf("%s: exit %d, %s", c.args, code, stderr)
		}
	}
	p.serve()
	p.stop()
	for _, c := range []struct{ args, want string }{
		{"purge team/app@sha256:12", `"team/app@sha256:12" has a malformed digest: write it as sha256:<64 hexadecimal digits>`},
		{"purge team/app:", `"team/app:" has no tag after its colon`},
		{"purge hub.test/", `"hub.test/" names no repository: write it as ghcr.io/org/app`},
		{"pin team/app", `"team/app" names no image: write it as ghcr.io/org/app:TAG or ghcr.io/org/app@DIGEST`},
		{"scrub --rate much", `--rate "much" is not a number of bytes a second, such as 50MiB`},
		{"ls -o xml", `unknown output "xml" (known: table, json)`},
	} {
		code, _, stderr := p.run(nil, strings.Fields(c.args)...)
		if code != 2 || stderr != "entrepot: "+c.want+"\n" {
			t.Errorf("%s: exit %d, %s", c.args, code, stderr)
		}
	}
}

func TestCommandsReachTheAdminAddressWhereverItListens(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "", "[::]", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			fake := upstreamtest.New(t)
			p := newPlace(t, fake, "admin_hosts: [mirror.lan]\n")
			text, err := os.ReadFile(p.config)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.Replace(text, []byte("admin: 127.0.0.1:0"), []byte("admin: \""+host+":0\""), 1)
			if err := os.WriteFile(p.config, text, 0o600); err != nil {
				t.Fatal(err)
			}
			told := p.serve() // as the server announces it
			_, port, err := net.SplitHostPort(told)
			if err != nil {
				t.Fatal(err)
			}
			for _, admin := range []string{told, strings.TrimSuffix(host, ":") + ":" + port, "localhost:" + port} {
				if host == "[::1]" && strings.HasPrefix(admin, "localhost") {
					continue // need not be there
				}
				if code, stdout, stderr := p.run([]string{"--admin", admin}, "ls"); code != 0 {
					t.Errorf("ls --admin %s: exit %d, %s%s", admin, code, stdout, stderr)
				}
				if code, _, stderr := p.run([]string{"--admin", admin}, "purge", "hub.test/team/app:1"); code != 1 || !strings.Contains(stderr, "is not in the cache") {
					t.Errorf("purge --admin %s: exit %d, %s", admin, code, stderr)
				}
			}
			for name, want := range map[string]int{"mirror.lan": http.StatusOK, "evil.example": http.StatusMisdirectedRequest} {
				req, err := http.NewRequest(http.MethodGet, "http://"+dialable(told)+"/cache", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = name
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s: %s", name, resp.Status)
				}
			}
		})
	}
}

func TestTheAdminAddressAnswersByTheNameItListensOn(t *testing.T) {
	for address, want := range map[string]string{
		"mirror.lan:5001": "[mirror.lan other.lan]", "192.0.2.1:5001": "[192.0.2.1 other.lan]", "[fd00::1]:5001": "[fd00::1 other.lan]",
		":5001": "[other.lan]", "0.0.0.0:5001": "[other.lan]", "[::]:5001": "[other.lan]",
	} {
		if got := fmt.Sprint(adminHosts(config.Config{Admin: address, AdminHosts: []string{"other.lan"}})); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestATagThatIsDeletedUpstreamIsServedUntilAPersonPurgesIt(t *testing.T) {
	fake := upstreamtest.New(t)
	fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 1000))
	p := newPlace(t, fake, "freshness: {tag_ttl: 0s, deleted: serve}\n")
	admin := []string{"--admin", p.serve()}
	if status, body := p.get("/v2/team/app/manifests/1"); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	fake.Always("", upstreamtest.Status(http.StatusNotFound, "NAME_UNKNOWN"))
	resp, err := http.Get(p.clients + "/v2/team/app/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if warning := resp.Header.Get("Warning"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(warning, `299 - "the upstream has deleted this tag: gone since `) {
		t.Errorf("%s, Warning: %s", resp.Status, warning)
	}
	if code, stdout, stderr := p.run(admin, "ls"); code != 0 || !strings.Contains(stdout, "deleted upstream") {
		t.Errorf("ls: exit %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := p.run(admin, "purge", "hub.test/team/app:1"); code != 0 {
		t.Errorf("purge: exit %d, %s%s", code, stdout, stderr)
	}
	if status, body := p.get("/v2/team/app/manifests/1"); status != http.StatusNotFound {
		t.Errorf("after the purge: %d %s", status, body)
	}
}

func TestAnUpstreamBelowAPathIsAskedThereAndNotToldWhichRegistryIsMeant(t *testing.T) {
	fake := upstreamtest.New(t)
	_, content := fake.AddImage("hub-proxy/team/app", "1", upstreamtest.Bytes(1, 1000))
	p := newPlace(t, fake, "")
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(fake.URL()), []byte(fake.URL()+"/v2/hub-proxy/"), 1)
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p.serve()
	for _, path := range []string{"manifests/1", "blobs/" + content.Layers[0].Digest.String(), "tags/list"} {
		if status, body := p.get("/v2/hub.test/team/app/" + path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, line := range fake.Transcript() {
		if !strings.Contains(line, "hub-proxy/team/app") || strings.Contains(line, "ns=") {
			t.Errorf("asked: %s", line)
		}
	}
}
