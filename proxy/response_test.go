package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// piped serves one connection that has no buffer between its ends, on the
// clock of a synctest bubble, and returns the client's end.
func piped(t *testing.T, p Puller) net.Conn {
	client, server := net.Pipe()
	listener := &once{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	listener.conns <- server
	s := HTTPServer(New(Options{Puller: p, Upstreams: upstreamsForTests(), Logger: quiet()}), quiet())
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Close()
		client.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return client
}

// once is a listener that accepts what lies in a channel.
type once struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

func (o *once) Close() error   { close(o.closed); return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

func ask(t *testing.T, conn net.Conn, path string) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: mirror.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

func TestClientThatReadsNothingForAQuarterOfAnHourIsCut(t *testing.T) {
	b := numbered(1 << 20)
	for name, p := range map[string]script{
		"of a blob in memory": blobs(&content{bytes: b}),
		"of a blob on disk":   blobs(&content{bytes: b, path: onDisk(t, b)}),
		"of a small answer":   blobs(&content{bytes: b[:10]}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := piped(t, p)
				began := time.Now()
				ask(t, conn, blobPath(b))
				time.Sleep(defaultClientIdle - time.Second) // of the bubble's clock
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					t.Fatalf("cut after %s: %v", time.Since(began), err)
				}
				time.Sleep(2 * defaultClientIdle)
				// Nobody writes the rest any more.
				if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
					t.Errorf("%d bytes came after it, %v", n, err)
				}
			})
		})
	}
}

func TestSlowClientLives(t *testing.T) {
	b := numbered(2 << 20)
	for name, p := range map[string]script{
		"of a blob in memory": blobs(&content{bytes: b}),
		"of a blob on disk":   blobs(&content{bytes: b, path: onDisk(t, b)}),
		"of a manifest":       manifests(ocispec.MediaTypeImageIndex, b, nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := piped(t, p)
				began := time.Now()
				path := blobPath(b)
				if p.manifest != nil {
					path = "/v2/app/manifests/1"
				}
				ask(t, conn, path)
				reader := bufio.NewReader(conn)
				resp, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := int64(0)
				for got < int64(len(b)) {
					time.Sleep(150 * time.Second) // of the bubble's clock
					n, err := io.CopyN(io.Discard, resp.Body, min(64<<10, int64(len(b))-got))
					if got += n; err != nil {
						t.Fatalf("cut after %s and %d bytes: %v", time.Since(began), got, err)
					}
				}
				if time.Since(began) < 4*defaultClientIdle {
					t.Errorf("not slow: %s", time.Since(began))
				}
			})
		})
	}
}

func TestConnectionIsKeptWhileItIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := []byte("{}")
		conn := piped(t, blobs(&content{bytes: b}))
		reader := bufio.NewReader(conn)
		for range 3 {
			ask(t, conn, blobPath(b))
			resp, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "{}" {
				t.Fatalf("%s, %v", got, err)
			}
			time.Sleep(idleTimeout - time.Second) // of the bubble's clock
		}
		time.Sleep(idleTimeout)
		if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("idle for longer than %s: %v", idleTimeout, err)
		}
	})
}

func TestConnectionThatSaysNothingIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := piped(t, script{})
		began := time.Now()
		if _, err := io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: mir"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil || time.Since(began) > readHeaderTimeout {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

func TestBodyThatNobodyWantsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for method, want := range map[string]int{http.MethodGet: 400, http.MethodPut: 405} {
			conn := piped(t, script{})
			began := time.Now()
			if _, err := io.WriteString(conn, method+" /v2/app/manifests/1 HTTP/1.1\r\nHost: mirror.test\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
				t.Fatal(err)
			}
			reader := bufio.NewReader(conn)
			resp, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want || !resp.Close {
				t.Errorf("%s: %d, close %v, %v", method, resp.StatusCode, resp.Close, err)
			}
			if time.Since(began) > 0 {
				t.Errorf("%s was answered after %s", method, time.Since(began))
			}
			if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) || time.Since(began) > 2*readBodyTimeout {
				t.Errorf("%s: closed after %s, %v", method, time.Since(began), err)
			}
		}
	})
}
