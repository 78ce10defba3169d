package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// headerServer answers everything, over TLS too, and has turns for large headers.
type headerServer struct {
	*testing.T
	address string
	turns   *headerTurns
	config  *tls.Config // of clients; nil without TLS
}

func newHeaderServer(t *testing.T, overTLS bool) *headerServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answered") }), quiet())
	bound := LimitConnections(s, l, 100, quiet())
	h := &headerServer{T: t, address: l.Addr().String(), turns: bound.(*boundedListener).headers}
	serve := func() error { return s.Serve(bound) }
	if overTLS {
		dir := t.TempDir()
		certify(t, dir, "mirror.test")
		if s.TLSConfig, err = TLS(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), quiet()); err != nil {
			t.Fatal(err)
		}
		h.config = &tls.Config{InsecureSkipVerify: true}
		serve = func() error { return s.ServeTLS(bound, "", "") }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return h
}

// dial opens a connection and gives ten seconds for all that comes.
func (h *headerServer) dial() net.Conn {
	h.Helper()
	c, err := net.Dial("tcp", h.address)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		h.Fatal(err)
	}
	if h.config != nil {
		over := tls.Client(c, h.config)
		if err := over.HandshakeContext(context.Background()); err != nil {
			h.Fatal(err)
		}
		return over
	}
	return c
}

// ask sends a request with so many bytes of ranges, and returns its status once
// that comes.
func (h *headerServer) ask(c net.Conn, size int) <-chan int {
	status := make(chan int, 1)
	go func() {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: m\r\nRange: bytes=0-1"+strings.Repeat(",", size)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			h.Error(err)
			status <- 0
			return
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	return status
}

func TestF5FewConnectionsSendALargeHeaderAtOnce(t *testing.T) {
	for name, overTLS := range map[string]bool{"plain": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			h := newHeaderServer(t, overTLS)
			h.turns.timeout = time.Hour
			for range maxLargeHeaders {
				h.turns.taken <- struct{}{} // as if so many were sending one
			}
			conn := h.dial()
			large := h.ask(conn, 100<<10)
			for range 3 {
				if got := <-h.ask(h.dial(), 10<<10); got != http.StatusOK {
					t.Errorf("an ordinary header meanwhile: %d", got)
				}
			}
			select {
			case got := <-large:
				t.Errorf("one more large header is answered at once: %d", got)
			case <-time.After(200 * time.Millisecond):
			}
			<-h.turns.taken
			if got := <-large; got != http.StatusOK {
				t.Errorf("a large header in its turn: %d", got)
			}
			// The turn is over with the header, not with the connection, and
			// each header has its own.
			for range 3 {
				if got := <-h.ask(conn, 100<<10); got != http.StatusOK {
					t.Errorf("the next one over the same connection: %d", got)
				}
			}
			if got := len(h.turns.taken); got != maxLargeHeaders-1 {
				t.Errorf("%d turns are taken, of %d that others have", got, maxLargeHeaders-1)
			}
		})
	}
}

func TestAConnectionThatIsClosedInALargeHeaderGivesItsTurnBack(t *testing.T) {
	h := newHeaderServer(t, false)
	h.turns.timeout = time.Hour
	for range maxLargeHeaders - 1 {
		h.turns.taken <- struct{}{}
	}
	half := h.dial()
	if _, err := io.WriteString(half, "GET / HTTP/1.1\r\nHost: m\r\nX: "+strings.Repeat("x", 2*ownHeader)); err != nil {
		t.Fatal(err)
	}
	half.Close()
	if got := <-h.ask(h.dial(), 100<<10); got != http.StatusOK {
		t.Errorf("the next one: %d", got)
	}
}

func TestALargeHeaderThatGetsNoTurnIs400(t *testing.T) {
	h := newHeaderServer(t, false)
	h.turns.timeout = time.Millisecond
	for range maxLargeHeaders {
		h.turns.taken <- struct{}{}
	}
	// No more is sent than is read, so that no reset takes the answer away.
	conn := h.dial()
	half := "GET / HTTP/1.1\r\nHost: m\r\nX: "
	half += strings.Repeat("x", ownHeader-len(half))
	if _, err := io.WriteString(conn, half); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || !resp.Close {
		t.Errorf("%s, closed %v", resp.Status, resp.Close)
	}
}
