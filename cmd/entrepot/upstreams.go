package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"golang.org/x/net/publicsuffix"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
)

func clientUpstreams(cfg config.Config) []proxy.Upstream {
	var all []proxy.Upstream
	for _, u := range cfg.Upstreams {
		all = append(all, proxy.Upstream{Name: u.Name, Aliases: u.Aliases, Hosts: u.Hosts, Default: u.Default})
	}
	return all
}

func sameSite(host, upstreamName string) bool {
	own, _, err := net.SplitHostPort(upstreamName)
	if err != nil {
		own = upstreamName
	}
	if host == own {
		return true
	}
	a, errA := publicsuffix.EffectiveTLDPlusOne(host)
	b, errB := publicsuffix.EffectiveTLDPlusOne(own)
	return errA == nil && errB == nil && a == b
}

func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // nil means the system's
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca_file %s holds no certificate", file)
	}
	return pool, nil
}
