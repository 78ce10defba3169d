package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/entrepot/entrepot/config"
)

// listen opens the address that the flag sets. An error says what to do.
func listen(ctx context.Context, address, flag string) (net.Listener, error) {
	var settings net.ListenConfig
	listener, err := settings.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, errInUse):
		return nil, fmt.Errorf("another program listens on %s: stop it, or choose another address with --%s", address, flag)
	case errors.Is(err, errMayNotListen):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port above 1023 with --%s", address, flag)
	case errors.Is(err, errNoSuchAddress):
		return nil, fmt.Errorf("%s is no address of this machine: choose another with --%s", address, flag)
	}
	return nil, fmt.Errorf("listen on %s: %w", address, err)
}

// adminHosts are the hosts under which the admin address is asked: those that
// are configured, and the one that it listens on. Every address of the machine
// is none.
func adminHosts(cfg config.Config) []string {
	host, _, err := net.SplitHostPort(cfg.Admin)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return cfg.AdminHosts
	}
	return append([]string{host}, cfg.AdminHosts...)
}
