package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

const (
	crashFolder = "ENTREPOT_TEST_CRASH_FOLDER"
	crashRound  = "ENTREPOT_TEST_CRASH_ROUND"
	kills       = 12
)

// TestCrash kills a process that writes, again and again at any instant, and
// looks each time at what is left.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "cache")
	acknowledged := make(map[string]string) // of what the child said is done: its kind
	inDraft := 0
	for round := range kills {
		line := killed(t, dir, round, random, acknowledged)
		if strings.HasPrefix(line, "begin") {
			inDraft++
		}
		c := open(t, dir, durable)
		checkAfterCrash(t, c, dir, acknowledged)
		if round%4 == 3 {
			// The database as well, now and then: what is durable survives that.
			if err := errors.Join(c.Close(), os.Remove(filepath.Join(dir, "records.db"))); err != nil {
				t.Fatal(err)
			}
			c = open(t, dir, durable)
			for name, kind := range acknowledged {
				if kind == "other" {
					delete(acknowledged, name)
				}
			}
			checkAfterCrash(t, c, dir, acknowledged)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d of them in mid-draft, %d things acknowledged and found", kills, inDraft, len(acknowledged))
	if len(acknowledged) < kills {
		t.Errorf("the killed processes did only %d things", len(acknowledged))
	}
}

// killed runs a child until it has said a random number of lines, and a random
// time after that kills it. It returns the last line.
func killed(t *testing.T, dir string, round int, random *rand.Rand, acknowledged map[string]string) (last string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	child.Env = append(os.Environ(), crashFolder+"="+dir, fmt.Sprintf("%s=%d", crashRound, round))
	said, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(30*time.Second, func() { child.Process.Kill() })
	defer deadline.Stop()
	lines := bufio.NewScanner(said)
	enough := 3 + random.IntN(60)
	after := time.Duration(random.IntN(10_000)) * time.Microsecond
	for n := 0; lines.Scan(); n++ {
		last = lines.Text()
		if words := strings.Fields(last); len(words) == 2 && words[0] != "begin" {
			acknowledged[words[1]] = words[0]
		}
		if n == enough {
			// What it says meanwhile is read to the end below.
			time.AfterFunc(after, func() { child.Process.Kill() })
		}
		if strings.HasPrefix(last, "failed") {
			t.Errorf("the child %s", last)
		}
	}
	if err := child.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return last
}

func checkAfterCrash(t *testing.T, c *Cache, dir string, acknowledged map[string]string) {
	t.Helper()
	if left := list(t, filepath.Join(dir, "drafts")); len(left) != 0 {
		t.Errorf("drafts are left: %q", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "damaged")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was quarantined: %v", err)
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "records.db.damaged-*"))
	if err != nil || len(damaged) > 0 {
		t.Errorf("databases were quarantined: %q, %v", damaged, err)
	}
	err = c.Blobs().Walk(t.Context(), func(d cache.Digest, size int64) bool {
		blob, err := c.Blobs().Open(t.Context(), d)
		if err != nil {
			t.Errorf("a published blob: %v", err)
			return true
		}
		defer blob.Close()
		proof := d.Verifier()
		if n, err := io.Copy(proof, blob); n != size || err != nil || !proof.Verified() {
			t.Errorf("%s: %d of %d bytes, %v, verified %t", d, n, size, err, proof.Verified())
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
	for name, kind := range acknowledged {
		if kind == "blob" {
			if _, err := c.Blobs().Stat(t.Context(), digest.Digest(name)); err != nil {
				t.Errorf("committed before the kill: %v", err)
			}
			continue
		}
		wantRecord(t, c, cache.Bucket(kind), name, "value of "+name)
	}
}

// TestCrashChild is the process that TestCrash kills.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashFolder)
	if dir == "" {
		return // run by itself, there is nothing to do
	}
	c, err := Open(dir, durable)
	if err != nil {
		fmt.Println("failed to open:", err)
		return
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-%d", os.Getenv(crashRound), i)
		if err := writeForCrash(c, name, i); err != nil {
			fmt.Println("failed:", err)
			return
		}
	}
}

func writeForCrash(c *Cache, name string, i int) error {
	content := bytes.Repeat([]byte(name), 1+i%7*20_000)
	d := digest.FromBytes(content)
	draft, err := c.Blobs().Create(context.Background(), cache.Descriptor{Digest: d, Size: int64(len(content))})
	if err != nil {
		return err
	}
	defer draft.Close()
	fmt.Println("begin", d)
	for rest := content; len(rest) > 0; rest = rest[min(10_000, len(rest)):] {
		if _, err := draft.Write(rest[:min(10_000, len(rest))]); err != nil {
			return err
		}
	}
	if err := draft.Commit(); err != nil {
		return err
	}
	fmt.Println("blob", d)
	for _, b := range []cache.Bucket{"durable", "other"} {
		c.Records().Put(b, name+"/"+string(b), []byte("value of "+name+"/"+string(b)))
	}
	if i%3 > 0 {
		return nil // left to be flushed in its time
	}
	if err := c.Records().Flush(context.Background()); err != nil {
		return err
	}
	fmt.Printf("durable %s/durable\nother %s/other\n", name, name)
	return nil
}
