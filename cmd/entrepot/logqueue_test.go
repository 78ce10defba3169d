package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/config"
)

func TestNobodyWaitsForWhoeverTakesTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken, hung := io.Pipe()
		log, queue := newQueuedLogger(hung, config.Log{Level: "info", Format: "text"})
		const lost = 10
		for i := range 1 + logQueueSize + lost {
			log.Info("line", "n", i)
			if i == 0 {
				synctest.Wait() // it is being written, and nobody takes it
			}
		}
		var lines []string
		read := make(chan struct{})
		go func() {
			defer close(read)
			for all := bufio.NewScanner(taken); all.Scan(); {
				lines = append(lines, all.Text())
			}
		}()
		queue.end()
		hung.Close()
		<-read
		if n := queue.lost.Load(); n != lost {
			t.Errorf("%d lines are counted as lost, want %d", n, lost)
		}
		if len(lines) != 1+logQueueSize+1 {
			t.Fatalf("%d lines", len(lines))
		}
		if want := fmt.Sprintf("lines=%d", lost); !strings.Contains(lines[1], "level=WARN") || !strings.HasSuffix(lines[1], want) {
			t.Errorf("what is lost is told by %q, want %s", lines[1], want)
		}
		for i, line := range append(lines[:1:1], lines[2:]...) {
			if want := fmt.Sprintf("msg=line n=%d", i); !strings.HasSuffix(line, want) {
				t.Errorf("line %d is %q", i, line)
			}
		}
	})
}

func TestTheEndWaitsForTheLogAWhileAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken, hung := io.Pipe()
		log, queue := newQueuedLogger(hung, config.Log{Level: "info", Format: "text"})
		log.Info("the last")
		began := time.Now()
		queue.end()
		if took := time.Since(began); took != logDrainTimeout {
			t.Errorf("it took %s", took)
		}
		taken.Close()
	})
}

func TestALogThatNobodyTakesHoldsUpNoAnswer(t *testing.T) {
	clean(t)
	stdout, announced := io.Pipe()
	defer stdout.Close()
	log, hung := io.Pipe()
	done := make(chan int, 1)
	args := []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--offline", "--log-level", "debug", "--cache-dir", t.TempDir()}
	go func() {
		code := execute(t.Context(), args, announced, hung)
		announced.Close()
		hung.Close()
		done <- code
	}()
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, lines)
	address := strings.TrimSpace(strings.TrimPrefix(first, "entrepot listens on "))
	client := &http.Client{Timeout: 10 * time.Second}
	for range 5 {
		resp, err := client.Get(address + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	rest := make(chan string)
	go func() {
		all, _ := io.ReadAll(log)
		rest <- string(all)
	}()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(<-rest, "kind=ping"); n != 5 {
		t.Errorf("%d of five requests are logged", n)
	}
	if code := <-done; code != 0 {
		t.Errorf("exit %d", code)
	}
}
