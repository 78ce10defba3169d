package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func TestJournal(t *testing.T) {
	journalOf := func(dir string) string { return filepath.Join(dir, "records.journal") }
	rebuilt := func(t *testing.T, dir string) *Cache {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, "records.db")); err != nil {
			t.Fatal(err)
		}
		return open(t, dir, durable)
	}
	put := func(t *testing.T, dir string, keys ...string) {
		t.Helper()
		c := open(t, dir, durable)
		for _, key := range keys {
			c.Records().Put("durable", key, []byte("value of "+key))
			flush(t, c)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, c *Cache, keys ...string) {
		t.Helper()
		var got []string
		err := c.Records().Scan("durable", "", func(key string, value []byte) bool {
			if string(value) != "value of "+key {
				t.Errorf("%q = %q", key, value)
			}
			got = append(got, key)
			return true
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(keys) {
			t.Errorf("had back %q, %v, want %q", got, err, keys)
		}
	}

	t.Run("only durable records are in it", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, durable)
		c.Records().Put("durable", "a", []byte("value of a"))
		c.Records().Put("other", "b", []byte("value of b"))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = rebuilt(t, dir)
		want(t, c, "a")
		wantNoRecord(t, c, "other", "b")
	})
	t.Run("without durable buckets there is none", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{})
		c.Records().Put("durable", "a", nil)
		flush(t, c)
		if _, err := os.Stat(journalOf(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v, want no journal", err)
		}
	})
	t.Run("a torn tail is cut off, and what is written after it counts", func(t *testing.T) {
		for _, tail := range []string{"x", "5d2f1a09 put \"durable\" \"torn", strings.Repeat("\x00", 200_000)} {
			dir := t.TempDir()
			put(t, dir, "a", "b")
			sound, err := os.ReadFile(journalOf(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(journalOf(dir), append(bytes.Clone(sound), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			put(t, dir, "c")
			after, err := os.ReadFile(journalOf(dir))
			if err != nil || !bytes.HasPrefix(after, sound) || bytes.Contains(after, []byte(tail+"\n")) || len(after) > len(sound)+100 {
				t.Errorf("the tail %.20q was not cut off: %d bytes after %d, %v", tail, len(after), len(sound), err)
			}
			want(t, rebuilt(t, dir), "a", "b", "c")
		}
	})
	t.Run("a damaged line costs itself and no other", func(t *testing.T) {
		dir := t.TempDir()
		put(t, dir, "a", "b", "c")
		content, err := os.ReadFile(journalOf(dir))
		if err != nil {
			t.Fatal(err)
		}
		content[bytes.Index(content, []byte("value of b"))] ^= 1
		if err := os.WriteFile(journalOf(dir), content, 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, rebuilt(t, dir), "a", "c")
	})
	t.Run("a failed write does not tear it", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, durable)
		c.Records().Put("durable", "a", []byte("value of a"))
		flush(t, c)
		// Behind its back: the next write fails at the closed file.
		c.records.journal.file.Close()
		c.Records().Put("durable", "b", []byte("value of b"))
		if err := c.Records().Flush(t.Context()); err == nil {
			t.Error("Flush without a journal: no error")
		}
		flush(t, c)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		want(t, rebuilt(t, dir), "a", "b")
	})
	t.Run("is rewritten when it has grown, and only then", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, durable)
		large := bytes.Repeat([]byte("x"), rewriteBytes/8)
		size := func() int64 {
			info, err := os.Stat(journalOf(dir))
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		for i := range 2*pageLength + 1 {
			c.Records().Put("durable", fmt.Sprintf("kept %04d", i), fmt.Appendf(nil, "value %d", i))
		}
		c.Records().Put("durable", "gone", []byte("value of gone"))
		c.Records().Delete("durable", "gone")
		for range 7 {
			c.Records().Put("durable", "large", large)
			flush(t, c)
		}
		if size() < 7*rewriteBytes/8 {
			t.Errorf("%d bytes: it was rewritten too early", size())
		}
		for range 2 {
			c.Records().Put("durable", "large", large)
			flush(t, c)
		}
		if size() > 3*rewriteBytes/8 {
			t.Errorf("%d bytes: it was not rewritten", size())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}

		c = rebuilt(t, dir)
		for i := range 2*pageLength + 1 {
			wantRecord(t, c, "durable", fmt.Sprintf("kept %04d", i), fmt.Sprintf("value %d", i))
		}
		wantRecord(t, c, "durable", "large", string(large))
		wantNoRecord(t, c, "durable", "gone")
		if _, err := os.Stat(journalOf(dir) + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v, want no half of a journal", err)
		}
	})
	t.Run("one that is all alive is not rewritten again and again", func(t *testing.T) {
		dir := t.TempDir()
		j := newJournal(kernel{}, journalOf(dir), durable.Journal)
		if err := j.append(appendLine(nil, change{bucket: "durable", key: "a"})); err != nil {
			t.Fatal(err)
		}
		j.file.Close()
		live := header(rewriteBytes)
		if err := os.WriteFile(j.path, append(live, bytes.Repeat([]byte("\n"), rewriteFactor*rewriteBytes-len(live))...), 0o600); err != nil {
			t.Fatal(err)
		}
		j = newJournal(kernel{}, j.path, durable.Journal)
		if err := j.open(); err != nil {
			t.Fatal(err)
		}
		defer j.close()
		if j.rewrittenSize != rewriteBytes || j.needsRewrite() {
			t.Errorf("live is %d, grown %t before it has grown", j.rewrittenSize, j.needsRewrite())
		}
		j.size = rewriteFactor*rewriteBytes + 1
		if !j.needsRewrite() {
			t.Error("not grown at a multiple of what was alive")
		}
	})
}

