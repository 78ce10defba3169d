#!/usr/bin/env bash
# github.com/containerd/containerd v1.7.28 and github.com/containerd/containerd/v2
# v2.3.0, the packages that read hosts.toml: a mirror with an IPv6 address can be
# written in no form that both read. TOML gives the same meaning to a table
# [host."http://[::1]:5000"] and to the dotted key
# host."http://[::1]:5000".capabilities.
#   - 1.7 (with github.com/pelletier/go-toml v1.9.5) logs that a table's key cannot
#     contain ']', and the whole file counts as absent: no error, no mirror.
#   - 2.x reads the table, and drops a host that is written with dotted keys,
#     without a word: it takes the order of hosts from the file's tables.
#
# Why a user cares: on a node with an IPv6 mirror every pull goes to the registry
# itself after an update from one to the other, and nothing says so to whoever
# pulls. A node pool with both versions needs two different files.
#
# Guessed before the run: 1.7 refuses the table; 2.x reads both.
# Seen (Go 1.26): 1.7: "table 1, dotted 2"; 2.3.0: "table 2, dotted 1" hosts to try
# for docker.io, where 1 is the registry alone.
#
# Needs Go. Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

hosts() { # module, its version, the package that reads hosts.toml
	mkdir "$folder/$2"
	cd "$folder/$2"
	cat >main.go <<GO
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"$3"
)

func hosts(text string) int {
	root, err := os.MkdirTemp(".", "certs.d")
	if err == nil {
		err = os.Mkdir(filepath.Join(root, "docker.io"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "docker.io", "hosts.toml"), []byte(text), 0o600)
	}
	if err != nil {
		panic(err)
	}
	hosts, err := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: config.HostDirFromRoot(root)})("docker.io")
	if err != nil {
		panic(err)
	}
	return len(hosts)
}

func main() {
	fmt.Printf("table %d, dotted %d\n",
		hosts("[host.\"http://[::1]:5000\"]\ncapabilities = [\"pull\"]\n"),
		hosts("host.\"http://[::1]:5000\".capabilities = [\"pull\"]\n"))
}
GO
	go mod init finding >/dev/null 2>&1
	go get "$1@$2" >/dev/null 2>&1
	go mod tidy >/dev/null 2>&1
	go run . 2>/dev/null
}

seen=$(
	hosts github.com/containerd/containerd v1.7.28 github.com/containerd/containerd/remotes/docker/config
	hosts github.com/containerd/containerd/v2 v2.3.0 github.com/containerd/containerd/v2/core/remotes/docker/config
)
printf '%s\n' "$seen"
want=$'table 1, dotted 2\ntable 2, dotted 1'
if [ "$seen" != "$want" ]; then
	echo "this has changed" >&2
	exit 1
fi
