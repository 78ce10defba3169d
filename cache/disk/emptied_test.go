package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// TestAnEmptiedFolderIsMadeAgain removes a part of a folder, or all of it, while
// it is in use. What comes afterwards is kept, and is there after a restart.
func TestAnEmptiedFolderIsMadeAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files that are open can't be removed")
	}
	for name, removed := range map[string][]string{
		"what is in it": nil, // filled in below
		"the folder":    {"."},
		"the drafts":    {"drafts"},
		"the blobs":     {"blobs"},
		"the database":  {"records.db"},
		"the records":   {"records.db", "records.journal"},
		"the journal":   {"records.journal"},
		"the lock":      {"lock", "drafts"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			var log bytes.Buffer
			opts := Options{Journal: []cache.Bucket{"durable"}, Log: slog.New(slog.NewTextHandler(&log, nil))}
			c := open(t, dir, opts)
			publish(t, c.Blobs(), "before", 1000)
			c.Records().Put("durable", "before", []byte("1"))
			c.Records().Put("other", "before", []byte("1"))
			flush(t, c)
			if removed == nil {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, entry := range entries {
					removed = append(removed, entry.Name())
				}
			}
			for _, name := range removed {
				if err := os.RemoveAll(filepath.Join(dir, name)); name != "." && err != nil {
					t.Fatal(err)
				}
			}
			if removed[0] == "." {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			after := publish(t, c.Blobs(), "after", large)
			c.Records().Put("durable", "after", []byte("2"))
			c.Records().Put("other", "after", []byte("2"))
			flush(t, c)
			if n := strings.Count(log.String(), "was emptied"); n > 1 || n == 0 && !strings.Contains(strings.Join(removed, " "), "records") {
				t.Errorf("%d lines say that the folder was emptied:\n%s", n, &log)
			}
			if _, err := Open(dir, Options{}); !errors.Is(err, cache.ErrLocked) {
				t.Errorf("a second process: %v, want ErrLocked", err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir, opts)
			if _, err := again.Blobs().Stat(t.Context(), after); err != nil {
				t.Errorf("after a restart: %v", err)
			}
			for _, bucket := range []cache.Bucket{"durable", "other"} {
				for _, key := range []string{"before", "after"} {
					if _, err := again.Records().Get(bucket, key); err != nil {
						t.Errorf("after a restart: %s/%s: %v", bucket, key, err)
					}
				}
			}
			if again.Rebuilt() {
				t.Error("the records were rebuilt")
			}
			for _, name := range []string{"records.journal", "records.db", "lock", "format"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
