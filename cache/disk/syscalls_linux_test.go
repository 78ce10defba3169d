package disk

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

const callsFolder = "ENTREPOT_TEST_CALLS_FOLDER"

// TestAnAppendIsOneSystemCall counts the reads and writes that the kernel saw of
// a process that does nothing but write a draft.
func TestAnAppendIsOneSystemCall(t *testing.T) {
	for _, how := range []string{"appended", "appended to pieces"} {
		child := exec.Command(os.Args[0], "-test.run=^TestAnAppendIsOneSystemCallChild$")
		child.Env = append(os.Environ(), callsFolder+"="+t.TempDir(), "HOW="+how)
		out, err := child.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("reads 0 writes 100\n")) {
			t.Errorf("%s: %v, %s, want no read and 100 writes", how, err, out)
		}
	}
}

// TestAnAppendIsOneSystemCallChild is that process.
func TestAnAppendIsOneSystemCallChild(t *testing.T) {
	dir := os.Getenv(callsFolder)
	if dir == "" {
		return // run by itself, other tests are beside it
	}
	b := open(t, dir, Options{}).blobs
	content := pattern("content", large)
	draft := create(t, b, descriptor("content", large))
	if os.Getenv("HOW") != "appended" {
		writeAt(t, draft, content[2_000_000:], 2_000_000)
	}
	if err := draft.Reserve(); err != nil {
		t.Fatal(err)
	}
	readsBefore, writesBefore := systemCalls(t)
	for i := range 100 {
		if _, err := draft.Write(content[i*10_000 : (i+1)*10_000]); err != nil {
			t.Fatal(err)
		}
		if n := draft.Check(0, 1); n != 1 {
			t.Errorf("Check = %d", n)
		}
		draft.Pieces()
	}
	reads, writes := systemCalls(t)
	perCount, _ := systemCalls(t) // what counting itself reads
	fmt.Printf("reads %d writes %d\n", reads-readsBefore-(perCount-reads), writes-writesBefore)
	if err := draft.Close(); err != nil {
		t.Error(err)
	}
}

// systemCalls is how many times this process read and wrote.
func systemCalls(t *testing.T) (reads, writes int) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("the kernel does not count: ", err)
	}
	_, after, _ := bytes.Cut(raw, []byte("syscr:"))
	if _, err := fmt.Sscanf(string(after), "%d\nsyscw: %d", &reads, &writes); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return reads, writes
}
