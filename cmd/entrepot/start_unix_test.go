//go:build !windows

package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestClientsAreRefusedUntilTheCacheIsOpen(t *testing.T) {
	clean(t)
	dir := t.TempDir()
	format := filepath.Join(dir, "format")
	if err := syscall.Mkfifo(format, 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	stdout, announced := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code := execute(t.Context(), []string{"serve", "--listen", address, "--admin", "127.0.0.1:0", "--offline", "--cache-dir", dir}, announced, io.Discard)
		announced.Close()
		done <- code
	}()
	disk, err := os.OpenFile(format, os.O_WRONLY, 0) // when the program reads it
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("while the disk takes its time: %v, want it refused", err)
	}
	if _, err := io.WriteString(disk, "1\n"); err != nil {
		t.Fatal(err)
	}
	disk.Close()
	lines := bufio.NewReader(stdout)
	if first, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("%q, %v, exit %d", first, err, <-done)
	}
	go io.Copy(io.Discard, lines)
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
}
