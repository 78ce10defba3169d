package proxy

import (
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// What one of many connections takes of the kernel's memory is bounded, or else
// a few thousand slow clients break everybody's.
func TestOneOfManySlowClientsGetsLittleOfTheKernelsMemory(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bound := LimitConnections(&http.Server{}, l, placesFor(manyConnections+1))
	taken := func() int {
		t.Helper()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if err := client.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		server, err := bound.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		if err := server.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := server.Write(make([]byte, 32<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes went to a client that reads nothing: %v", n, err)
		}
		return n
	}
	for range manyConnections {
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			defer conn.Close()
		}
		conn, err := bound.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if n := taken(); n > 512<<10 {
		t.Errorf("the kernel takes %d bytes for one of many", n)
	}
}
