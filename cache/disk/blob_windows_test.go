package disk

import (
	"io"
	"syscall"
	"testing"
)

func TestTheSystemIsNotAskedToSendBlobs(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	blob, err := b.Open(t.Context(), publish(t, b, "content", 1000))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, is := blob.(syscall.Conn); is {
		t.Error("a blob is a syscall.Conn")
	}
	if _, is := blob.(io.WriterTo); is {
		t.Error("a blob is an io.WriterTo")
	}
}
