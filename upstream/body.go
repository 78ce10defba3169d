package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// body reads a response's body and maps its errors: ErrTimeout if nothing
// arrives for too long, ErrUnavailable if it ends early.
type body struct {
	rc      io.ReadCloser
	cancel  context.CancelCauseFunc
	idle    *time.Timer
	timeout time.Duration
	rest    int64 // bytes left to read, negative if unknown
}

func newBody(rc io.ReadCloser, length int64, wait time.Duration, cancel context.CancelCauseFunc) *body {
	b := &body{rc: rc, cancel: cancel, rest: length, timeout: wait}
	b.idle = time.AfterFunc(wait, func() { cancel(ErrTimeout) })
	b.idle.Stop() // runs only during a Read
	return b
}

func (b *body) Read(p []byte) (int, error) {
	b.idle.Reset(b.timeout)
	n, err := b.rc.Read(p)
	timedOut := !b.idle.Stop()
	if b.rest >= 0 {
		b.rest -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && b.rest <= 0:
		return n, io.EOF
	case timedOut:
		return n, fmt.Errorf("%w: nothing of the body arrived for too long", ErrTimeout)
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%w: the body ended early", ErrUnavailable)
	}
	return n, fmt.Errorf("%w: the body was interrupted: %w", ErrUnavailable, cause(err))
}

func (b *body) Close() error {
	b.idle.Stop()
	err := b.rc.Close()
	b.cancel(nil)
	return err
}
