package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// moby is the newest dockerd, which keeps its images in containerd's store and
// reads containerd's hosts.toml. Debian's command line is too old for it, so it
// is told by its API.
type moby struct {
	dir string
	api *http.Client
}

func (s *suite) startMoby(t *testing.T, m *mirror) client {
	t.Helper()
	d := &moby{dir: s.folder(t)}
	m.hosts(t, "docker", d.etc(), "--version", "29")
	d.start(t, s, nil)
	return d
}

// etc is what the daemon sees as /etc/docker.
func (d *moby) etc() string      { return filepath.Join(d.dir, "etc") }
func (d *moby) hostsDir() string { return filepath.Join(d.etc(), "certs.d") }

// start starts the daemon with settings of its own.
func (d *moby) start(t *testing.T, s *suite, settings map[string]any) {
	t.Helper()
	// dockerd starts the containerd that is first in its path.
	env := environment(d.dir, s.tool(t, "containerd").bin(), s.tool(t, "runc").bin())
	// Debian's runc knows no namespaces of time.
	all := map[string]any{"features": map[string]bool{"time-namespaces": false}}
	maps.Copy(all, settings)
	written, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.etc(), "daemon.json"), written, 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(d.dir, "sock")
	d.reach(t, socket)
	daemon := startDockerd(t, d.dir, env, d.etc(), s.tool(t, "moby").program("dockerd"),
		"--data-root", filepath.Join(d.dir, "root"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"), "--host", "unix://"+socket,
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--userland-proxy=false")
	daemon.waitReady(t, func() error {
		_, err := d.try(t.Context(), http.MethodGet, "/_ping", nil)
		return err
	})
}

// reach has the API asked on a socket.
func (d *moby) reach(t *testing.T, socket string) {
	t.Helper()
	d.api = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(d.api.CloseIdleConnections)
}

// try asks the API once, and returns the whole answer.
func (d *moby) try(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	sent, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.api.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = errors.New(resp.Status)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", method, path, err, answer)
	}
	return answer, err
}

func (d *moby) ask(t *testing.T, method, path string, body any) []byte {
	t.Helper()
	answer, err := d.try(t.Context(), method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// pull reads the whole progress: that it failed is told at its end.
func (d *moby) pull(t *testing.T, img image) {
	t.Helper()
	if err := d.tryPull(t.Context(), img.registry+"/"+img.repository, img.tag); err != nil {
		t.Fatal(err)
	}
}

func (d *moby) tryPull(ctx context.Context, repository, tag string) error {
	query := url.Values{"fromImage": {repository}, "tag": {tag}}
	progress, err := d.try(ctx, http.MethodPost, "/images/create?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	lines := json.NewDecoder(bytes.NewReader(progress))
	for {
		var line struct{ Error string }
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && line.Error != "" {
			err = errors.New(line.Error)
		}
		if err != nil {
			return fmt.Errorf("pull %s:%s: %w\n%s", repository, tag, err, progress)
		}
	}
}

func (d *moby) check(t *testing.T, img image) {
	t.Helper()
	answer := d.ask(t, http.MethodGet, "/images/"+img.reference()+"/json", nil)
	checkInspected(t, "["+string(answer)+"]", img, img.digest)
	checkBlobs(t, d.blobs(), img.content("amd64"))
}

func (d *moby) blobs() string {
	return filepath.Join(d.dir, "root", "containerd", "daemon", "io.containerd.content.v1.content", "blobs", "sha256")
}

func (d *moby) run(t *testing.T, img image) string {
	t.Helper()
	var made struct{ ID string }
	answer := d.ask(t, http.MethodPost, "/containers/create", map[string]any{
		"Image": img.reference(),
		"Tty":   true, // so that its output comes as it is
		"HostConfig": map[string]any{
			"NetworkMode": "none",
		},
	})
	if err := json.Unmarshal(answer, &made); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	path := "/containers/" + made.ID
	d.ask(t, http.MethodPost, path+"/start", nil)
	d.ask(t, http.MethodPost, path+"/wait", nil)
	output := d.ask(t, http.MethodGet, path+"/logs?stdout=true&stderr=true", nil)
	d.ask(t, http.MethodDelete, path+"?force=true", nil)
	return string(output)
}

func (d *moby) forget(t *testing.T) {
	t.Helper()
	var held []struct{ ID string }
	if err := json.Unmarshal(d.ask(t, http.MethodGet, "/images/json", nil), &held); err != nil {
		t.Fatal(err)
	}
	for _, img := range held {
		d.ask(t, http.MethodDelete, "/images/"+img.ID+"?force=true", nil)
	}
	left, err := os.ReadDir(d.blobs())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Fatalf("Docker still holds %d blobs", len(left))
	}
}
