package main

import (
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/entrepot/entrepot/cmd/entrepot/hosts"
	"github.com/entrepot/entrepot/config"
)

// announce prints at the start what listens where, and an example of a pull.
// The addresses are the actual ones, even if the configured port is 0.
func announce(w io.Writer, cfg config.Config, listen, admin net.Addr) error {
	reachable := dialable(listen.String())
	scheme := "http"
	if cfg.TLS.CertFile != "" {
		scheme = "https"
	}
	var names []string
	for _, u := range cfg.Upstreams {
		name := u.Name
		if u.Default {
			name += " (default)"
		}
		names = append(names, name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "entrepot listens on %s://%s\n", scheme, listen)
	operators := "http://" + admin.String()
	if admin.Network() == "unix" {
		operators = "unix://" + admin.String()
	}
	fmt.Fprintf(&b, "  admin      %s (health, metrics, status)\n", operators)
	fmt.Fprintf(&b, "  cache      up to %s in %s\n", cfg.Cache.MaxSize, cfg.Cache.Dir)
	fmt.Fprintf(&b, "  upstreams  %s\n", strings.Join(wrapWords(names, 87), ",\n             "))
	if closed := offlineNames(cfg); len(closed) > 0 {
		fmt.Fprintf(&b, "  offline    %s\n", strings.Join(wrapWords(closed, 87), ",\n             "))
	}
	if exposure := cfg.Exposure(listen.String()); exposure != "" {
		fmt.Fprintf(&b, "\nWarning: %s.\n", exposure)
	}
	if commands := examplePulls(reachable, scheme, cfg.Upstreams); len(commands) > 0 {
		b.WriteString("\nTry a pull:\n  " + strings.Join(commands, "\n  ") + "\n")
	}
	b.WriteString("\nTo configure a runtime, run \"entrepot hosts RUNTIME\".\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// offlineNames returns the upstreams that are never contacted, if there are any.
func offlineNames(cfg config.Config) (names []string) {
	if cfg.Offline {
		return []string{"no upstream is contacted"}
	}
	for _, u := range cfg.Upstreams {
		if u.Offline {
			names = append(names, u.Name)
		}
	}
	if len(names) > 0 {
		names[len(names)-1] += ": never contacted"
	}
	return names
}

// wrapWords joins words with commas and breaks the result into lines of at most
// columns.
func wrapWords(words []string, columns int) (all []string) {
	for _, word := range words {
		if last := len(all) - 1; last >= 0 && len(all[last])+len(", ")+len(word) < columns {
			all[last] += ", " + word
		} else {
			all = append(all, word)
		}
	}
	return all
}

// dialable returns an address under which a client on this machine can reach a
// listener.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// examplePulls returns at most two commands. They pull small public images if
// an upstream is known to have one.
func examplePulls(address, scheme string, upstreams []config.Upstream) []string {
	known := map[string]string{
		"docker.io":       "docker.io/library/alpine:3",
		"quay.io":         "quay.io/prometheus/busybox:latest",
		"registry.k8s.io": "registry.k8s.io/pause:3.10",
		"ghcr.io":         "ghcr.io/stefanprodan/podinfo:latest",
	}
	insecure := ""
	if scheme == "http" {
		insecure = "--insecure "
	}
	var commands []string
	for _, u := range upstreams {
		image, ok := known[u.Name]
		if !ok || u.Offline {
			continue
		}
		if len(commands) == 0 && (scheme == "https" || hosts.IsLoopback(address)) {
			commands = append(commands, "docker pull "+address+"/"+image)
			continue
		}
		return append(commands, "crane manifest "+insecure+address+"/"+image)
	}
	for _, u := range upstreams {
		if prefix := hosts.PrefixOf(u); prefix != "" && len(commands) == 0 {
			commands = append(commands, "crane manifest "+insecure+address+"/"+prefix+"/REPOSITORY:TAG")
		}
	}
	return commands
}
