package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// dockerFiles makes a daemon.json. Docker's registry-mirrors stand for
// docker.io alone, and its older image store does not say so in its requests:
// entrepot has to take them for docker.io's.
func dockerFiles(m mirrors) ([]configFile, error) {
	mirror, err := m.dockerMirror()
	if err != nil {
		return nil, err
	}
	daemon := struct {
		Mirrors  []string `json:"registry-mirrors"`
		Insecure []string `json:"insecure-registries,omitempty"`
	}{Mirrors: []string{mirror.String()}}
	// Docker believes in plain HTTP only on loopback, or where it is told to.
	if m.plainHTTP() {
		for _, host := range []string{mirror.Host, m.address.Host} {
			if !isLoopback(host) && (len(daemon.Insecure) == 0 || daemon.Insecure[0] != host) {
				daemon.Insecure = append(daemon.Insecure, host)
			}
		}
	}
	content, err := json.MarshalIndent(daemon, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write daemon.json: %w", err)
	}
	return []configFile{{dir: "/etc/docker", path: "daemon.json", content: string(content) + "\n"}}, nil
}

// dockerMirror is the URL under which requests without a registry's name are
// for docker.io.
func (m mirrors) dockerMirror() (*url.URL, error) {
	for _, u := range m.upstreams {
		if u.Name != "docker.io" {
			continue
		}
		if u.Default {
			return m.address, nil
		}
		if host := m.virtualHost(u); host != "" {
			return &url.URL{Scheme: m.address.Scheme, Host: host}, nil
		}
		return nil, errors.New("docker mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts")
	}
	return nil, errors.New("docker mirrors docker.io only, which is not among the upstreams")
}
