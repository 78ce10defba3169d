//go:build !unix

package keychain

import "os/exec"

// killWithChildren does nothing: the program alone is killed.
func killWithChildren(*exec.Cmd) {}
