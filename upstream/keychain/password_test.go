package keychain

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNobodyIsToldWhereAPasswordIs (13.10): clients see the error, and only the
// log has the path.
func TestNobodyIsToldWhereAPasswordIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	var log bytes.Buffer
	s := PasswordFile("someone", file, slog.New(slog.NewTextHandler(&log, nil)))
	_, err := s.Credentials(t.Context(), "app")
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), file) {
		t.Errorf("clients are told %q", err)
	}
	if !strings.Contains(log.String(), file) {
		t.Errorf("the log says %q", log.String())
	}
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Credentials(t.Context(), "app"); err != nil || c.Username != "someone" || c.Password != "secret" {
		t.Errorf("once it is there: %q, %v", c.Username, err)
	}
}
