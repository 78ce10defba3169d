package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// withCredentials gives the place's upstream credentials.
func (p *place) withCredentials() {
	p.Helper()
	secret := filepath.Join(filepath.Dir(p.config), "secret")
	if err := os.WriteFile(secret, []byte("sesame"), 0o600); err != nil {
		p.Fatal(err)
	}
	text, err := os.ReadFile(p.config)
	if err != nil {
		p.Fatal(err)
	}
	changed := strings.Replace(string(text), "{name: hub.test,", fmt.Sprintf("{name: hub.test, aliases: [alias.test], hosts: [hub.lan], credentials: {username: me, password_file: %q},", secret), 1)
	if err := os.WriteFile(p.config, []byte(changed), 0o600); err != nil {
		p.Fatal(err)
	}
}

// A page in a browser can make its own name resolve to this machine. It reads
// nothing through the mirror's credentials.
func TestAMirrorOnLoopbackWithCredentialsAnswersNoNameOfOthers(t *testing.T) {
	for _, credentials := range []bool{true, false} {
		fake := upstreamtest.New(t)
		fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 1000))
		p := newPlace(t, fake, "client_hosts: [mirror.lan]\n")
		if credentials {
			p.withCredentials()
		}
		p.serve()
		for host, known := range map[string]bool{
			"127.0.0.1": true, "localhost": true, "[::1]": true, "mirror.lan": true, "hub.test": true, "alias.test:5000": true, "hub.lan": true,
			"evil.example": !credentials, "evil.example:5000": !credentials, "hub.test.evil.example": !credentials, "192.0.2.1": !credentials,
		} {
			if host == "alias.test:5000" || host == "hub.lan" {
				if !credentials {
					continue // not configured
				}
			}
			req, err := http.NewRequest(http.MethodGet, p.clients+"/v2/team/app/manifests/1", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[bool]int{true: http.StatusOK, false: http.StatusMisdirectedRequest}[known]; resp.StatusCode != want {
				t.Errorf("with credentials %v, as %s: %s", credentials, host, resp.Status)
			}
		}
	}
}

func TestOnlyAListenerOnLoopbackWithCredentialsHasNamesOfItsOwn(t *testing.T) {
	loopback, everywhere := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv6unspecified}
	plain := config.Config{Upstreams: []config.Upstream{{Name: "a.b"}}}
	private := config.Config{Upstreams: []config.Upstream{{Name: "a.b"}, {Name: "c.d", Credentials: config.Credentials{DockerConfig: true}}}}
	if clientHosts(plain, loopback) != nil || clientHosts(private, everywhere) != nil || clientHosts(private, loopback) == nil {
		t.Error("the wrong listeners ask for names")
	}
}

func TestTheStartAndTheCheckSayWhoCanReadWhat(t *testing.T) {
	fake := upstreamtest.New(t)
	p := newPlace(t, fake, "")
	p.withCredentials()
	const warning = "whoever reaches 0.0.0.0:0 can read all that the credentials for hub.test can read"
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := entrepot(t, "config", "check", p.config); code != 0 || strings.Contains(stdout, "whoever") {
		t.Errorf("on loopback: exit %d, %s", code, stdout)
	}
	text = []byte(strings.Replace(string(text), "listen: 127.0.0.1:0", "listen: 0.0.0.0:0", 1))
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := entrepot(t, "config", "check", p.config); code != 0 || !strings.Contains(stdout, "\nwarning: "+warning) {
		t.Errorf("check: exit %d, %s", code, stdout)
	}
	cfg, _, err := config.Load(config.Options{File: p.config})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := announce(&said, cfg, &net.TCPAddr{IP: net.IPv4zero, Port: 5000}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "\nWarning: whoever reaches 0.0.0.0:5000 can read all") {
		t.Error(said.String())
	}
}

func TestEverythingIsPurgedWithAWord(t *testing.T) {
	for _, running := range []bool{true, false} {
		fake := upstreamtest.New(t)
		fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 1000))
		fake.AddImage("team/other", "1", upstreamtest.Bytes(2, 1000))
		p := newPlace(t, fake, "")
		flags := []string{"--admin", p.serve()}
		for _, path := range []string{"/v2/team/app/manifests/1", "/v2/team/other/manifests/1"} {
			if status, body := p.get(path); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
		}
		if !running {
			p.stop()
			flags = nil
		}
		for args, want := range map[string]string{
			"purge":                           "name one image, repository or digest",
			"purge --all hub.test/team/app:1": "--all stands alone",
			"purge hub.test/team/app:1 --al":  "did you mean --all?",
		} {
			if code, _, stderr := p.run(flags, strings.Fields(args)...); code != 2 || !strings.Contains(stderr, want) {
				t.Errorf("%s: exit %d, %s", args, code, stderr)
			}
		}
		if code, stdout, stderr := p.run(flags, "purge", "--all", "--dry-run"); code != 0 || !strings.Contains(stdout, "would purge 2 tags, 2 manifests") {
			t.Errorf("dry run: exit %d, %s%s", code, stdout, stderr)
		}
		if code, stdout, stderr := p.run(flags, "purge", "--all"); code != 0 || !strings.Contains(stdout, "purged 2 tags, 2 manifests") || len(p.list(flags).Images) != 0 {
			t.Errorf("exit %d, %s%s", code, stdout, stderr)
		}
		if code, _, stderr := p.run(flags, "purge", "--all"); code != 1 || stderr != "entrepot: the cache is empty\n" {
			t.Errorf("again: exit %d, %s", code, stderr)
		}
	}
}

func TestOnlyYesIsYes(t *testing.T) {
	for answer, want := range map[string]bool{"yes\n": true, " yes \n": true, "yes": true, "y\n": false, "\n": false, "": false, "no\n": false, "yes please\n": false} {
		var asked strings.Builder
		if got := isYes(strings.NewReader(answer), &asked, "Sure? "); got != want || asked.String() != "Sure? " {
			t.Errorf("%q: %v, asked %q", answer, got, asked.String())
		}
	}
}

func TestTheTokenIsSentToAnotherMachine(t *testing.T) {
	const token = "0123456789abcdef"
	var got []string
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":"refused","kind":"not_allowed"}`)
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	p := newPlace(t, upstreamtest.New(t), "")
	file := filepath.Join(filepath.Dir(p.config), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.config, append(text, []byte(fmt.Sprintf("admin_token_file: %q\n", file))...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"purge hub.test/team/app:1", "ls"} {
		if code, _, stderr := p.run([]string{"--admin", l.Addr().String()}, strings.Fields(args)...); code != 1 || stderr != "entrepot: refused\n" {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
	if want := "[POST Bearer " + token + " GET ]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
