package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const outOfFiles = "OUT_OF_FILES_TEST_CHILD"

func TestWhoComesWhenThereAreNoFilesLeftIsRefused(t *testing.T) {
	child := exec.Command(os.Args[0], "-test.run=^TestOutOfFilesChild$")
	child.Env = append(os.Environ(), outOfFiles+"=1")
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer stdin.Close()
	lines := bufio.NewScanner(stdout)
	line := func() string {
		if !lines.Scan() {
			t.Fatalf("the child says no more: %v", lines.Err())
		}
		return lines.Text()
	}
	b := &boundedServer{T: t, address: line()}
	idle := b.ask("/v2/")
	if err := isAnswered(idle); err != nil {
		t.Fatalf("before: %v", err)
	}
	if got := line(); got != "idle" {
		t.Fatal(got)
	}
	fmt.Fprintln(stdin, "fill")
	if got := line(); got != "full" {
		t.Fatal(got)
	}
	held := b.ask("/hold")
	if _, err := idle.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a connection that nobody uses makes no room: %v", err)
	}
	for range 5 {
		c, err := b.dial("/v2/") // which may hear of it already
		if err == nil {
			err = isAnswered(c)
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("without files: %v, want it refused", err)
		}
	}
	fmt.Fprintln(stdin, "free")
	if got := line(); got != "free" {
		t.Fatal(got)
	}
	if err := isAnswered(b.ask("/v2/")); err != nil {
		t.Errorf("with files again: %v", err)
	}
	if !isHeld(t, held) {
		t.Error("the connection that was in use has not outlived it")
	}
}

// TestOutOfFilesChild is the process that has none left.
func TestOutOfFilesChild(t *testing.T) {
	if os.Getenv(outOfFiles) == "" {
		return
	}
	const files = 64
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-r.Context().Done()
		}
	}), quiet())
	bound := LimitConnections(s, l, placesFor(files))
	follow, first := s.ConnState, sync.Once{}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		follow(c, state)
		if state == http.StateIdle {
			first.Do(func() { fmt.Println("idle") })
		}
	}
	go s.Serve(bound)
	fmt.Println(l.Addr())
	// Nobody waits for ever, whatever becomes of the parent.
	time.AfterFunc(time.Minute, func() { os.Exit(1) })
	var taken []*os.File
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch strings.TrimSpace(lines.Text()) {
		case "fill":
			for {
				file, err := os.Open(os.DevNull)
				if err != nil {
					break
				}
				taken = append(taken, file)
			}
			fmt.Println("full")
		case "free":
			for _, file := range taken {
				file.Close()
			}
			fmt.Println("free")
		}
	}
	os.Exit(0) // without waiting for what is left running
}