func FuzzJournalLine(f *testing.F) {
	f.Add("tag", "docker.io\x00library/alpine\x003", []byte(`{"Digest":"sha256:…"}`), false)
	f.Add("", "", []byte{}, true)
	f.Add("a\nb", "\xff\xfe\"\\ ", []byte("\x00\n\r'`"), false)
	f.Fuzz(func(t *testing.T, bucket, key string, value []byte, deleted bool) {
		in := change{bucket: cache.Bucket(bucket), key: key, deleted: deleted}
		if !deleted {
			in.value = value
		}
		line := appendLine(nil, in)
		if bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("not one line: %q", line)
		}
		out, err := parseLine(line[:len(line)-1])
		if err != nil || out.bucket != in.bucket || out.key != key || out.deleted != deleted || !bytes.Equal(out.value, in.value) {
			t.Fatalf("%+v became %+v, %v through %q", in, out, err, line)
		}
	})
}

func FuzzReadJournal(f *testing.F) {
	sound := appendLine(header(0), change{bucket: "a", key: "k", value: []byte("v")})
	sound = appendLine(sound, change{bucket: "a", key: "k", deleted: true})
	f.Add(sound)
	f.Add(sound[:len(sound)-3])
	damaged := bytes.Replace(sound, []byte(`"v"`), []byte(`"w"`), 1)
	f.Add(damaged)
	f.Add([]byte("entrepot records journal 1 99999999999999999999\n\n\n"))
	f.Add([]byte("00000000 put \"a\" 'b' `c`\n"))
	f.Add(bytes.Repeat([]byte("\x00"), 100))
	f.Fuzz(func(t *testing.T, content []byte) {
		// What is in the file already never keeps what follows from being read.
		last := change{bucket: "bucket", key: "key", value: []byte("value")}
		if len(content) > 0 && content[len(content)-1] != '\n' {
			content = append(content, '\n')
		}
		var got change
		sound := 0
		damaged, err := readLines(bytes.NewReader(appendLine(content, last)), func(c change) bool {
			got = c
			sound++
			// What is damaged is not read, though it could be.
			if sum := appendLine(nil, c)[:8]; !bytes.Contains(appendLine(content, last), sum) {
				t.Fatalf("%+v is read, and no line has its checksum %s", c, sum)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if got.bucket != last.bucket || got.key != last.key || string(got.value) != "value" {
			t.Fatalf("the last line reads %+v", got)
		}
		if lines := bytes.Count(content, []byte("\n")) + 1; sound+damaged > lines || sound+damaged < lines-1 {
			t.Fatalf("%d sound and %d damaged of %d lines", sound, damaged, lines)
		}
	})
}
