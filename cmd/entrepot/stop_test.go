package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeAnnouncesItselfAndStopsOnASignal(t *testing.T) {
	clean(t)
	for name, signal := range map[string]os.Signal{"SIGINT": os.Interrupt, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			stdout, announced := io.Pipe()
			defer stdout.Close()
			var stderr bytes.Buffer
			done := make(chan int, 1)
			args := []string{
				"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--offline", "--log-level", "error",
				"--cache-dir", t.TempDir(),
			}
			go func() {
				code := execute(t.Context(), args, announced, &stderr)
				announced.Close()
				done <- code
			}()
			lines := bufio.NewReader(stdout)
			first, err := lines.ReadString('\n')
			if err != nil || !strings.HasPrefix(first, "entrepot listens on http://127.0.0.1:") || strings.HasSuffix(first, ":0\n") {
				t.Fatalf("first line %q, %v, exit %d, stderr %s", first, err, <-done, stderr.String())
			}
			go io.Copy(io.Discard, lines)
			self, err := os.FindProcess(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			if err := self.Signal(signal); err != nil {
				t.Fatal(err)
			}
			select {
			case code := <-done:
				if code != 0 || stderr.Len() != 0 {
					t.Errorf("exit %d, stderr %s", code, stderr.String())
				}
			case <-time.After(30 * time.Second):
				t.Error("did not stop")
			}
		})
	}
}

func TestAHangupEndsNothing(t *testing.T) {
	file(t, "c.yaml", "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\noffline: true\ncache: {dir: kept}\n")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
	cmd.Env = append(otherVariables(), killChild+"=c.yaml")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	// Nothing below waits for ever.
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	first, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(strings.TrimPrefix(first, "entrepot listens on "))
	log := bufio.NewReader(stderr)
	if line, err := log.ReadString('\n'); err != nil || !strings.Contains(line, "the limits of this machine") {
		t.Fatalf("first it logs %q, %v", line, err)
	}
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if line, err := log.ReadString('\n'); err != nil || !strings.Contains(line, "SIGHUP is ignored") {
			t.Fatalf("it logs %q, %v", line, err)
		}
	}
	resp, err := http.Get(address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/v2/ answers %s", resp.Status)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(log)
	if err != nil || !strings.Contains(string(rest), "msg=stopping") {
		t.Errorf("at the end it logs %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
