package e2e

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// leadByNames configures the mirror with an upstream for each cell, of which it
// alone knows the address, and returns the certificate of them all.
func (m *mirror) leadByNames(t *testing.T, n *weatherNet, all []*cell) tls.Certificate {
	t.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, "listen: %s\nadmin: %s\ncache: {dir: %q}\nfreshness: {tag_ttl: %s}\nupstreams:\n", m.address, m.admin, filepath.Join(m.dir, "cache"), time.Hour)
	var names []string
	for _, c := range all {
		if err := n.add(c.name, c.address()); err != nil {
			t.Fatal(err)
		}
		names = append(names, c.name)
		fmt.Fprintf(&config, "  - {name: %s, endpoints: [\"https://%[1]s\"]}\n", c.name)
	}
	writeFile(t, m.config(), config.String())
	authority := newAuthority(t, "weather")
	trusted := filepath.Join(m.dir, "trusted.pem")
	writeFile(t, trusted, string(authority.pem))
	m.env = append(m.env, "SSL_CERT_FILE="+trusted)
	m.names = n.names.Name()
	issued := authority.issue(t, names...)
	pair, err := tls.X509KeyPair(issued.chain, issued.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// newSlowLine lets slowRate pass.
func newSlowLine() *rate.Limiter { return rate.NewLimiter(slowRate, chunkSize) }
