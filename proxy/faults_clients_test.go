package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A clientRow is what clients do that take places, what becomes of them, and of
// one more that comes then. There are nine places, of which connections may have
// six.
type clientRow struct {
	name         string
	do           func(w *clientWorld)
	sees, other  string
	warned, full int // lines of the log
}

func clientRows() []clientRow {
	const cut = broken + ", after 15 m"
	pausing := func(pause time.Duration) func(w *clientWorld) {
		return func(w *clientWorld) { w.reads(1, pause) }
	}
	return []clientRow{
		{"one reads nothing for a minute, in the middle of a blob", pausing(time.Minute), "whole, after 1 m", "whole", 0, 0},
		{"one reads nothing for 14 minutes", pausing(14 * time.Minute), "whole, after 14 m", "whole", 0, 0},
		{"one reads nothing for an hour", pausing(time.Hour), cut, "whole", 1, 0},
		{"six connections are idle", func(w *clientWorld) { w.idle(6) }, "", "whole", 0, 0},
		{"six connections never send anything", func(w *clientWorld) { w.silent(6) }, "", "whole, after 1 s", 0, 1},
		{"three read blobs, and three connections are idle", func(w *clientWorld) {
			w.idle(3)
			w.reads(3, time.Minute)
		}, "whole, after 1 m", "whole", 0, 0},
		{"six connections have a request each that is being answered", func(w *clientWorld) { w.asking(6) }, "", "no answer, after 5 s", 0, 1},
	}
}

// clientWorld is a mirror with few places.
type clientWorld struct {
	*slowWorld
	address string
	clients sync.WaitGroup
	mu      sync.Mutex
	seen    []string
}

func newClientWorld(t *testing.T, dir string, log *bytes.Buffer) *clientWorld {
	t.Helper()
	w := &clientWorld{slowWorld: newSlowWorld(t, dir, 1, upstreamtest.Auth{})}
	for _, what := range []string{aTag, aBlob} {
		if sees := w.ask(what); sees != "whole" {
			t.Fatalf("%s: %s", what, sees)
		}
	}
	l, err := w.net.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	places := proxy.NewPlaces(proxy.PlacesOptions{Places: 9, Logger: logger})
	server := proxy.HTTPServer(proxy.New(proxy.Options{
		Puller: w.behind.Puller, Logger: logger, Places: places, Upstreams: []proxy.Upstream{{Name: "hub.test", Default: true}},
	}), slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(proxy.LimitConnections(server, l, places)) }()
	t.Cleanup(func() { server.Close() })
	return w
}

func (w *clientWorld) dial() net.Conn {
	conn, err := w.net.Dial(w.t.Context(), "tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// get asks for the blob over a connection, and reads nothing for a time in the
// middle of it.
func (w *clientWorld) get(conn net.Conn, pause time.Duration) string {
	began := time.Now()
	sees := func(what string) string {
		switch took := time.Since(began); {
		case took >= time.Minute:
			return fmt.Sprintf("%s, after %d m", what, int(took.Round(time.Minute).Minutes()))
		case took >= second:
			return fmt.Sprintf("%s, after %d s", what, int(took.Seconds()))
		}
		return what
	}
	if _, err := fmt.Fprintf(conn, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: mirror.test\r\n\r\n", w.digests[aBlob]); err != nil {
		return sees("no answer")
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	if err != nil {
		return sees("no answer")
	}
	if resp.StatusCode != http.StatusOK {
		return sees(resp.Status)
	}
	body := make([]byte, slowSmall)
	n, err := io.ReadFull(resp.Body, body[:slowSmall/2])
	if err == nil {
		time.Sleep(pause)
		var m int
		m, err = io.ReadFull(resp.Body, body[n:])
		n += m
	}
	if err != nil || !bytes.Equal(body[:n], w.content[aBlob]) {
		began = began.Add(max(0, pause-15*time.Minute)) // it notices later than it was cut
		return sees(broken)
	}
	return sees("whole")
}

func (w *clientWorld) reads(n int, pause time.Duration) {
	for range n {
		conn := w.dial()
		w.clients.Go(func() {
			sees := w.get(conn, pause)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, sees)
		})
	}
}

// idle opens connections that have been answered once.
func (w *clientWorld) idle(n int) {
	for range n {
		if sees := w.get(w.dial(), 0); sees != "whole" {
			w.t.Errorf("one that is idle later saw %s", sees)
		}
		synctest.Wait()
	}
}

func (w *clientWorld) silent(n int) {
	for range n {
		w.dial()
	}
}

// asking sends requests whose answers nobody reads.
func (w *clientWorld) asking(n int) {
	for range n {
		conn := w.dial()
		if _, err := io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: mirror.test\r\n\r\n"); err != nil {
			w.t.Error(err)
		}
	}
}

func clientFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range clientRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				var log bytes.Buffer
				var sees, other string
				synctest.Test(t, func(t *testing.T) {
					w := newClientWorld(t, dir, &log)
					row.do(w)
					synctest.Wait()
					other = w.get(w.dial(), 0)
					w.clients.Wait()
					for _, s := range w.seen {
						if sees = s; s != row.sees {
							t.Errorf("they saw %q, want %q", s, row.sees)
						}
					}
				})
				if other != row.other {
					t.Errorf("one more saw %q, want %q", other, row.other)
				}
				warned, full := strings.Count(log.String(), "client_idle"), strings.Count(log.String(), "all places for clients are taken")
				if warned != row.warned || full != row.full {
					t.Errorf("%d and %d lines, want %d and %d:\n%s", warned, full, row.warned, row.full, &log)
				}
				if sees == "" {
					sees = "-"
				}
				lines.add(i, row.name, sees, other, fmt.Sprint(warned+full))
			})
		}
	})
	return "## Clients that take places\n\nThere are nine places: one for each connection, six of these at most, and one for each blob that is being sent. " +
		"The rows of clients whose host is silent are tests of their own: `TestAClientThatReadsNothingMakesRoomAndIsNamed`.\n\n" +
		lines.table("clients", "they see", "one more sees", "warnings")
}
