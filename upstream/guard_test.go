package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a name server that knows two addresses of every name.
func names(t *testing.T, addresses ...[4]byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				for _, a := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
						Body:   &dnsmessage.AResource{A: a},
					})
				}
			}
			packed, err := m.Pack()
			if err != nil {
				continue
			}
			_, _ = server.WriteTo(packed, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A host has two addresses, and nothing is answered at the first one. Each
// address is dialled while another one is suspect, and any one if all are.
func TestAfterATimeoutAnotherAddressOfTheHostIsDialled(t *testing.T) {
	var answers atomic.Bool
	serve := func(at string) (*httptest.Server, chan string) {
		asked := make(chan string, 10)
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			asked <- at
			if !answers.Load() {
				<-req.Context().Done()
				return
			}
			answerManifest(w)
		}))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		return s, asked
	}
	first, atFirst := serve("127.0.0.1:0")
	_, port, err := net.SplitHostPort(first.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, atOther := serve("127.0.0.2:" + port)

	r, err := NewRemote(RemoteOptions{Name: "hub.test", Endpoint: "http://hub.test:" + port, Waits: Timeouts{Header: 200 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.guard.dialer.Resolver = names(t, [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2})
	ask := func() error {
		c, err := r.Manifest(t.Context(), "app", "1")
		if err != nil {
			return err
		}
		defer c.Body.Close()
		_, err = io.Copy(io.Discard, c.Body)
		return err
	}
	for range 2 {
		if err := ask(); !errors.Is(err, ErrTimeout) {
			t.Errorf("a silent address: %v", err)
		}
	}
	if len(atFirst) != 1 || len(atOther) != 1 {
		t.Errorf("asked %d times at the first address and %d times at the other, want once each", len(atFirst), len(atOther))
	}
	answers.Store(true)
	if err := ask(); err != nil {
		t.Errorf("both are suspect, and both answer: %v", err)
	}
}
