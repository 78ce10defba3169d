package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// certificate is that of the servers with TLS. A nil one is that of those
// without.
type certificate struct {
	certFile, keyFile string
	trusted           *x509.CertPool
}

func newCertificate(folder string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &certificate{filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"), x509.NewCertPool()}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.trusted.AppendCertsFromPEM(public)
	if err := os.WriteFile(c.certFile, public, 0o644); err != nil {
		return nil, err
	}
	return c, os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// entrepot are the lines of its configuration.
func (c *certificate) entrepot() string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("tls: {cert_file: %q, key_file: %q}\n", c.certFile, c.keyFile)
}

// nginx is what follows the address to listen on.
func (c *certificate) nginx() string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf(" ssl http2;\n    ssl_certificate %s;\n    ssl_certificate_key %s;\n    ssl_protocols TLSv1.2 TLSv1.3", c.certFile, c.keyFile)
}

// bare are the arguments of this program.
func (c *certificate) bare() []string {
	if c == nil {
		return nil
	}
	return []string{"-cert", c.certFile, "-key", c.keyFile}
}

// transport is that of a server's clients.
func (s *server) transport(clients int, http2 bool) *http.Transport {
	t := &http.Transport{MaxIdleConnsPerHost: clients, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetHTTP2(http2)
	if s.cert != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: s.cert.trusted, MinVersion: tls.VersionTLS12}
	}
	return t
}
