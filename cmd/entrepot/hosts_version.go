package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// version is how far a runtime is. The zero value is one that nobody told.
type version struct{ major, minor int }

// latest stands for the minor version where only the major one is told.
const latest = -1

func (v version) told() bool { return v != version{} }

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && (v.minor == latest || v.minor >= minor)
}

const versionHelp = `What is made for containerd and Docker depends on their version, which --version tells. containerd from 2.2 and Docker
from 29.1 on ask a mirror for what refers to an image (signatures, attestations) only where its hosts.toml grants it
"referrers"; older ones ignore a whole hosts.toml that grants what they don't know.

  containerd --version 2.2   grants it; without a version it is not granted
  docker --version 29        certs.d/REGISTRY/hosts.toml, for every registry
  docker --version 28        daemon.json, for docker.io alone
  docker                     both with --write DIR, which suits every version: Docker before 29.1 ignores these hosts.toml,
                             and later ones take them before daemon.json. What is printed is daemon.json alone`

// toldVersion is the version of the runtime that a flag tells, if any does.
func toldVersion(cmd *cobra.Command, runtime runtimeConfig, told string) (version, error) {
	flag := "--version"
	if cmd.Flags().Changed("containerd-version") {
		if cmd.Flags().Changed("version") {
			return version{}, usageError("--containerd-version is the same as --version: give one of them")
		}
		if runtime.name != "containerd" {
			return version{}, usageError("--containerd-version is for containerd only")
		}
		flag = "--containerd-version"
	}
	if told == "" {
		return version{}, nil
	}
	if runtime.parse == nil {
		return version{}, usageError(flag + " is for containerd and docker only")
	}
	v, err := runtime.parse(told)
	if err != nil {
		return version{}, usageError(fmt.Sprintf("%s %q %v", flag, told, err))
	}
	return v, nil
}

// parseVersion reads "2.2.1", "v2.2.0-rc.1" or, where that says enough, "29".
func parseVersion(told string) (version, bool) {
	parts := strings.SplitN(strings.TrimPrefix(told, "v"), ".", 3)
	major, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil || major == 0 {
		return version{}, false
	}
	if len(parts) == 1 {
		return version{major: int(major), minor: latest}, true
	}
	minor, err := strconv.ParseUint(parts[1], 10, 16)
	return version{major: int(major), minor: int(minor)}, err == nil
}
