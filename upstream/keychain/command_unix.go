//go:build unix

package keychain

import (
	"os/exec"
	"syscall"
)

// killWithChildren makes a program the first of a process group, which is
// killed as a whole: many helpers are scripts.
func killWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
