//go:build !windows

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/transfer"
)

// interruptedCache is interrupted, as by Ctrl-C, while it writes a bundle.
type interruptedCache struct{ admin.Cache }

func (interruptedCache) Create(ctx context.Context, _ transfer.CreateRequest, to io.Writer) error {
	if _, err := io.WriteString(to, "half"); err != nil {
		return err
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestABundleThatIsInterruptedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := newBundleCreate()
	cmd.SetContext(t.Context())
	cmd.SetOut(io.Discard)
	err := createBundle(cmd, interruptedCache{}, transfer.CreateRequest{}, filepath.Join(dir, "images.tar"))
	if err == nil || !strings.HasPrefix(err.Error(), "interrupted: ") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
