package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// raw sends bytes that no client of net/http would send.
func raw(t *testing.T, f *face, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go io.WriteString(conn, request) // the server may answer before all of it is sent
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestBadRequestsAreRefusedWithoutHarm(t *testing.T) {
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil))
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"a header of 64 KiB", "GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 400},
		{"a path of 64 KiB", "GET /v2/" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		{"a header of 2 MiB, which is not read", "GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 431},
		{"a body on GET", "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{}", 400},
		{"a body in chunks on GET", "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400},
		{"a body on HEAD", "HEAD /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{}", 400},
		{"an absolute URL", "GET http://169.254.169.254/v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		{"a tunnel", "CONNECT ghcr.io:443 HTTP/1.1\r\nHost: ghcr.io:443\r\n\r\n", 400},
		{"dots", "GET /v2/../../etc/passwd/manifests/1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		{"no host", "GET /v2/app/manifests/1 HTTP/1.1\r\n\r\n", 400},
		{"a body that is expected to be asked for", "PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			if resp := raw(t, f, c.request); resp.StatusCode != c.status {
				t.Errorf("%s, want %d", resp.Status, c.status)
			}
			if got := f.do(http.MethodGet, "/v2/app/manifests/1"); got.status != http.StatusOK {
				t.Errorf("the next request: %d, %v", got.status, got.cut)
			}
		})
	}
}

// certify writes a certificate that signs itself, and its key.
func certify(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// age sets the time at which both files were changed.
func age(t *testing.T, dir string, at time.Time) {
	t.Helper()
	for _, file := range []string{"tls.crt", "tls.key"} {
		if err := os.Chtimes(filepath.Join(dir, file), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAnewWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	certify(t, dir, "first.test")
	age(t, dir, at)
	synctest.Test(t, func(t *testing.T) {
		config, err := TLS(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), quiet())
		if err != nil {
			t.Fatal(err)
		}
		served := func() string {
			t.Helper()
			pair, err := config.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			return pair.Leaf.DNSNames[0]
		}
		certify(t, dir, "second.test")
		age(t, dir, at.Add(time.Hour))
		if got := served(); got != "first.test" {
			t.Errorf("at once: %s", got)
		}
		time.Sleep(checkInterval) // of the bubble's clock
		if got := served(); got != "second.test" {
			t.Errorf("after a while: %s", got)
		}
		if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("half a renewal"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkInterval)
		if got := served(); got != "second.test" {
			t.Errorf("after half a renewal: %s", got)
		}
		certify(t, dir, "third.test")
		age(t, dir, at.Add(2*time.Hour))
		time.Sleep(checkInterval)
		if got := served(); got != "third.test" {
			t.Errorf("after the other half: %s", got)
		}
	})
}

func TestCertificateThatCannotBeReadIsNamed(t *testing.T) {
	_, err := TLS("/nowhere/tls.crt", "/nowhere/tls.key", quiet())
	if err == nil || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("%v", err)
	}
}

func TestHTTP2ComesWithTLS(t *testing.T) {
	dir := t.TempDir()
	certify(t, dir, "mirror.test")
	config, err := TLS(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	b := numbered(1 << 20)
	s := HTTPServer(New(Options{Puller: blobs(&content{bytes: b, path: onDisk(t, b)}), Upstreams: upstreamsForTests(), Logger: quiet()}), quiet())
	s.TLSConfig = config
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(listener, "", "") }()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer func() {
		transport.CloseIdleConnections()
		s.Close()
		<-done
	}()
	for header, want := range map[string]int{"": 200, "bytes=1000-": 206, "bytes=0-1,9-10": 206, "bytes=9999999-": 416,
		"bytes=0-1" + strings.Repeat(",", 100<<10): 206, "bytes=0-1" + strings.Repeat(",", maxBlobHeader): 400} {
		req, err := http.NewRequest(http.MethodGet, "https://"+listener.Addr().String()+blobPath(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", header)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != want || int64(len(got)) != resp.ContentLength {
			t.Errorf("%.20s: %s %d with %d of %d bytes, %v", header, resp.Proto, resp.StatusCode, len(got), resp.ContentLength, err)
		}
	}
}
