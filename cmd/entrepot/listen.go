package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

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

// adminHosts returns the hosts under which the admin address answers: the
// configured ones, and the one that it listens on unless it listens on all.
func adminHosts(cfg config.Config) []string {
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
