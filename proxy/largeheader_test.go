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
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// headerServer answers everything with how many turns for large headers are
// taken meanwhile, over TLS too.
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
	h := &headerServer{T: t, address: l.Addr().String()}
	s := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Taken", strconv.Itoa(len(h.turns.taken)))
	}), quiet())
	bound := LimitConnections(s, l, placesFor(100))
	h.turns = bound.(*boundedListener).places.headers
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

// ask sends a request with so many bytes of ranges, and returns, once it is
// answered, how many turns were taken meanwhile; -1 for an error.
func (h *headerServer) ask(c net.Conn, size int) <-chan int {
	taken := make(chan int, 1)
	go func() {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: m\r\nRange: bytes=0-1"+strings.Repeat(",", size)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			h.Error(err)
			taken <- -1
			return
		}
		resp.Body.Close()
		n, err := strconv.Atoi(resp.Header.Get("Taken"))
		if err != nil {
			h.Errorf("%s, %v", resp.Status, err)
			n = -1
		}
		taken <- n
	}()
	return taken
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
				if got := <-h.ask(h.dial(), 10<<10); got != maxLargeHeaders {
					t.Errorf("for an ordinary header meanwhile %d turns are taken", got)
				}
			}
			select {
			case got := <-large:
				t.Errorf("one more large header is answered at once: %d", got)
			case <-time.After(200 * time.Millisecond):
			}
			<-h.turns.taken
			// The turn is over with the header, before the request is answered, and
			// each header of a connection has its own.
			if got := <-large; got != maxLargeHeaders-1 {
				t.Errorf("%d turns are taken while the one with a large header is answered", got)
			}
			for range 3 {
				if got := <-h.ask(conn, 100<<10); got != maxLargeHeaders-1 {
					t.Errorf("%d are taken while its next one is answered", got)
				}
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
	for len(h.turns.taken) < maxLargeHeaders {
		runtime.Gosched() // until it has the last one
	}
	half.Close()
	if got := <-h.ask(h.dial(), 100<<10); got != maxLargeHeaders-1 {
		t.Errorf("%d turns are taken while the next one is answered", got)
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
