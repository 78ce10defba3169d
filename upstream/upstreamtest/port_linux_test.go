package upstreamtest

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// localPortRange is IP_LOCAL_PORT_RANGE of Linux 6.3, which package syscall
// does not have: from which ports the kernel chooses one for a socket.
const localPortRange = 51

func TestNobodyElseGetsThePortOfARegistryThatWasStopped(t *testing.T) {
	fake := New(t)
	d := fake.AddBlob("app", []byte("content"))
	address := strings.TrimPrefix(fake.URL(), "http://")
	port := fake.server.Listener.Addr().(*net.TCPAddr).Port
	// Another registry, when the kernel comes to this port in its choice.
	other := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, localPortRange, port<<16|port)
		})
		return errors.Join(err, refused)
	}}
	for range 2 {
		fake.Stop()
		fake.Stop()
		l, err := other.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if errors.Is(err, syscall.ENOPROTOOPT) {
			t.Skip("the kernel is older than 6.3")
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("another listens at %v, %v", l, err)
		}
		if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialling it: %v", err)
		}
		fake.Start()
		if _, body := ask(t, http.MethodGet, fake.URL()+"/v2/app/blobs/"+d.Digest.String()); body != "content" {
			t.Errorf("after it has started: %q", body)
		}
	}
}
