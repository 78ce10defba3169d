package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs beside the tests, its output in a file.
type process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of its end; to be read after ended
}

// startProcess starts a program in the environment env. It is stopped at the
// end of the test, and its log is shown if the test failed.
func startProcess(t *testing.T, dir string, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(program), ended: make(chan struct{})}
	out, err := os.CreateTemp(dir, p.name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.log = out.Name()
	p.cmd = exec.Command(program, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	// A suite that is killed or runs out of time takes its daemons with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.end(t, syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the end of %s:\n%s", p.log, tail(p.log, 8<<10))
		}
	})
	return p
}

// end sends a signal and waits for the end, which it forces after 20 s.
func (p *process) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	select {
	case <-p.ended:
		return
	default:
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Errorf("signal %s: %v", p.name, err)
	}
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Errorf("%s did not end within 20 s of %s", p.name, signal)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Errorf("kill %s: %v", p.name, err)
		}
		<-p.ended
	}
}

// waitReady asks until ready returns no error, for at most 30 s.
func (p *process) waitReady(t *testing.T, ready func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.err, tail(p.log, 8<<10))
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after 30 s: %v\n%s", p.name, err, tail(p.log, 8<<10))
		}
	}
}

// command runs a program to its end, which has to be a success within three
// minutes, and returns what it wrote to standard output.
func command(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(t.Context(), "", env, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

func try(ctx context.Context, dir string, env []string, program string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return tryLong(ctx, dir, env, program, args...)
}

// tryLong is try without its limit.
func tryLong(ctx context.Context, dir string, env []string, program string, args ...string) (stdout, stderr string, err error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &problems
	// Daemons that a client leaves behind must not hold up the wait for it.
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	return out.String(), problems.String(), err
}

// environment is what a client of its own home sees: nothing of the machine's
// configuration but its system programs, after those in the folders first.
func environment(home string, first ...string) []string {
	path := append(first, "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	return []string{
		"HOME=" + home,
		"TMPDIR=" + home,
		"XDG_RUNTIME_DIR=" + home,
		"PATH=" + strings.Join(path, ":"),
	}
}

// portsFrom lies below the ports that Linux gives to outgoing connections, so
// that a port that is free now is still free after a restart. Suites that run
// beside each other need ports of their own: ENTREPOT_E2E_PORTS is the first.
func portsFrom(t *testing.T) int {
	t.Helper()
	text := os.Getenv("ENTREPOT_E2E_PORTS")
	if text == "" {
		return 21000
	}
	first, err := strconv.Atoi(text)
	if err != nil || first < 1024 || first > 31000 {
		t.Fatalf("ENTREPOT_E2E_PORTS=%s is not a port from 1024 to 31000", text)
	}
	return first
}

// freePort is a loopback port that nothing listens on and that no other call
// returns.
func (s *suite) freePort(t *testing.T) int {
	t.Helper()
	for {
		port := int(s.ports.Add(1)) + portsFrom(t)
		if port > 32000 {
			t.Fatal("no free port")
		}
		if isFree(port) {
			return port
		}
	}
}

// isFree listens for a moment. Nothing is forked meanwhile: until it runs its
// program, a child holds the listener too, and the port would be in use.
func isFree(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func tail(file string, n int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-n):])
}
