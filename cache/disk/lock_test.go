package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func TestOpenFolder(t *testing.T) {
	t.Run("a folder that is not there is made, for this user alone", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		open(t, dir, Options{})
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v, want a folder of mode 0700", info, err)
		}
		if version, err := os.ReadFile(filepath.Join(dir, "format")); string(version) != "1\n" || err != nil {
			t.Errorf("format is %q, %v", version, err)
		}
	})
	t.Run("a second owner learns who has it and what to do", func(t *testing.T) {
		dir := t.TempDir()
		first := open(t, dir, Options{})
		_, err := Open(dir, Options{})
		if !errors.Is(err, cache.ErrLocked) {
			t.Fatalf("Open: %v, want ErrLocked", err)
		}
		for _, word := range []string{dir, fmt.Sprintf("pid %d", os.Getpid()), "choose another folder"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the message %q lacks %q", err, word)
			}
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		open(t, dir, Options{})
	})
	t.Run("a newer format is refused with a way out", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir, Options{}).Close()
		for _, version := range []string{"2\n", "10", "002", "99999999999999999999999"} {
			writeFormat(t, dir, version)
			_, err := Open(dir, Options{})
			wantMessage(t, err, dir, fmt.Sprintf("%.20q", strings.TrimSpace(version)), "choose another folder")
		}
	})
	t.Run("a format file that says nothing leaves the folder to speak for itself", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{})
		d := publish(t, c.Blobs(), "content", 10)
		for _, version := range []string{"", "\n", "0", "-2", "1.1", "2 or so", "\x00\x00\x00", strings.Repeat("9\x00", 1<<20)} {
			c.Close()
			writeFormat(t, dir, version)
			c = open(t, dir, Options{})
			if _, err := c.Blobs().Stat(t.Context(), d); err != nil {
				t.Errorf("after a format file with %.20q: %v", version, err)
			}
			if now, err := os.ReadFile(filepath.Join(dir, "format")); string(now) != "1\n" || err != nil {
				t.Errorf("after %.20q the format file says %q, %v", version, now, err)
			}
		}
	})
	t.Run("a folder of someone else is refused, whatever its format file says", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"", "A4"} {
			writeFormat(t, dir, version)
			_, err := Open(dir, Options{})
			wantMessage(t, err, dir, "letter.txt", "choose an empty folder")
		}
	})
	t.Run("a folder with a format file that was lost is opened", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{})
		d := publish(t, c.Blobs(), "content", 10)
		c.Close()
		if err := os.Remove(filepath.Join(dir, "format")); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, dir, Options{}).Blobs().Stat(t.Context(), d); err != nil {
			t.Error(err)
		}
	})
	t.Run("a folder of someone else is refused, and its drafts are left alone", func(t *testing.T) {
		dir := t.TempDir()
		novel := filepath.Join(dir, "drafts", "novel.txt")
		err := errors.Join(
			os.Mkdir(filepath.Dir(novel), 0o700),
			os.WriteFile(novel, []byte("It was a dark"), 0o600),
			os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600),
		)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(dir, Options{})
		wantMessage(t, err, dir, "letter.txt", "choose an empty folder")
		if _, err := os.Stat(novel); err != nil {
			t.Errorf("the draft is gone: %v", err)
		}
	})
	t.Run("a path that can't be a folder is one clear sentence", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{file, filepath.Join(file, "below")} {
			_, err := Open(dir, Options{})
			wantMessage(t, err, "the cache folder "+dir+" can't be created: not a directory", "choose another")
		}
	})
	t.Run("a folder that can't be written is one clear sentence", func(t *testing.T) {
		// Permissions would not stop a test that root runs; a folder that
		// stands where the lock should does.
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "lock"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, Options{})
		wantMessage(t, err, "the cache folder "+dir+" can't be written: is a directory", "choose another")
	})
	t.Run("drafts of an earlier run are dropped, and nothing else", func(t *testing.T) {
		dir := t.TempDir()
		c := open(t, dir, Options{})
		d := publish(t, c.Blobs(), "content", 10)
		c.Close()
		for _, name := range []string{"drafts/abc-1", "drafts/abc-2", "drafts/abc-2.map", "drafts/abc-3.map", "drafts/.map", "damaged"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c = open(t, dir, Options{})
		if left := list(t, filepath.Join(dir, "drafts")); len(left) != 0 {
			t.Errorf("drafts holds %q", left)
		}
		if _, err := os.Stat(filepath.Join(dir, "damaged")); err != nil {
			t.Error(err)
		}
		if _, err := c.Blobs().Stat(t.Context(), d); err != nil {
			t.Error(err)
		}
	})
}

func writeFormat(t *testing.T, dir, version string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte(version), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantMessage(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the message is longer than a line: %q", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the message %q lacks %q", err, word)
		}
	}
}
