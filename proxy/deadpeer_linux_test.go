package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hush has the kernel drop all that arrives for a connection, so that nothing is
// acknowledged any more: as when its host has lost its power, or its line.
func hush(t *testing.T, conn net.Conn) {
	t.Helper()
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	withSocket(conn.(*net.TCPConn), func(fd int) {
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAClientWhoseHostIsGoneIsGivenUp has two clients read nothing of a blob. The
// host of one is gone without a word; the other one is there, and is left alone.
func TestAClientWhoseHostIsGoneIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		most      silences
		takesMore bool // so that more is sent to it
	}{
		"with what was sent last": {silences{sent: 300 * time.Millisecond, probed: time.Hour}, true},
		"with full buffers":       {silences{sent: 300 * time.Millisecond, probed: 300 * time.Millisecond}, false},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal()
			places := placesFor(4)
			places.times.stalled, places.times.watch, places.times.silent = 20*time.Millisecond, 20*time.Millisecond, c.most
			address, path := stalledServer(t, j, time.Hour, places)
			var watch sync.WaitGroup
			ctx, end := context.WithCancel(t.Context())
			watch.Go(func() { places.Watch(ctx) })
			defer watch.Wait()
			defer end()

			there, gone := stall(t, address, path), stall(t, address, path)
			for len(places.stalled(300*time.Millisecond)) < 2 { // until the buffers are full
				time.Sleep(10 * time.Millisecond)
			}
			hush(t, gone)
			if c.takesMore {
				_ = gone.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = io.Copy(io.Discard, gone) // what has arrived
			}
			line := j.next(t)
			wantFields(t, line, map[string]any{"level": "WARN", "status": 200, "outcome": "broken", "kind": "blob"})
			if !strings.Contains(fmt.Sprint(line["error"]), "no longer acknowledges") {
				t.Errorf("%v", line["error"])
			}
			if _, err := io.ReadFull(there, make([]byte, 8<<20)); err != nil {
				t.Errorf("the client that is there: %v", err)
			}
		})
	}
}
