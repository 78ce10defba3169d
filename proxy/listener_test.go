package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// boundedServer has a handler that answers a path "/hold" when it is released.
type boundedServer struct {
	*testing.T
	address string
	hold    chan struct{}
	idle    chan string // addresses of clients whose connections have become idle
	seen    map[string]bool
}

// placesFor are places of which connections may have n.
func placesFor(n int) *Places {
	return NewPlaces(PlacesOptions{Places: 3 * n / 2, Logger: quiet()})
}

func newBoundedServer(t *testing.T, n int, patience time.Duration) *boundedServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &boundedServer{t, l.Addr().String(), make(chan struct{}), make(chan string, 100), map[string]bool{}}
	s := HTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			select {
			case <-b.hold:
			case <-r.Context().Done():
			}
		}
	}), quiet())
	places := placesFor(n)
	places.times.wait = patience
	bound := LimitConnections(s, l, places)
	follow := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		follow(c, state)
		if state == http.StateIdle {
			b.idle <- c.RemoteAddr().String()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(bound) }()
	t.Cleanup(func() {
		select {
		case <-b.hold:
		default:
			close(b.hold)
		}
		// Another may have to wait now, which must not hold up the end.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return b
}

// ask sends a request over a connection of its own, and gives ten seconds for
// all that comes.
func (b *boundedServer) ask(path string) net.Conn {
	b.Helper()
	c, err := b.dial(path)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (b *boundedServer) dial(path string) (net.Conn, error) {
	c, err := net.Dial("tcp", b.address)
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", path)
	return c, err
}

// finish wants an answer, and waits until the server takes the connection for
// idle.
func (b *boundedServer) finish(c net.Conn) {
	b.Helper()
	if err := isAnswered(c); err != nil {
		b.Fatal(err)
	}
	for !b.seen[c.LocalAddr().String()] {
		b.seen[<-b.idle] = true
	}
}

func isAnswered(c net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// isHeld says that nothing has come of a request, as far as that can be seen.
func isHeld(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(make([]byte, 1))
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

func TestOneMoreConnectionWaitsForAPlace(t *testing.T) {
	b := newBoundedServer(t, 2, time.Hour)
	first, second := b.ask("/hold"), b.ask("/hold")
	third := b.ask("/v2/")
	if !isHeld(t, third) {
		t.Error("a third connection gets something")
	}
	first.Close() // the server hears of it in the background
	if err := isAnswered(third); err != nil {
		t.Errorf("the place of a connection that was closed is not given on: %v", err)
	}
	close(b.hold)
	if err := isAnswered(second); err != nil {
		t.Errorf("the second connection: %v", err)
	}
}

func TestAConnectionThatNobodyUsesMakesRoom(t *testing.T) {
	b := newBoundedServer(t, 3, time.Hour)
	held, older := b.ask("/hold"), b.ask("/v2/")
	b.finish(older)
	newer := b.ask("/v2/")
	b.finish(newer)
	if err := isAnswered(b.ask("/v2/")); err != nil {
		t.Errorf("a further connection: %v", err)
	}
	if n, err := older.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the one that was idle for longest is still open: %d, %v", n, err)
	}
	close(b.hold)
	if err := isAnswered(held); err != nil {
		t.Errorf("the one that was in use: %v", err)
	}
}

func TestAConnectionThatBecomesIdleMakesRoomForOneThatWaits(t *testing.T) {
	b := newBoundedServer(t, 1, time.Hour)
	first := b.ask("/hold")
	second := b.ask("/v2/")
	if !isHeld(t, second) {
		t.Error("a second connection gets something")
	}
	close(b.hold)
	if err := isAnswered(first); err != nil {
		t.Error(err)
	}
	if err := isAnswered(second); err != nil {
		t.Errorf("the one that waits, while the first stays open: %v", err)
	}
}

func TestWhereNoPlaceComesFreeConnectionsAreRefused(t *testing.T) {
	b := newBoundedServer(t, 2, 50*time.Millisecond)
	held := []net.Conn{b.ask("/hold"), b.ask("/hold")}
	for range 20 {
		c, err := b.dial("/v2/") // which may hear of it already
		if err == nil {
			err = isAnswered(c)
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a further connection: %v, want it refused", err)
		}
	}
	close(b.hold)
	for _, c := range held {
		b.finish(c)
	}
	if err := isAnswered(b.ask("/v2/")); err != nil {
		t.Errorf("when places are free: %v", err)
	}
}

func TestABoundedServerStillHasSendfile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bound := LimitConnections(&http.Server{}, l, placesFor(1))
	defer bound.Close()
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
	limited, ok := c.(*clientConn)
	if !ok {
		t.Fatalf("the connection is a %T", c)
	}
	if _, ok := c.(io.ReaderFrom); !ok || limited.TCPConn == nil {
		t.Error("net/http sends no file over it")
	}
}

func TestMoreBlobsThanMayBeOpenAreRefusedAtOnce(t *testing.T) {
	b := numbered(600_000)
	sending, finish := make(chan struct{}), make(chan struct{})
	slow := &content{bytes: b, sending: sending, finish: finish}
	f := newFace(t, blobs(slow), func(o *Options, _ *httptest.Server) { o.Places = NewPlaces(PlacesOptions{Places: 1, Logger: quiet()}) })
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
