//go:build unix

package keychain

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// script puts a helper named "x" on the path.
func script(t *testing.T, lines string) {
	t.Helper()
	at := t.TempDir()
	write(t, filepath.Join(at, program("x")), "#!/bin/sh\n"+lines)
	if err := os.Chmod(filepath.Join(at, program("x")), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", at+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestTheProtocolOfHelpers(t *testing.T) {
	for _, c := range []struct {
		name, lines string
		want        upstream.Credentials
		fails       string
	}{
		{"a password", `[ "$1" = get ] && at=$(cat) && echo '{"ServerURL":"x","Username":"me","Secret":"for '$at'"}'`, upstream.Credentials{Username: "me", Password: "for quay.io"}, ""},
		{"a token", `echo '{"Username":"<token>","Secret":"it"}'`, upstream.Credentials{IdentityToken: "it"}, ""},
		{"nothing", `echo 'credentials not found in native keychain'; exit 1`, upstream.Credentials{}, ""},
		{"an error", `echo 'no session' >&2; exit 3`, upstream.Credentials{}, "no session"},
		{"no JSON", `echo sesame`, upstream.Credentials{}, `"x"`},
		{"too much", `yes`, upstream.Credentials{}, `"x"`},
		{"it leaves something running", `sleep 60 & echo '{"Username":"me","Secret":"s"}'`, upstream.Credentials{Username: "me", Password: "s"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			script(t, c.lines)
			got, err := runHelper(t.Context(), "x", "quay.io")
			if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestAHelperIsKilledWithWhatItHasStarted(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	script(t, "sleep 600 & echo $! > "+pid+".tmp; mv "+pid+".tmp "+pid+"; wait")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := runHelper(ctx, "x", "quay.io")
		done <- err
	}()
	var started []byte
	eventually(t, func() bool {
		started, _ = os.ReadFile(pid)
		return len(started) > 0
	})
	cancel(errSilent)
	if err := <-done; !errors.Is(err, errSilent) {
		t.Errorf("got %v", err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(started)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return syscall.Kill(child, 0) != nil || isZombie(child) })
}

func TestNoHelperOutlivesItsHelpers(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	script(t, "sleep 600 & echo $! >> "+pid+"; wait")
	h := NewHelpers()
	var waiting sync.WaitGroup
	for _, server := range []string{"quay.io", "ghcr.io"} { // the second waits for the first
		waiting.Go(func() {
			if _, err := h.login(context.Background(), entry{helper: "x", server: server}); !errors.Is(err, errClosed) {
				t.Errorf("%s: %v", server, err)
			}
		})
	}
	var child int
	eventually(t, func() bool {
		started, _ := os.ReadFile(pid)
		if !strings.HasSuffix(string(started), "\n") {
			return false
		}
		child, _ = strconv.Atoi(strings.TrimSpace(string(started)))
		return true
	})
	h.Close()
	eventually(t, func() bool { return syscall.Kill(child, 0) != nil || isZombie(child) })
	waiting.Wait()
	if _, err := h.login(t.Context(), entry{helper: "x", server: "docker.io"}); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
	if started, _ := os.ReadFile(pid); strings.Count(string(started), "\n") != 1 {
		t.Errorf("helpers were started: %q", started)
	}
}

// isZombie reports whether a process has ended and nobody has noticed: in a
// container nobody may.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(10 * time.Second); !is(); {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it does not happen")
		}
	}
}
