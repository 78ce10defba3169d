package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestABoundedServerHasSoManyConnectionsAndNoMore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(New(Options{Puller: script{}, Logger: quiet()}), quiet())
	bound := Bound(s, l, 2)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(bound) }()
	ping := func(c net.Conn) (answered bool) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	var all []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n")
		all = append(all, c)
	}
	if !ping(all[0]) || !ping(all[1]) {
		t.Error("one of two connections is not answered")
	}
	if ping(all[2]) {
		t.Error("a third connection is answered")
	}
	all[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for !ping(all[2]) {
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that was closed is not given on")
		}
	}
	// Another would have to wait now, which must not hold up the end.
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("serve: %v", err)
	}
}

func TestABoundedServerStillHasSendfile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bound := Bound(&http.Server{}, l, 1)
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}()
	c, err := bound.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("the connection is a %T: net/http sends no file over it", c)
	}
}

func TestMoreBlobsThanMayBeOpenAreRefusedAtOnce(t *testing.T) {
	b := numbered(600_000)
	sending, finish := make(chan struct{}), make(chan struct{})
	slow := &content{bytes: b, sending: sending, finish: finish}
	f := newFace(t, blobs(slow), func(o *Options, _ *httptest.Server) { o.MaxBlobs = 1 })
	first := make(chan seen, 1)
	go func() { first <- f.do(http.MethodGet, blobPath(b)) }()
	<-sending
	if got := f.do(http.MethodGet, blobPath(b)); got.status != http.StatusServiceUnavailable || got.code() != "UNAVAILABLE" {
		t.Errorf("a second blob: %d %s", got.status, got.body)
	}
	if got := f.do(http.MethodHead, blobPath(b)); got.status != http.StatusOK {
		t.Errorf("HEAD, which opens nothing: %d", got.status)
	}
	close(finish)
	if got := <-first; got.status != http.StatusOK || len(got.body) != len(b) || got.cut != nil {
		t.Errorf("the first blob: %d, %d bytes, %v", got.status, len(got.body), got.cut)
	}
	slow.sending = nil
	if got := f.do(http.MethodGet, blobPath(b)); got.status != http.StatusOK {
		t.Errorf("the next blob: %d", got.status)
	}
}
