package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// machine is one that a test has to itself: its processes, its network and what
// it sees of the file system are its own, and the paths and the registries' names
// are the true ones. What happens on it leaves nothing behind.
type machine struct {
	*suite
	t         *testing.T
	dir       string // in memory
	env       []string
	mirror    *mirror
	trusted   authority // by everybody on the machine
	private   authority // by those who are told
	content   *distribution
	pushed    int
	latest    v1.Image
	hangs     atomic.Bool            // entrepot, because it was stopped
	counted   int                    // by entrepot, when it was last asked
	registers map[string]*transcript // by the name that images begin with
	listeners map[string]net.Listener
	below     string // the file system of the machine that this one is on
}

// registries are the names that images begin with, where they are served, and
// under which name. theirs.lan is a mirror that people had before.
var registries = []struct{ name, address, server string }{
	{"docker.io", "127.0.1.1:443", "registry-1.docker.io"},
	{"ghcr.io", "127.0.1.2:443", "ghcr.io"},
	{"corp.lan:5443", "127.0.1.3:5443", "corp.lan"},
	{"other.lan", "127.0.1.4:443", "other.lan"},
	{"other.lan:5080", "127.0.1.4:5080", ""}, // by plain HTTP
	{"theirs.lan", "127.0.1.5:443", "theirs.lan"},
}

// aliased is a name that is ghcr.io's, for entrepot alone.
const aliased = "alias.lan"

// outside is an address of the machine that is no loopback address: of those
// Docker believes every certificate.
const outside = "10.78.0.1"

// gone is an address that nobody answers on, not even with a refusal.
const gone = "10.77.0.7"

// newMachine makes the machine of what it runs in: namespaces for mounts, the
// network and processes, of which this process is the first.
func newMachine(t *testing.T, programs ...string) *machine {
	t.Helper()
	m := &machine{suite: readSuite(t), t: t, registers: map[string]*transcript{}, listeners: map[string]net.Listener{}}
	m.dir = filepath.Join(m.work, "m")
	m.tmpfs(m.dir)
	m.work = m.dir
	// What the overlays hide of it, for what Debian's packages have put there.
	m.below = filepath.Join(m.dir, "below")
	if err := os.Mkdir(m.below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("/", m.below, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"/run", "/var/lib"} {
		m.tmpfs(folder)
	}
	for _, folder := range []string{"/etc", "/opt"} {
		m.overlay(folder)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", outside + "/32", "dev", "lo"},
		// What is sent there comes back, is nobody's, and is dropped.
		{"route", "add", gone + "/32", "dev", "lo"},
	} {
		command(t, os.Environ(), "/usr/sbin/ip", args...)
	}
	hosts := []string{"127.0.0.1 localhost mirror.lan hub.lan", "::1 localhost"}
	for _, r := range registries {
		host, _, _ := net.SplitHostPort(r.address)
		if r.server != "" {
			hosts = append(hosts, host+" "+r.server)
		}
	}
	m.put("/etc/hosts", strings.Join(hosts, "\n")+"\n")
	m.put("/etc/resolv.conf", "nameserver 127.0.0.1\n") // where nobody listens
	m.trusted, m.private = newAuthority(t, "trusted"), newAuthority(t, "private")
	m.put("/etc/ssl/certs/ca-certificates.crt", string(m.trusted.pem))
	m.put("/etc/office.crt", string(m.private.pem))
	home := filepath.Join(m.dir, "home")
	bin := filepath.Join(m.dir, "bin")
	m.put(filepath.Join(home, "empty"), "")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(m.entrepot, filepath.Join(bin, "entrepot")); err != nil {
		t.Fatal(err)
	}
	m.env = environment(home, append(programs, bin)...)
	m.content = m.startDistribution(t, m.folder(t))
	for _, r := range registries {
		m.serve(r.name, r.address, m.trusted)
	}
	m.mirror = &mirror{program: m.entrepot, dir: m.folder(t), address: "127.0.0.1:5000", admin: "127.0.0.1:5001"}
	return m
}

func (m *machine) tmpfs(folder string) {
	m.t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=755"); err != nil {
		m.t.Fatalf("mount a tmpfs over %s: %v", folder, err)
	}
}

// overlay has what is changed below a folder go into memory.
func (m *machine) overlay(folder string) {
	m.t.Helper()
	upper, work := filepath.Join(m.dir, "upper"+folder), filepath.Join(m.dir, "work"+folder)
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := syscall.Mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work); err != nil {
		m.t.Fatalf("mount an overlay over %s: %v", folder, err)
	}
}

// put writes a file.
func (m *machine) put(path, content string) {
	m.t.Helper()
	writeFile(m.t, path, content)
}

// clear takes folders away.
func (m *machine) clear(folders ...string) {
	m.t.Helper()
	for _, folder := range folders {
		if err := os.RemoveAll(folder); err != nil {
			m.t.Fatal(err)
		}
	}
}

