package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// dockerFiles makes what a version of Docker reads.
//
// From 29 on it keeps its images in containerd's store, and takes a hosts.toml
// for every registry from its certs.d. 29.0 and 28 read these as well, but by
// a library that ignores a whole file that names "referrers" (W59), and then
// they go by daemon.json. Older ones look there for *.crt, *.cert and *.key
// alone. So both together suit every version, and where a hosts.toml names a
// mirror the registry-mirrors of daemon.json do not count.
func dockerFiles(m mirrors) ([]configFile, error) {
	var files []configFile
	if !m.version.atLeast(29, 0) {
		daemon, err := m.daemonJSON()
		if err != nil {
			return nil, err
		}
		files = append(files, daemon)
	}
	if !m.version.told() || m.version.atLeast(29, 0) {
		files = append(files, m.hostsTOML("docker", "/etc/docker", "certs.d/", !m.version.told() || m.version.atLeast(29, 1))...)
	}
	return files, nil
}

const dockerUntold = `without --version there are two forms: daemon.json, which every Docker reads, for docker.io alone; and from 29 on certs.d/REGISTRY/hosts.toml, for every registry and for signatures and attestations. --write DIR writes both, --version 29 is the second alone`

func dockerVersion(told string) (version, error) {
	v, ok := parseVersion(told)
	if !ok {
		return version{}, errors.New("is not a version such as 29")
	}
	return v, nil
}

// daemonJSON makes a daemon.json. Docker's registry-mirrors stand for
// docker.io alone, and its older image store does not say so in its requests:
// entrepot has to take them for docker.io's.
func (m mirrors) daemonJSON() (configFile, error) {
	mirror, err := m.dockerMirror()
	if err != nil {
		return configFile{}, err
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
		return configFile{}, fmt.Errorf("write daemon.json: %w", err)
	}
	return configFile{dir: "/etc/docker", path: "daemon.json", content: string(content) + "\n"}, nil
}

// dockerMirror is the URL under which requests without a registry's name are
// for docker.io.
func (m mirrors) dockerMirror() (*url.URL, error) {
	const newer = "; or tell --version 29 if it is that or later, which names every registry"
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
		return nil, errors.New("docker before 29 mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts" + newer)
	}
	return nil, errors.New("docker before 29 mirrors docker.io only, which is not among the upstreams" + newer)
}
