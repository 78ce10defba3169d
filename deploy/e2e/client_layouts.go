package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// layouts are clients that copy whole images into OCI image layouts.
type layouts struct {
	dir  string
	copy func(t *testing.T, img image, folder string)
}

func (l *layouts) folder(img image) string { return filepath.Join(l.dir, "layouts", img.registry) }

func (l *layouts) pull(t *testing.T, img image) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(l.folder(img)), 0o755); err != nil {
		t.Fatal(err)
	}
	l.copy(t, img, l.folder(img))
}

func (l *layouts) check(t *testing.T, img image) {
	t.Helper()
	checkLayout(t, l.folder(img), img)
}

func (l *layouts) forget(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(l.dir, "layouts")); err != nil {
		t.Fatal(err)
	}
}
