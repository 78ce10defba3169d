//go:build !windows

package disk

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func TestKernelSendsBlobs(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	content := pattern("content", 1<<20)
	d := publish(t, b, "content", 1<<20)
	blob, err := b.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	draft := create(t, b, cache.Descriptor{Digest: d, Size: 1 << 20})
	if _, err := draft.Write(content); err != nil {
		t.Fatal(err)
	}
	following, err := draft.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer following.Close()

	sparse := create(t, b, cache.Descriptor{Digest: d, Size: 1 << 20})
	if _, err := sparse.WriteAt(content[1000:901_000], 1000); err != nil {
		t.Fatal(err)
	}
	piece, err := sparse.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer piece.Close()

	for name, from := range map[string]cache.Blob{"a blob": blob, "a draft": following, "a piece of a draft": piece} {
		t.Run(name+" goes to a connection without passing through Read", func(t *testing.T) {
			got := make(chan []byte, 1)
			out, in := connection(t)
			go func() {
				all, err := io.ReadAll(in)
				if err != nil {
					t.Errorf("receive: %v", err)
				}
				got <- all
			}()
			if _, err := from.Seek(1000, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			counted := &countedReads{blob: from.(interface {
				cache.Blob
				syscall.Conn
			})}
			sent, err := io.Copy(out, io.LimitReader(counted, 900_000))
			if sent != 900_000 || err != nil {
				t.Fatalf("sent %d, %v", sent, err)
			}
			out.Close()
			if !bytes.Equal(<-got, content[1000:901_000]) {
				t.Error("other bytes arrived")
			}
			if counted.reads != 0 {
				t.Errorf("%d reads: sendfile was not used", counted.reads)
			}
			if at, err := from.Seek(0, io.SeekCurrent); at != 901_000 || err != nil {
				t.Errorf("the offset is %d, %v after 901000 bytes", at, err)
			}
		})
	}
}

// countedReads shows what net looks for in a file, and counts what it should
// not need.
type countedReads struct {
	blob interface {
		cache.Blob
		syscall.Conn
	}
	reads int
}

func (c *countedReads) Read(p []byte) (int, error) {
	c.reads++
	return c.blob.Read(p)
}

func (c *countedReads) SyscallConn() (syscall.RawConn, error) { return c.blob.SyscallConn() }

func connection(t *testing.T) (out, in net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if out, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if in, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); in.Close() })
	return out, in
}
