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
	"strconv"
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
	checkKeptAfterCrash(t, c.blobs)
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
		if kind == "blob" || kind == "kept" || kind == "saved" {
			_, err := c.Blobs().Stat(t.Context(), digest.Digest(name))
			if _, kept := c.Blobs().Kept(digest.Digest(name)); err != nil && (!kept || kind == "blob") {
				t.Errorf("%s before the kill: %v, kept %t", kind, err, kept)
			}
			continue
		}
		wantRecord(t, c, cache.Bucket(kind), name, "value of "+name)
	}
}

// checkKeptAfterCrash resumes every draft that was kept, holds it against the
// content that its note names, and keeps it again for the next process.
func checkKeptAfterCrash(t *testing.T, b *blobs) {
	t.Helper()
	all := b.AllKept()
	if left := list(t, b.drafts); len(left) != 2*len(all) {
		t.Errorf("%d drafts are kept in the files %q", len(all), left)
	}
	for _, kept := range all {
		draft, _, err := b.Resume(t.Context(), kept.Digest)
		if err != nil {
			t.Errorf("Resume: %v", err)
			continue
		}
		content := crashContent(string(kept.Note))
		pieces := draft.Pieces()
		for _, s := range pieces {
			got := make([]byte, s.Len())
			if n := draft.Check(s.From, s.Len()); n != s.Len() {
				t.Errorf("Check of %v of %s = %d", s, kept.Digest, n)
			}
			if _, err := draft.ReadAt(got, s.From); err != nil || !bytes.Equal(got, content[s.From:s.To]) {
				t.Errorf("%v of %s: other bytes, or %v", s, kept.Digest, err)
			}
		}
		if pieces.Len() != kept.Bytes {
			t.Errorf("%d bytes of %s are %d", kept.Bytes, kept.Digest, pieces.Len())
		}
		if err := errors.Join(draft.Keep(kept.Note), draft.Close()); err != nil {
			t.Error(err)
		}
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
		err := writeForCrash(c, name)
		if err == nil {
			err = writePiecesForCrash(c, "pieces-"+name, i)
		}
		if err == nil {
			err = resumeForCrash(c)
		}
		if err == nil {
			err = recordsForCrash(c, name, i)
		}
		if err != nil {
			fmt.Println("failed:", err)
			return
		}
	}
}

// crashContent is the content of a name. Its length depends on the number that
// the name ends with.
func crashContent(name string) []byte {
	i, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	return bytes.Repeat([]byte(name), 1+i%7*20_000)
}

func createForCrash(c *Cache, name string) (cache.Draft, []byte, cache.Digest, error) {
	content := crashContent(name)
	d := digest.FromBytes(content)
	draft, err := c.Blobs().Create(context.Background(), cache.Descriptor{Digest: d, Size: int64(len(content))})
	return draft, content, d, err
}

func writeForCrash(c *Cache, name string) error {
	draft, content, d, err := createForCrash(c, name)
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
	return commitForCrash(draft, d)
}

func commitForCrash(draft cache.Draft, d cache.Digest) error {
	if err := draft.Commit(); err != nil {
		return err
	}
	fmt.Println("blob", d)
	return nil
}

// writePiecesForCrash writes three of four parts, saves them now and then, and
// keeps them.
func writePiecesForCrash(c *Cache, name string, i int) error {
	draft, content, d, err := createForCrash(c, name)
	if err != nil {
		return err
	}
	defer draft.Close()
	fmt.Println("begin", d)
	quarter := (len(content) + 3) / 4
	for part := range 3 {
		from := (part + i) % 4 * quarter
		from = min(from, len(content))
		if _, err := draft.WriteAt(content[from:min(from+quarter, len(content))], int64(from)); err != nil {
			return err
		}
		if _, err := draft.Advance(quarter / 2); err != nil {
			return err
		}
		if part == i%3 {
			if err := draft.Save([]byte(name)); err != nil {
				return err
			}
			fmt.Println("saved", d)
		}
	}
	if err := draft.Keep([]byte(name)); err != nil {
		return err
	}
	fmt.Println("kept", d)
	return nil
}

// resumeForCrash completes a draft that was kept, or keeps it again, if there
// are several.
func resumeForCrash(c *Cache) error {
	all := c.Blobs().AllKept()
	if len(all) < 3 {
		return nil
	}
	draft, kept, err := c.Blobs().Resume(context.Background(), all[0].Digest)
	if err != nil {
		return err
	}
	defer draft.Close()
	content := crashContent(string(kept.Note))
	if _, err := draft.WriteAt(content, 0); err != nil {
		return err
	}
	if len(all)%2 == 0 {
		return draft.Keep(kept.Note)
	}
	if _, err := draft.Advance(len(content)); err != nil {
		return err
	}
	return commitForCrash(draft, kept.Digest)
}

func recordsForCrash(c *Cache, name string, i int) error {
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
