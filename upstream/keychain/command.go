package keychain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	// maxHelperOutput is how many bytes a helper may write.
	maxHelperOutput = 64 << 10
	// maxHelperMessage is how many bytes of its messages are shown.
	maxHelperMessage = 1 << 10
)

// command is a helper program that runs once. It is killed with all that it has
// started when its context ends.
type command struct {
	cmd         *exec.Cmd
	out, errors bounded
}

func newCommand(ctx context.Context, name string, args []string) *command {
	c := &command{cmd: exec.CommandContext(ctx, name, args...), out: bounded{left: maxHelperOutput}, errors: bounded{left: maxHelperMessage, cut: true}}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errors
	c.cmd.WaitDelay = time.Second // for pipes that what it started holds open
	killWithChildren(c.cmd)
	return c
}

// Input implements client.Program.
func (c *command) Input(in io.Reader) { c.cmd.Stdin = in }

// Output implements client.Program.
func (c *command) Output() ([]byte, error) {
	err := c.cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well, and left something running
		err = nil
	}
	if message := strings.TrimSpace(c.errors.kept.String()); err != nil && message != "" {
		err = fmt.Errorf("%w: %s", err, message)
	}
	return c.out.kept.Bytes(), err
}

// bounded keeps the first bytes that are written to it. It has no ReadFrom,
// which would read everything.
type bounded struct {
	kept bytes.Buffer
	left int
	cut  bool // what is too much is dropped, and is no error
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.kept.Write(p[:n])
	if n < len(p) && !b.cut {
		return n, errors.New("it writes too much")
	}
	return len(p), nil
}
