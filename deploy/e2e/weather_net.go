package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// weatherNet is a network of its own, in which each cell has addresses.
type weatherNet struct {
	t  *testing.T
	mu sync.Mutex // iptables has one lock
	// names is what entrepot sees as /etc/hosts. Clients don't see it, so that none
	// of them goes round entrepot.
	names     *os.File
	positions map[string]int64 // of the line of each name that was added last
}

// newWeatherNet has every address of 10.79.0.0/16 on this machine. Buffers are
// small, because what they hold is lost with a flow and has been sent all the same.
func newWeatherNet(t *testing.T, dir string) *weatherNet {
	t.Helper()
	for _, args := range [][]string{
		{"link", "set", "lo", "up", "mtu", "9000"},
		{"address", "add", "10.79.0.0/16", "dev", "lo"},
	} {
		command(t, os.Environ(), "/usr/sbin/ip", args...)
	}
	for _, setting := range []string{"tcp_rmem", "tcp_wmem"} {
		writeFile(t, filepath.Join("/proc/sys/net/ipv4", setting), "4096 16384 32768")
	}
	for path, content := range map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/etc/hosts": "127.0.0.1 localhost\n"} {
		file := filepath.Join(dir, filepath.Base(path))
		writeFile(t, file, content)
		if err := syscall.Mount(file, path, "", syscall.MS_BIND, ""); err != nil {
			t.Fatalf("mount over %s: %v", path, err)
		}
	}
	n := &weatherNet{t: t, positions: map[string]int64{}}
	names, err := os.Create(filepath.Join(dir, "names"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { names.Close() })
	n.names = names
	return n
}

// add has a name lead to an address, beside those that it leads to.
func (n *weatherNet) add(name, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	end, err := n.names.Stat()
	if err != nil {
		return err
	}
	n.positions[name] = end.Size()
	return n.write(name, address)
}

// move has a name lead to an address, and no longer to the one that was added last.
func (n *weatherNet) move(name, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.write(name, address)
}

func (n *weatherNet) write(name, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	// As long as the line that was there: whoever reads sees one or the other.
	_, err = n.names.WriteAt(fmt.Appendf(nil, "%-15s %s\n", host, name), n.positions[name])
	return err
}

// lose loses the packets of a connection, both ways, for ever.
func (n *weatherNet) lose(f *flow) error {
	here, there := f.asker.LocalAddr().(*net.TCPAddr), f.asker.RemoteAddr().(*net.TCPAddr)
	ports := func(from, to int) []string {
		return []string{"-p", "tcp", "--sport", strconv.Itoa(from), "--dport", strconv.Itoa(to)}
	}
	return n.drop("-I",
		append(ports(there.Port, here.Port), "-d", here.IP.String()),
		append(ports(here.Port, there.Port), "-s", here.IP.String()))
}

// hide loses all packets from and to an address; show loses them no longer.
func (n *weatherNet) hide(address string) error { return n.dropAll("-I", address) }
func (n *weatherNet) show(address string) error { return n.dropAll("-D", address) }

func (n *weatherNet) dropAll(how, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	return n.drop(how, []string{"-d", host}, []string{"-s", host})
}

// drop adds rules, or takes them away. They drop packets that come in: a packet
// that can't go out is an error at once.
func (n *weatherNet) drop(how string, rules ...[]string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rule := range rules {
		args := append([]string{how, "INPUT"}, append(rule, "-j", "DROP")...)
		if _, stderr, err := try(n.t.Context(), "", os.Environ(), "/usr/sbin/iptables", args...); err != nil {
			return fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, stderr)
		}
	}
	return nil
}
