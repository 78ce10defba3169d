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

// Machine is where the files are written: whose they are, and what runs there.
type Machine struct {
	// Root stands before every path of the system; it is empty but in tests.
	Root string
	// Rootless says that the user is not root: what a rootless runtime reads is
	// below Config, the user's own folder of configurations.
	Rootless     bool
	Home, Config string
	// ConfigTold says that Config is where XDG_CONFIG_HOME says, which is not
	// the same to everybody as the folder that it stands for.
	ConfigTold bool
	// Output runs a program and returns what it prints, of both kinds. It
	// returns ErrNotInstalled where there is no such program.
	Output func(ctx context.Context, program string, args ...string) (string, error)
	// Running returns the arguments of each process of a program, as far as the
	// system tells.
	Running func(program string) [][]string
}

// ErrNotInstalled means that the machine has no such program.
var ErrNotInstalled = errors.New("is not installed")

// ThisMachine is the one that the program runs on.
func ThisMachine() Machine {
	m := Machine{Rootless: os.Geteuid() > 0, Output: runProgram, Running: runningAs}
	m.Home, _ = os.UserHomeDir()
	if m.Home == "" {
		if u, err := user.Current(); err == nil {
			m.Home = u.HomeDir
		}
	}
	// What runtimes go by is XDG's folder, on every system.
	m.Config = os.Getenv("XDG_CONFIG_HOME")
	if m.ConfigTold = m.Config != ""; !m.ConfigTold {
		m.Config = filepath.Join(m.Home, ".config")
	}
	return m
}

// System is a path of the system.
func (m Machine) System(path string) string { return filepath.Join(m.Root, filepath.FromSlash(path)) }

// Own is the system's path for root, and one below the user's folder of
// configurations for anybody else.
func (m Machine) Own(system, user string) string {
	if m.Rootless {
		return filepath.Join(m.Config, filepath.FromSlash(user))
	}
	return m.System(system)
}

// runningAs asks Linux; elsewhere there is no such folder.
func runningAs(program string) [][]string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var all [][]string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
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
