package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// checkInterval is how often the files of a certificate are checked for
// changes, at most.
const checkInterval = 5 * time.Second

// certificate is loaded again when its files change, so that renewing it needs
// no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu        sync.Mutex
	pair      *tls.Certificate
	modTimes  [2]time.Time
	checkedAt time.Time
}

// TLS returns a configuration that serves the certificate in two PEM files and
// reloads it when they change.
func TLS(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, checkedAt: time.Now()}
	if err := c.load(c.readModTimes()); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}, nil
}

// load reads the files. Their modification times must have been read before, so
// that a change in between is noticed next time.
func (c *certificate) load(times [2]time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair, c.modTimes = &pair, times
	return nil
}

func (c *certificate) readModTimes() (at [2]time.Time) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			at[i] = info.ModTime()
		}
	}
	return at
}

func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checkedAt) < checkInterval {
		return c.pair
	}
	c.checkedAt = time.Now()
	times := c.readModTimes()
	if times == c.modTimes {
		return c.pair
	}
	if err := c.load(times); err != nil {
		// The old certificate may still be valid, and a renewal that is half
		// done never is.
		c.log.Error("certificate was not reloaded", "error", err)
	} else {
		c.log.Info("certificate reloaded", "file", c.certFile)
	}
	return c.pair
}
