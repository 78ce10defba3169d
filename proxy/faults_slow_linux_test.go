package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// slowClient is a client that has read the beginning of an answer, and reads
// no more for now.
type slowClient struct {
	conn net.Conn
	body *bufio.Reader
}

// newSlowClient asks for a blob and waits for its first byte. For all but the
// last ones the kernel is told to take little, or it would read on by itself.
func newSlowClient(address string, d pull.Digest, last bool) (slowClient, error) {
	var dialer net.Dialer
	if !last {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			ctlErr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			return errors.Join(err, ctlErr)
		}
	}
	conn, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return slowClient{}, err
	}
	c := slowClient{conn, bufio.NewReaderSize(conn, 512)}
	if _, err := fmt.Fprintf(conn, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n", d); err != nil {
		return c, err
	}
	status, err := c.body.ReadString('\n')
	if err == nil && !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		err = fmt.Errorf("the answer begins with %q", status)
	}
	for line := " "; err == nil && line != "\r\n"; {
		line, err = c.body.ReadString('\n')
	}
	if err == nil {
		_, err = c.body.Peek(1)
	}
	return c, err
}

// rest reads on, at last.
func (c slowClient) rest(d pull.Digest) error {
	proof := d.Verifier()
	n, err := io.Copy(proof, c.body)
	if err == nil && !proof.Verified() {
		err = fmt.Errorf("%d bytes that are not those of %s", n, d)
	}
	return err
}

// occupied is what this process has of memory and of open files.
type occupied struct {
	memory int64
	files  int
}

func occupiedNow(t *testing.T) occupied {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd") // before the collector closes what nobody closed
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // what pools held on to goes with the second
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return occupied{int64(stats.HeapAlloc + stats.StackInuse), len(open)}
}

// slowClients is how many come: two thousand, or as many as this process may
// have files open for, four for each.
func slowClients(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return min(2000, int(limit.Cur/4)-100)
}

func TestASlowClientCostsLittleMemoryAndOneFile(t *testing.T) {
	const (
		size = 8 << 20
		// perClient is what one of them costs at most, in bytes, with this
		// test's own end of its connection. Of that net/http holds 32 KiB
		// while it sends a file, and 8 KiB for the connection.
		perClient = 96 << 10
	)
	for name, cold := range map[string]bool{"a blob that is kept": false, "a blob that is on its way": true} {
		t.Run(name, func(t *testing.T) {
			fake := upstreamtest.New(t)
			content := upstreamtest.Bytes(1, size)
			_, image := fake.AddImage("app", "1", content)
			d := image.Layers[0].Digest
			// What is held up here must not pass for broken on a slow machine.
			mir := newMirror(t, fake, setup{remote: func(o *upstream.RemoteOptions) { o.Waits.Idle = time.Minute }})
			address := strings.TrimPrefix(mir.url, "http://")
			if a := mir.get("/v2/app/manifests/1"); a.status != http.StatusOK {
				t.Fatalf("the manifest: %d", a.status)
			}
			open := make(chan struct{})
			if cold {
				fake.Always("GET blobs", answering(http.Header{"Content-Length": {strconv.Itoa(size)}}, func(write func([]byte) bool) {
					write(content[:size/2])
					<-open
					write(content[size/2:])
				}))
			} else if a := mir.get("/v2/app/blobs/" + d.String()); outcome(a, d) != sound {
				t.Fatalf("the blob: %s", outcome(a, d))
			}
			mir.client.CloseIdleConnections()
			before := occupiedNow(t)

			all := make([]slowClient, slowClients(t))
			var come sync.WaitGroup
			places := make(chan struct{}, 64)
			for i := range all {
				come.Go(func() {
					places <- struct{}{}
					defer func() { <-places }()
					var err error
					if all[i], err = newSlowClient(address, d, i >= len(all)-3); err != nil {
						t.Errorf("client %d: %v", i, err)
					}
				})
			}
			come.Wait()
			if t.Failed() {
				close(open)
				return
			}
			now := occupiedNow(t)
			memory, files := (now.memory-before.memory)/int64(len(all)), now.files-before.files
			t.Logf("%d clients, %d bytes and %.2f files for each, its own end of the connection included", len(all), memory, float64(files)/float64(len(all)))
			if memory > perClient {
				t.Errorf("each of %d slow clients costs %d bytes of memory", len(all), memory)
			}
			// Both ends of its connection are in this process.
			if files > 3*len(all)+16 {
				t.Errorf("%d slow clients cost %d open files", len(all), files)
			}

			close(open)
			for i, c := range all {
				if i >= len(all)-3 {
					if err := c.rest(d); err != nil {
						t.Errorf("client %d: %v", i, err)
					}
				}
				c.conn.Close()
			}
			asked := slices.DeleteFunc(fake.Transcript(), func(line string) bool { return !strings.HasPrefix(line, "GET blobs") })
			if len(asked) != 1 {
				t.Errorf("the upstream was asked %v", asked)
			}
			mir.stop()
			fake.Stop()
			if left := occupiedNow(t); left.files > before.files+16 {
				t.Errorf("%d files are left open", left.files-before.files)
			}
		})
	}
}
