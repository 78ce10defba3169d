package upstream

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
)

// TestARegistryMaySendNobodyBeyondItsNetwork (13.12, W41): what a public registry
// refers to is public, and what one in a private network refers to is public or
// in a private network, but never meant for this machine alone.
func TestARegistryMaySendNobodyBeyondItsNetwork(t *testing.T) {
	const ( // who may refer to an address
		anybody = iota
		private
		nobody
	)
	for address, who := range map[string]int{
		"93.184.215.14": anybody, "2606:2800:21f::1": anybody, "64:ff9b::5db8:d70e": anybody, // NAT64 of the first
		"172.15.0.1": anybody, "198.20.0.1": anybody, "223.255.255.255": anybody, "100.128.0.1": anybody,

		"10.0.0.1": private, "172.16.0.1": private, "192.168.0.1": private, "100.64.0.1": private, "fd00::1": private, "::ffff:10.0.0.1": private,
		"198.18.0.1": private, "198.19.255.255": private, "240.0.0.1": private, "255.255.255.255": private, "0.1.2.3": private,
		"64:ff9b::a00:1": private, "64:ff9b:1::a00:1": private, "2002:a00:1::1": private, "::10.0.0.1": private, "fec0::1": private,

		"169.254.169.254": nobody, "fe80::1": nobody, "fe80::1%eth0": nobody, "64:ff9b::a9fe:a9fe": nobody, "::ffff:169.254.169.254": nobody,
		"fd00:ec2::254": nobody, "100.100.100.200": nobody, "168.63.129.16": nobody, "192.0.0.192": nobody, "127.0.0.1": nobody, "::1": nobody,
	} {
		at := netip.MustParseAddr(address)
		for home, may := range map[string]bool{"93.184.215.14": who == anybody, "10.9.9.9": who != nobody} {
			g := newGuard(home, false, Timeouts{})
			if err := g.check(t.Context(), "elsewhere.test", at); err == nil != may || err != nil && !errors.Is(err, ErrInvalidResponse) {
				t.Errorf("a registry at %s refers to %s: %v", home, address, err)
			}
		}
		if err := newGuard("93.184.215.14", true, Timeouts{}).check(t.Context(), "elsewhere.test", at); err != nil {
			t.Errorf("%s, where that is allowed: %v", address, err)
		}
	}
	if err := newGuard("127.0.0.1", false, Timeouts{}).check(t.Context(), "localhost", netip.MustParseAddr("127.0.0.2")); err != nil {
		t.Errorf("a registry on this machine refers to it: %v", err)
	}
}

// TestAnAddressIsJudgedBeforeItIsDialled (13.12): a connection alone may have an
// effect on what is at a private address, and says whether there is anything.
func TestAnAddressIsJudgedBeforeItIsDialled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var reached atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard("93.184.215.14", false, Timeouts{})
	g.dialer.Resolver = names(t, [4]byte{127, 0, 0, 1})
	for _, wasSuspect := range []bool{false, true} {
		if wasSuspect {
			g.suspect(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80})
		}
		if _, err := g.dial(t.Context(), "tcp", "elsewhere.test:"+port); !errors.Is(err, ErrInvalidResponse) {
			t.Errorf("dialled with %v", err)
		}
	}
	own, err := newGuard("127.0.0.1", false, Timeouts{}).dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("the registry itself: %v", err)
	}
	defer own.Close()
	if _, err := own.Read(make([]byte, 1)); err == nil { // until it was accepted, and closed
		t.Error("something was sent")
	}
	if n := reached.Load(); n != 1 {
		t.Errorf("%d connections, want the registry's own", n)
	}
}
