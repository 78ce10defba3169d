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

// givenUpConn is the server's end of a connection that was given up, and the
// client's.
func givenUpConn(t *testing.T) (c *clientConn, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	c = placesFor(1).track(accepted).(*clientConn)
	giveUp(c.TCPConn, silences{sent: time.Hour})
	c.givenUp.Store(true)
	return c, client
}

// A client that is back may read nothing for a while, as any other: the kernel
// must no longer be about to end its connection.
func TestAClientThatIsBackIsNotGivenUpAnyMore(t *testing.T) {
	for name, returns := range map[string]func(*clientConn){
		"it takes more": func(c *clientConn) {
			if _, err := c.Write([]byte("more")); err != nil {
				t.Error(err)
			}
		},
		"it answers the kernel": func(c *clientConn) { c.lookWhetherGone(silences{time.Hour, time.Hour}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := givenUpConn(t)
			returns(c)
			if c.givenUp.Load() {
				t.Error("it is given up")
			}
			withSocket(c.TCPConn, func(fd int) {
				if ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != 0 {
					t.Errorf("after %d ms without an answer the kernel ends the connection (%v)", ms, err)
				}
			})
		})
	}
}

// The kernel has ended the connection, and nobody has learned of it yet.
func TestALookAtAConnectionThatHasEndedSaysNothing(t *testing.T) {
	c, client := givenUpConn(t)
	_ = client.(*net.TCPConn).SetLinger(0)
	client.Close()
	for ended := false; !ended; {
		_, known := isSilent(c.TCPConn, silences{time.Hour, time.Hour})
		ended = !known
	}
	c.lookWhetherGone(silences{time.Hour, time.Hour})
	if !c.givenUp.Load() {
		t.Error("what the kernel has ended is no longer given up")
	}
}
