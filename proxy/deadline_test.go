package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// armed is a deadline with what the connection was given.
func armed() (*deadline, *[]time.Time) {
	var given []time.Time
	return &deadline{arm: func(t time.Time) error { given = append(given, t); return nil }}, &given
}

func TestADeadlineIsSetForWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, given := armed()
		begin := func(exact bool, want int) {
			t.Helper()
			if err := d.begin(exact); err != nil || len(*given) != want {
				t.Fatalf("%v, %d were set, want %d", err, len(*given), want)
			}
		}
		set := func(at time.Time, want int) {
			t.Helper()
			if err := d.set(at); err != nil || len(*given) != want {
				t.Fatalf("%v, %d were set, want %d", err, len(*given), want)
			}
		}
		now := time.Now()
		set(now.Add(2*time.Minute), 0) // nothing waits
		begin(false, 1)
		d.end()
		set(now.Add(10*time.Second), 1)
		set(time.Time{}, 1)
		begin(false, 1) // the earlier one may stay
		set(now.Add(-time.Second), 2)
		if (*given)[1] != now.Add(-time.Second) {
			t.Errorf("what waits is not ended: %v", *given)
		}
		d.end()
		if err := d.begin(false); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after its deadline something waits: %v", err)
		}
		set(now.Add(3*time.Minute), 2)
		begin(false, 3) // the last one has passed
		d.end()
		set(now.Add(time.Minute), 3)
		begin(false, 4) // it is earlier than the one that is set
		d.end()
		set(now.Add(5*time.Minute), 4)
		begin(true, 5) // it has to be exact
		d.end()
	})
}

func TestADeadlineThatEndsTooEarlyIsFollowedByTheRightOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, given := armed()
		now := time.Now()
		timeout := error(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded})
		_ = d.set(now.Add(time.Minute))
		_ = d.begin(false)
		d.end()
		_ = d.set(now.Add(2 * time.Minute))
		_ = d.begin(false)
		time.Sleep(time.Minute)
		if d.endedEarly(io.EOF) {
			t.Error("another error is taken for a deadline")
		}
		if !d.endedEarly(timeout) || len(*given) != 2 || (*given)[1] != now.Add(2*time.Minute) {
			t.Fatalf("after a minute of two: %v", *given)
		}
		time.Sleep(time.Minute)
		if d.endedEarly(timeout) || len(*given) != 2 {
			t.Errorf("after two minutes of two: %v", *given)
		}
	})
}

// counts are what a connection has done.
type counts struct{ writes, deadlines, waits atomic.Int64 }

// counted serves on loopback, and counts.
type counted struct {
	net.Listener
	counts
}

func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	c, ok := conn.(*clientConn)
	if !ok {
		return conn, err
	}
	count := func(n *atomic.Int64, arm func(time.Time) error) func(time.Time) error {
		return func(t time.Time) error { n.Add(1); return arm(t) }
	}
	c.writes.arm, c.reads.arm = count(&l.waits, c.writes.arm), count(&l.deadlines, c.reads.arm)
	try := c.now.try
	c.now.try = func(fd uintptr) bool { l.counts.writes.Add(1); return try(fd) }
	return c, err
}

func TestAHitTakesOneWriteAndAtMostOneDeadline(t *testing.T) {
	const asked = 200
	small := numbered(2 << 10)
	manifest := pull.Manifest{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(small), Size: int64(len(small))},
		Bytes:      small, Outcome: pull.Hit,
	}
	p := blobs(&content{bytes: small})
	p.manifest = func(pull.Repository, string) (pull.Manifest, error) { return manifest, nil }
	for name, path := range map[string]string{
		"GET manifest": "/v2/app/manifests/" + manifest.Descriptor.Digest.String(), "HEAD tag": "/v2/app/manifests/1", "GET blob": blobPath(small),
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := HTTPServer(New(Options{Puller: p, Upstreams: upstreamsForTests(), Logger: quiet()}), quiet())
			l := &counted{Listener: LimitConnections(server, listener, NewPlaces(PlacesOptions{Logger: quiet()}))}
			done := make(chan error, 1)
			go func() { done <- server.Serve(l) }()
			defer func() {
				server.Close()
				<-done
			}()
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range asked {
				method := http.MethodGet
				if name == "HEAD tag" {
					method = http.MethodHead
				}
				req, err := http.NewRequest(method, "http://"+listener.Addr().String()+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if want := int64(len(small)); resp.StatusCode != http.StatusOK || err != nil || method == http.MethodGet && n != want {
					t.Fatalf("%s, %d bytes, %v", resp.Status, n, err)
				}
			}
			if n := l.counts.writes.Load(); n != asked {
				t.Errorf("%d answers took %d writes", asked, n)
			}
			if n := l.waits.Load(); n != 0 {
				t.Errorf("writes that did not wait had %d deadlines set", n)
			}
			// One ends the server's own wait for the client to leave, and one is for
			// the next request.
			if n := l.deadlines.Load(); n > 2*asked+1 {
				t.Errorf("%d requests took %d deadlines for reads", asked, n)
			}
		})
	}
}

func TestAWriteThatWaitsEndsAtItsDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := newPatientConn(accepted.(*net.TCPConn))
	defer conn.Close()
	if _, err := conn.Write([]byte("all of it at once")); err != nil {
		t.Fatal(err)
	}
	// One that has passed does not end what the kernel takes at once, and the next
	// one counts.
	_ = conn.SetWriteDeadline(time.Now().Add(-time.Second))
	if n, err := conn.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 64<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if conn.writing.Load() != 0 {
		t.Error("it still waits")
	}
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	var op *net.OpError
	if n, err := conn.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &op) || n == 64<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	// It goes on where nothing bounds it.
	_ = conn.SetDeadline(time.Time{})
	read := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, client)
		read <- n
	}()
	if n, err := conn.Write(make([]byte, 1<<20)); err != nil || n != 1<<20 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	conn.Close()
	if n := <-read; n < 1<<20 {
		t.Errorf("%d bytes came", n)
	}
}

func TestAReadThatWaitsIsEndedFromElsewhere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := newPatientConn(accepted.(*net.TCPConn))
	defer conn.Close()
	for range 100 {
		ended := make(chan error)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // before or after it has begun
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Time{})
		if _, err := client.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
}
