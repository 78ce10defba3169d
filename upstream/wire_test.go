package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// wired is a server that a Remote reaches within the process, so that what is
// on the wire goes by synctest's clock. It writes down what it is asked.
type wired struct {
	conns chan net.Conn
	done  chan struct{}
	close func()

	mu    sync.Mutex
	asked []string
}

func (w *wired) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wired) Close() error   { w.close(); return nil }
func (w *wired) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wired) dial(ctx context.Context, _, address string) (net.Conn, error) {
	if address != "hub.test:80" {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case w.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// count is how often a path with this in it was asked for.
func (w *wired) count(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.asked {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// reach returns a Remote, with the waits that it has by default, of a server
// that answers by a function.
func reach(t *testing.T, answer http.HandlerFunc) (*Remote, *wired) {
	t.Helper()
	w := &wired{conns: make(chan net.Conn), done: make(chan struct{})}
	w.close = sync.OnceFunc(func() { close(w.done) })
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		w.asked = append(w.asked, req.Method+" "+req.URL.Path)
		w.mu.Unlock()
		answer(rw, req)
	})}
	go func() { _ = server.Serve(w) }()
	r, err := NewRemote(RemoteOptions{Name: "hub.test", Endpoint: "http://hub.test"})
	if err != nil {
		t.Fatal(err)
	}
	r.client.dial = w.dial
	t.Cleanup(func() {
		r.Close()
		server.Close()
	})
	return r, w
}

// late waits as a handler does, until its client has left.
func late(req *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-req.Context().Done():
	}
}

func subjectOf(n int) Digest { return digest.FromString(fmt.Sprint("subject ", n)) }

func answer(w http.ResponseWriter, status int, mediaType, body string) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func answerEmptyList(w http.ResponseWriter) {
	answer(w, http.StatusOK, "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
}

func answerManifest(w http.ResponseWriter) {
	answer(w, http.StatusOK, "application/vnd.oci.image.manifest.v1+json", `{"schemaVersion":2}`)
}