// serve serves all content as one registry, and counts what it is asked.
func (m *machine) serve(name, address string, signer authority) {
	m.t.Helper()
	i := slices.IndexFunc(registries, func(r struct{ name, address, server string }) bool { return r.name == name })
	l, err := net.Listen("tcp", address)
	if err != nil {
		m.t.Fatal(err)
	}
	if server := registries[i].server; server != "" {
		certificate := signer.issue(m.t, server)
		pair, err := tls.X509KeyPair(certificate.chain, certificate.key)
		if err != nil {
			m.t.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	seen := &transcript{next: reverseProxy(m.content.host)}
	server := &http.Server{Handler: seen, ErrorLog: log.New(io.Discard, "", 0)} // Clients see where it fails.
	go func() { _ = server.Serve(l) }()
	m.t.Cleanup(func() { server.Close() })
	m.registers[name], m.listeners[name] = seen, l
}

// withdraw has a registry take no more connections.
func (m *machine) withdraw(name string) {
	m.t.Helper()
	if err := m.listeners[name].Close(); err != nil {
		m.t.Fatal(err)
	}
}

// mirrored is what entrepot is told: of the upstreams each has its own endpoint,
// as in the field.
type mirrored struct {
	listen    string    // empty: as it is by default
	hub       string    // more of docker.io; empty: it is the default
	ghcr      string    // the name of the upstream of which ghcr.io is an alias; empty: it is the name
	ghcrHosts string    // a virtual host of it
	corp      string    // more of corp.lan:5443
	signedBy  authority // empty: it speaks plain HTTP
}

// runEntrepot starts entrepot anew, with what it is told in /etc/entrepot.
func (m *machine) runEntrepot(told mirrored) {
	m.t.Helper()
	if m.mirror.process != nil {
		m.mirror.stop(m.t)
	}
	text := "admin: " + m.mirror.admin + "\nlisten: " + strconv.Quote(cmp.Or(told.listen, m.mirror.address)) + "\ncache:\n  dir: " + m.folder(m.t) + "\n"
	if told.signedBy.key != nil {
		host, _, err := net.SplitHostPort(cmp.Or(told.listen, m.mirror.address))
		if err != nil {
			m.t.Fatal(err)
		}
		certificate := told.signedBy.issue(m.t, host, "mirror.lan", "hub.lan")
		m.put("/etc/entrepot/tls.crt", string(certificate.chain))
		m.put("/etc/entrepot/tls.key", string(certificate.key))
		text += "tls: {cert_file: /etc/entrepot/tls.crt, key_file: /etc/entrepot/tls.key}\n"
	}
	alias := aliased
	if told.ghcr != "" {
		alias = "ghcr.io"
	}
	text += fmt.Sprintf(`upstreams:
  - name: docker.io
    %s
  - name: %s
    aliases: [%s]
    endpoints: ["https://ghcr.io"]
    hosts: [%s]
  - name: "corp.lan:5443"
    %s
`, cmp.Or(told.hub, "default: true"), cmp.Or(told.ghcr, "ghcr.io"), alias, told.ghcrHosts, told.corp)
	m.put(m.mirror.config(), text)
	m.mirror.start(m.t)
}

// typed runs what somebody types in a shell.
func (m *machine) typed(line string) (stdout, stderr string, err error) {
	return try(m.t.Context(), m.dir, m.env, "/bin/sh", "-c", line)
}

// does runs it until the context ends.
func (m *machine) does(ctx context.Context, line string) error {
	stdout, stderr, err := try(ctx, m.dir, m.env, "/bin/sh", "-c", line)
	if err != nil {
		err = fmt.Errorf("$ %s\n%w\n%s%s", line, err, stdout, stderr)
	}
	return err
}

// types runs it, and it has to go well.
func (m *machine) types(line string) (stdout, stderr string) {
	m.t.Helper()
	stdout, stderr, err := m.typed(line)
	if err != nil {
		m.t.Fatalf("$ %s\n%v\n%s%s", line, err, stdout, stderr)
	}
	m.t.Logf("$ %s\n%s%s", line, stdout, stderr)
	return stdout, stderr
}

// asked is what a pull asked, and of whom.
type asked struct {
	here     int            // of entrepot, as it counts
	straight map[string]int // of each registry, but not by entrepot
	took     time.Duration
	err      error
}

func (a asked) String() string {
	return fmt.Sprintf("asked %d times here and %v elsewhere in %v: %v", a.here, a.straight, a.took.Round(10*time.Millisecond), a.err)
}

// watch says what is asked while something is done.
func (m *machine) watch(do func(context.Context) error) asked {
	m.t.Helper()
	before := m.here()
	for _, seen := range m.registers {
		seen.take()
	}
	began := time.Now()
	a := asked{straight: map[string]int{}, err: do(m.t.Context())}
	a.took = time.Since(began)
	a.here = m.here() - before
	for name, seen := range m.registers {
		direct := seen.take().where(func(r request) bool {
			return !strings.HasPrefix(r.agent, "entrepot/") && strings.HasPrefix(r.path, "/v2/") && r.path != "/v2/"
		})
		if len(direct) > 0 {
			a.straight[name] = len(direct)
		}
	}
	return a
}

// here is how many requests for content entrepot has counted: as many as before
// while it hangs, and none while it is down.
func (m *machine) here() int {
	m.t.Helper()
	if m.hangs.Load() {
		return m.counted
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.mirror.admin + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var all bytes.Buffer
	if _, err := all.ReadFrom(resp.Body); err != nil {
		m.t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(all.String()) {
		if !strings.HasPrefix(line, "entrepot_requests_total{") {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(line[strings.LastIndex(line, "}")+1:], &n); err != nil {
			m.t.Fatalf("%s: %v", line, err)
		}
		total += int(n)
	}
	m.counted = total
	return total
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{made, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issued is a certificate with its key, in PEM.
type issued struct{ chain, key []byte }

func (a authority) issue(t *testing.T, names ...string) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}
