package hosts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
)

// Machine is where the files are written: the user, and the programs that run
// there.
type Machine struct {
	// Root is put before every system path. It is empty except in tests.
	Root string
	// Rootless says that the user is not root. A rootless runtime reads files
	// below Config, the user's configuration folder.
	Rootless     bool
	Home, Config string
	// ConfigSet says that Config comes from XDG_CONFIG_HOME. Some programs
	// ignore that variable and use the default.
	ConfigSet bool
	// Output runs a program and returns its standard output and standard error.
	// It returns ErrNotInstalled if there is no such program.
	Output func(ctx context.Context, program string, args ...string) (string, error)
	// Running returns the arguments of each process of a program, as far as the
	// system provides them.
	Running func(program string) [][]string
}

// ErrNotInstalled means that the machine does not have the program.
var ErrNotInstalled = errors.New("is not installed")

// ThisMachine returns the machine that the program runs on.
func ThisMachine() Machine {
	m := Machine{Rootless: os.Geteuid() > 0, Output: runProgram, Running: runningAs}
	m.Home, _ = os.UserHomeDir()
	if m.Home == "" {
		if u, err := user.Current(); err == nil {
			m.Home = u.HomeDir
		}
	}
	// Runtimes use XDG's folder on every system.
	m.Config = os.Getenv("XDG_CONFIG_HOME")
	if m.ConfigSet = m.Config != ""; !m.ConfigSet {
		m.Config = filepath.Join(m.Home, ".config")
	}
	return m
}

// System returns a path of the system.
func (m Machine) System(path string) string { return filepath.Join(m.Root, filepath.FromSlash(path)) }

// Own returns the system's path for root, and a path below the user's
// configuration folder for other users.
func (m Machine) Own(system, user string) string {
	if m.Rootless {
		return filepath.Join(m.Config, filepath.FromSlash(user))
	}
	return m.System(system)
}

// runningAs reads /proc on Linux. Other systems do not have it.
func runningAs(program string) [][]string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var all [][]string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		if words := strings.Split(string(content), "\x00"); filepath.Base(words[0]) == program {
			all = append(all, words[1:])
		}
	}
	return all
}

func runProgram(ctx context.Context, program string, args ...string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", ErrNotInstalled
	}
	output, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}
