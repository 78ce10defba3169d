//go:build !windows

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestACredentialHelperThatHangsEndsWithTheProgram has a script as helper, which
// waits for what it has started.
func TestACredentialHelperThatHangsEndsWithTheProgram(t *testing.T) {
	t.Parallel() // it waits for its process
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer registry.Close()
	host, err := url.Parse(registry.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	listen := freeAddress(t)
	for name, content := range map[string]string{
		"docker-credential-hangs": fmt.Sprintf("#!/bin/sh\nsleep 600 &\necho $$ $! > %[1]s.new\nmv %[1]s.new %[1]s\nwait\n", pids),
		"config.json":             fmt.Sprintf(`{"credHelpers":{%q:"hangs"}}`, host.Host),
		"entrepot.yaml": fmt.Sprintf("listen: %s\nadmin: 127.0.0.1:0\ncache: {dir: %s}\n"+
			"upstreams: [{name: hub.test, default: true, endpoints: [%q], credentials: {docker_config: true}}]\n", listen, filepath.Join(dir, "cache"), registry.URL),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(otherVariables(), killChild+"="+filepath.Join(dir, "entrepot.yaml"), "DOCKER_CONFIG="+dir, "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var running []string
	eventually(t, "the helper runs", func() bool {
		if resp, err := (&http.Client{Timeout: time.Second}).Get("http://" + listen + "/v2/app/manifests/1"); err == nil {
			resp.Body.Close()
		}
		content, err := os.ReadFile(pids)
		running = strings.Fields(string(content))
		return err == nil
	})
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v:\n%s", err, log.String())
	}
	took := time.Since(began)
	t.Logf("it ended after %s", took)
	if took > 5*time.Second { // the client that waits for the answer has left
		t.Errorf("it ended after %s", took)
	}
	for _, pid := range running {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if left := runsUntil(n, time.Second); left {
			t.Errorf("process %s outlives the program", pid)
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// runsUntil reports whether a process still runs after a time. One that has
// ended, and that nobody has waited for, does not.
func runsUntil(pid int, after time.Duration) bool {
	for began := time.Now(); time.Since(began) < after; time.Sleep(10 * time.Millisecond) {
		stat, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if syscall.Kill(pid, 0) != nil || strings.Contains(string(stat), ") Z ") {
			return false
		}
	}
	return true
}
