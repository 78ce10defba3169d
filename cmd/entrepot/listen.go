package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/admission"
)

// listen listens on the address that the flag sets. Its errors say what to do.
func listen(ctx context.Context, address, flag string) (net.Listener, error) {
	settings := net.ListenConfig{KeepAliveConfig: proxy.KeepAlive()}
	listener, err := settings.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, errInUse):
		return nil, fmt.Errorf("another program listens on %s: stop it, or choose another address with --%s", address, flag)
	case errors.Is(err, errNotPermitted):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port above 1023 with --%s", address, flag)
	case errors.Is(err, errAddressUnavailable):
		return nil, fmt.Errorf("%s is not an address of this machine: choose another with --%s", address, flag)
	}
	return nil, fmt.Errorf("listen on %s: %w", address, err)
}

// listenAdmin listens on the admin address, which may be that of a Unix socket.
func listenAdmin(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := config.Socket(address); ok {
		return listenSocket(ctx, path)
	}
	return listen(ctx, address, "admin")
}

// listenSocket makes a Unix socket, which is removed when the listener is
// closed. One that a dead process has left is replaced. Its errors say what to do.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	// Else two processes could both take it for left, and the second remove what
	// the first has made.
	unlock, err := lockFolder(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no folder %s for the admin socket: make it, or choose another path with --admin", filepath.Dir(path))
	}
	if err == nil {
		defer unlock()
	}
	is, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("the admin socket: %w", err)
	case is.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("%s is no socket: remove it, or choose another path with --admin", path)
	default:
		if err := removeDeadSocket(ctx, path); err != nil {
			return nil, err
		}
	}
	var listener net.Listener
	err = withSocketMode(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "unix", path)
		return err
	})
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("this user may not make %s: choose another path with --admin (%w)", path, err)
	}
	return nil, fmt.Errorf("listen on %s: %w", path, err)
}

// removeDeadSocket removes a socket on which nobody listens.
func removeDeadSocket(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	living, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		living.Close()
		return fmt.Errorf("another program listens on %s: stop it, or choose another path with --admin", path)
	case !errors.Is(err, errRefused):
		return fmt.Errorf("whether another program listens on %s can't be told: stop it, or choose another path with --admin (%w)", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace a socket on which nobody listens: %w", err)
	}
	return nil
}

// adminHosts returns the hosts under which the admin address answers: the
// configured ones, and the one that it listens on unless it listens on all.
func adminHosts(cfg config.Config) []string {
	if _, ok := config.Socket(cfg.Admin); ok {
		return cfg.AdminHosts
	}
	host, _, err := net.SplitHostPort(cfg.Admin)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return cfg.AdminHosts
	}
	return append([]string{host}, cfg.AdminHosts...)
}

// clientHosts returns the only hosts under which clients are answered, besides
// loopback; nil means that all are. A listener on loopback is meant for this
// machine alone. A web page whose name resolves to it must not read what the
// credentials can read.
func clientHosts(cfg config.Config, listen net.Addr) *admission.Hosts {
	if !config.IsLoopbackAddress(listen.String()) || !cfg.HasCredentials() {
		return nil
	}
	names := append([]string{cfg.Listen}, cfg.ClientHosts...)
	for _, u := range cfg.Upstreams {
		names = append(append(append(names, u.Name), u.Aliases...), u.Hosts...)
	}
	known := admission.NewHosts(names)
	return &known
}

// serveListener serves on l until the server is shut down.
func serveListener(s *http.Server, l net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}
