//go:build !windows

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

const limitFolder = "ENTREPOT_TEST_LIMIT_FOLDER"

// TestKernelRefuses has a real kernel cut a write short: a process may not
// make files as large as that, for which nobody needs to be root.
func TestKernelRefuses(t *testing.T) {
	child := exec.Command(os.Args[0], "-test.run=^TestKernelRefusesChild$", "-test.v")
	child.Env = append(os.Environ(), limitFolder+"="+t.TempDir())
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the limit was met") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestKernelRefusesChild is the process that TestKernelRefuses limits.
func TestKernelRefusesChild(t *testing.T) {
	dir := os.Getenv(limitFolder)
	if dir == "" {
		return // run by itself, it would limit all the other tests
	}
	c := open(t, dir, Options{})
	const limit = 1 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	content := pattern("content", 2<<20)
	draft := create(t, c.Blobs(), descriptor("content", 2<<20))
	n, err := draft.Write(content)
	if !errors.Is(err, cache.ErrFull) || n != limit || draft.Written() != limit {
		t.Fatalf("Write = %d, %v, Written = %d, want %d and ErrFull", n, err, draft.Written(), limit)
	}
	reader, err := draft.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if got, err := io.ReadAll(reader); string(got) != string(content[:limit]) || err != nil {
		t.Errorf("read %d bytes, %v, want what was written", len(got), err)
	}
	fmt.Println("the limit was met")
}
