package e2e

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// network is a world of registries by the names and ports that they have in
// people's files. Clients reach them through a proxy, so that nobody's name
// server and no privileged port is needed. Each registry has nothing, so that a
// client goes on to the next one that it knows.
type network struct {
	proxy *httptest.Server
	dir   string
	trust string // a file with who the system trusts

	mu    sync.Mutex
	at    map[string]string // address behind a name with a port, for HTTPS
	plain map[string]bool   // names with a port that speak plain HTTP
	asked []string          // what was asked for manifests, in order
}

func newNetwork(t *testing.T, public authority) *network {
	t.Helper()
	n := &network{dir: t.TempDir(), at: map[string]string{}, plain: map[string]bool{}}
	n.proxy = httptest.NewServer(http.HandlerFunc(n.pass))
	t.Cleanup(n.proxy.Close)
	n.trust = filepath.Join(n.dir, "trusted.pem")
	writeFile(t, n.trust, string(public.pem))
	return n
}

// environment is what a client has to be started with.
func (n *network) environment() []string {
	return append(environment(n.dir), "HTTP_PROXY="+n.proxy.URL, "HTTPS_PROXY="+n.proxy.URL,
		"SSL_CERT_FILE="+n.trust, "SSL_CERT_DIR="+filepath.Join(n.dir, "none"))
}

// secure has a registry at a name with a port, which shows a certificate.
func (n *network) secure(t *testing.T, from authority, name string) {
	t.Helper()
	server := httptest.NewUnstartedServer(n.registry("https", name))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{shown(t, from, name)}}
	server.Config.ErrorLog = quiet()
	server.StartTLS()
	t.Cleanup(server.Close)
	n.at[name] = server.Listener.Addr().String()
}

func (n *network) open(name string) { n.plain[name] = true }

// loopback is a registry of this machine: no proxy is asked for these.
func (n *network) loopback(t *testing.T, from authority) (address string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	address = server.Listener.Addr().String()
	server.Config.ErrorLog = quiet()
	t.Cleanup(server.Close)
	if from.key == nil {
		server.Config.Handler = n.registry("http", address)
		server.Start()
		return address
	}
	server.Config.Handler = n.registry("https", address)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{shown(t, from, address)}}
	server.StartTLS()
	return address
}

// registry answers that it has nothing.
func (n *network) registry(scheme, name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			return // a client that first asks whether this is a registry
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			u := url.URL{Scheme: scheme, Host: strings.TrimSuffix(name, ":443"), Path: r.URL.Path, RawQuery: r.URL.RawQuery}
			n.mu.Lock()
			if len(n.asked) == 0 || n.asked[len(n.asked)-1] != u.String() { // HEAD, and then GET
				n.asked = append(n.asked, u.String())
			}
			n.mu.Unlock()
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"nothing is here"}]}`) // a client that left has its own error
	})
}

// take returns what has been asked since it was called last.
func (n *network) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// pass is the proxy. What is not in this world can't be reached.
func (n *network) pass(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		host := r.URL.Host
		if r.URL.Port() == "" {
			host += ":80"
		}
		if !n.plain[host] {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		n.registry("http", strings.TrimSuffix(host, ":80")).ServeHTTP(w, r)
		return
	}
	at, ok := n.at[r.Host]
	if !ok {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	there, err := net.Dial("tcp", at)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		here.Close()
		there.Close()
		return
	}
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, here) // either end may go when it likes
	}()
	go func() {
		defer here.Close()
		_, _ = io.Copy(here, there)
	}()
}

// shown is the certificate of a host with a port.
func shown(t *testing.T, from authority, name string) tls.Certificate {
	t.Helper()
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		t.Fatal(err)
	}
	made := from.issue(t, host)
	pair, err := tls.X509KeyPair(made.chain, made.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// filesIn are all files below a folder, by their paths below it.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, path)
		files[below] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// quiet has a server say nothing of clients that do not believe its certificate.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
