package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
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
