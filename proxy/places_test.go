package proxy

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
)

func TestConnectionsLeavePlacesForWhatIsSentOverThem(t *testing.T) {
	p := NewPlaces(PlacesOptions{Places: 9, Logger: quiet()})
	for range 6 {
		if !p.tryTake(forConnection) {
			t.Fatal("a connection finds no place")
		}
	}
	if p.tryTake(forConnection) {
		t.Error("connections have all places")
	}
	for range 3 {
		if !p.tryTake(forBlob) {
			t.Fatal("a blob finds no place")
		}
	}
	if p.tryTake(forBlob) {
		t.Error("there are more blobs than places")
	}
	p.free(forConnection)
	if !p.tryTake(forBlob) {
		t.Error("a blob does not get the place of a connection")
	}
	if c, b := p.Taken(); c != 5 || b != 4 {
		t.Errorf("%d connections and %d blobs have places", c, b)
	}
}

func TestAFullHouseIsToldOnceAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		var refused atomic.Int64
		p := NewPlaces(PlacesOptions{Places: 1, Logger: slog.New(slog.NewTextHandler(&lines, nil)), Refused: func() { refused.Add(1) }})
		if !p.take(forConnection, nil, 5*time.Second) || p.Full() != nil {
			t.Fatal("the first finds no place")
		}
		began := time.Now()
		for range 3 {
			if p.take(forConnection, nil, 5*time.Second) {
				t.Fatal("there is no place")
			}
		}
		if waited := time.Since(began); waited < 5*time.Second || waited > 6*time.Second {
			t.Errorf("three waited for %s: only the first has to", waited)
		}
		if p.Full() == nil {
			t.Error("it is not told")
		}
		if n := strings.Count(lines.String(), "level=WARN"); n != 1 || refused.Load() != 3 {
			t.Errorf("%d warnings, %d refused", n, refused.Load())
		}
		p.free(forConnection)
		if p.Full() != nil || !strings.Contains(lines.String(), "refused=3") {
			t.Errorf("it is told when there is room again: %v, %s", p.Full(), &lines)
		}
		if !p.take(forConnection, nil, 5*time.Second) {
			t.Error("a free place is not taken")
		}
	})
}

func TestAPlaceThatComesFreeGoesToWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPlaces(PlacesOptions{Places: 1, Logger: quiet()})
		p.take(forConnection, nil, 0)
		began := time.Now()
		var got sync.WaitGroup
		got.Go(func() {
			if !p.take(forConnection, nil, 5*time.Second) || time.Since(began) != 2030*time.Millisecond {
				t.Errorf("after %s", time.Since(began))
			}
		})
		time.Sleep(2030 * time.Millisecond) // of the bubble's clock, and not when it would look again anyway
		p.free(forConnection)
		got.Wait()
		closed := make(chan struct{})
		close(closed)
		if p.take(forConnection, closed, time.Hour) {
			t.Error("there is no place")
		}
	})
}

func TestAConnectionThatNeverAskedMakesRoom(t *testing.T) {
	b := newBoundedServer(t, 2, time.Hour)
	held := b.ask("/hold")
	silent, err := net.Dial("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := isAnswered(b.ask("/v2/")); err != nil {
		t.Errorf("a connection without a request keeps a client out: %v", err)
	}
	close(b.hold)
	if err := isAnswered(held); err != nil {
		t.Error(err)
	}
}

// stalledServer sends one large blob over bounded connections.
func stalledServer(t *testing.T, j *journal, idle time.Duration, places *Places) (address, path string) {
	t.Helper()
	b := numbered(64 << 20) // more than the buffers of a connection
	d := digest.FromBytes(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(New(Options{
		Puller:    script{blob: func(pull.Repository, digest.Digest) (pull.Blob, error) { return &content{bytes: b}, nil }},
		Upstreams: upstreamsForTests(), Logger: slog.New(slog.NewJSONHandler(j, nil)), Places: places, ClientIdle: idle,
	}), quiet())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(LimitConnections(s, l, places))
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return l.Addr().String(), "/v2/app/blobs/" + d.String()
}

// stall asks for a blob and reads only its beginning.
func stall(t *testing.T, address, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", path)
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestAClientThatReadsNothingMakesRoomAndIsNamed(t *testing.T) {
	j := newJournal()
	places := placesFor(1)
	places.limit = 2 // one connection, one blob
	places.times.stalled = 20 * time.Millisecond
	address, path := stalledServer(t, j, time.Hour, places)
	stall(t, address, path)
	resp, err := http.Get("http://" + address + "/v2/")
	if err != nil {
		t.Fatalf("a client that reads nothing keeps others out: %v", err)
	}
	resp.Body.Close()
	line := j.next(t)
	if line["kind"] != "blob" { // the other answer is logged beside it
		line = j.next(t)
	}
	wantFields(t, line, map[string]any{"level": "WARN", "status": 200, "outcome": "broken"})
	if !strings.Contains(fmt.Sprint(line["error"]), "others needed its place") {
		t.Errorf("%v", line["error"])
	}
}

func TestAClientThatReadsNothingIsCutWithAWarning(t *testing.T) {
	j := newJournal()
	address, path := stalledServer(t, j, 100*time.Millisecond, placesFor(8))
	conn := stall(t, address, path)
	line := j.next(t)
	wantFields(t, line, map[string]any{"level": "WARN", "status": 200, "outcome": "broken", "kind": "blob"})
	if !strings.Contains(fmt.Sprint(line["error"]), "client_idle") {
		t.Errorf("%v", line["error"])
	}
	if n, err := io.Copy(io.Discard, conn); err == nil && n >= 64<<20 {
		t.Error("it was not cut")
	}
}

func TestNoProxyIsToBufferABlob(t *testing.T) {
	b := numbered(10)
	f := newFace(t, blobs(&content{bytes: b}))
	for _, header := range []string{"", "bytes=0-1", "bytes=0-1,4-5"} {
		f.do(http.MethodGet, blobPath(b), "Range", header).wantHeader(t, "X-Accel-Buffering", "no")
	}
	f = newFace(t, blobs(&content{bytes: b}), func(o *Options, _ *httptest.Server) {
		o.Places = NewPlaces(PlacesOptions{Places: 1, Logger: quiet()})
		o.Places.tryTake(forBlob)
	})
	f.do(http.MethodGet, blobPath(b)).wantHeader(t, "X-Accel-Buffering", "")
}
