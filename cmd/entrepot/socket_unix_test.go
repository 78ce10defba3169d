//go:build !windows

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "entrepot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "admin.sock")
}

// leaveSocket leaves a socket as a killed process does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestTheAdminAddressMayBeASocket(t *testing.T) {
	fake := upstreamtest.New(t)
	fake.AddImage("team/app", "1", upstreamtest.Bytes(1, 1000))
	p := newPlace(t, fake, "")
	socket := socketPath(t)
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("admin: 127.0.0.1:0"), []byte("admin: unix://"+socket), 1)
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := entrepot(t, "config", "check", p.config); code != 0 {
		t.Fatalf("config check: exit %d, %s%s", code, stdout, stderr)
	}
	leaveSocket(t, socket)
	if told := p.serve(); told != "unix://"+socket {
		t.Errorf("the server says that it listens on %s", told)
	}
	is, err := os.Lstat(socket)
	if err != nil || is.Mode() != os.ModeSocket|0o660 {
		t.Fatalf("the socket is %v, %v", is.Mode(), err)
	}
	if status, body := p.get("/v2/team/app/manifests/1"); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	for _, flags := range [][]string{{"--admin", "unix://" + socket}, nil} { // else the folder is locked, and the file says where to ask
		if images := p.list(flags).Images; len(images) != 1 {
			t.Errorf("ls %v: %+v", flags, images)
		}
		for _, command := range []string{"purge --dry-run hub.test/team/app:1", "pin hub.test/team/app:1", "pins", "unpin hub.test/team/app:1", "scrub"} {
			if code, stdout, stderr := p.run(flags, strings.Fields(command)...); code != 0 {
				t.Errorf("%s %v: exit %d, %s%s", command, flags, code, stdout, stderr)
			}
		}
	}
	if code, stdout, stderr := entrepot(t, "hosts", "docker", "--version", "29", "--dry-run", "--admin", "unix://"+socket); code != 0 || !strings.Contains(stderr, "the entrepot that answers on unix://"+socket) {
		t.Errorf("hosts: exit %d, %s%s", code, stdout, stderr)
	}
	for name, c := range map[string]struct {
		host, forwarded string
		want            int
	}{
		"a name of others":               {"evil.example", "", http.StatusMisdirectedRequest},
		"the scheme as a name":           {"unix", "", http.StatusMisdirectedRequest},
		"what a reverse proxy passes on": {"localhost", "192.0.2.1", http.StatusForbidden},
		"this machine":                   {"localhost", "", http.StatusOK},
	} {
		req, err := http.NewRequest(http.MethodPost, "http://localhost/cache/purge", strings.NewReader(`{"all":true,"dryRun":true}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.forwarded != "" {
			req.Header.Set("X-Forwarded-For", c.forwarded)
		}
		resp, err := clientOf(socket).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	if _, err := listenAdmin(t.Context(), "unix://"+socket); err == nil || !strings.HasPrefix(err.Error(), "another program listens on "+socket+": stop it") {
		t.Errorf("a second listener: %v", err)
	}
	p.stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("after the stop, the socket is there: %v", err)
	}
}

func TestASocketThatCanNotBeMadeSaysWhatToDo(t *testing.T) {
	socket := socketPath(t)
	dir := filepath.Dir(socket)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of somebody"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "admin.sock"): "there is no folder " + filepath.Join(dir, "none") + " for the admin socket: make it, or choose another path with --admin",
		filepath.Join(dir, "file"):               filepath.Join(dir, "file") + " is no socket: remove it, or choose another path with --admin",
	} {
		l, err := listenAdmin(t.Context(), "unix://"+path)
		if err == nil {
			l.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if content, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(content) != "of somebody" {
		t.Errorf("the file that was in the way: %q, %v", content, err)
	}
}

// Of many that start at once where a dead process has left a socket, one listens.
// None removes what another has just made.
func TestOneOfManyHasTheSocket(t *testing.T) {
	socket := socketPath(t)
	for round := range 50 {
		leaveSocket(t, socket)
		const many = 8
		got := make(chan net.Listener, many)
		for range many {
			go func() {
				l, _ := listenSocket(context.Background(), socket)
				got <- l
			}()
		}
		var listening []net.Listener
		for range many {
			if l := <-got; l != nil {
				listening = append(listening, l)
			}
		}
		if len(listening) != 1 {
			t.Errorf("round %d: %d listen", round, len(listening))
		}
		if c, err := net.Dial("unix", socket); err != nil {
			t.Errorf("round %d: nobody is reached: %v", round, err)
		} else {
			c.Close()
		}
		for _, l := range listening {
			l.Close()
		}
	}
}

func TestASocketHasNoNameToAnswerUnder(t *testing.T) {
	if got := fmt.Sprint(adminHosts(config.Config{Admin: "unix:///run/admin.sock", AdminHosts: []string{"other.lan"}})); got != "[other.lan]" {
		t.Error(got)
	}
}
