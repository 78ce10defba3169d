package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// body passes a response's body on, and ends it with an error that has a
// meaning: ErrTimeout where nothing comes for too long, ErrUnavailable where
// it ends before its time.
type body struct {
	rc      io.ReadCloser
	cancel  context.CancelCauseFunc
	silence *time.Timer
	wait    time.Duration
	rest    int64 // bytes still to come, negative where that is not known
}

func newBody(rc io.ReadCloser, length int64, wait time.Duration, cancel context.CancelCauseFunc) *body {
	b := &body{rc: rc, cancel: cancel, rest: length, wait: wait}
	b.silence = time.AfterFunc(wait, func() { cancel(ErrTimeout) })
	b.silence.Stop() // it runs only while somebody reads
	return b
}

func (b *body) Read(p []byte) (int, error) {
	b.silence.Reset(b.wait)
	n, err := b.rc.Read(p)
	silent := !b.silence.Stop()
	if b.rest >= 0 {
		b.rest -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && b.rest <= 0:
		return n, io.EOF
	case silent:
		return n, fmt.Errorf("%w: the body is silent", ErrTimeout)
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%w: the body ended early", ErrUnavailable)
	}
	return n, fmt.Errorf("%w: the body broke off: %w", ErrUnavailable, cause(err))
}

func (b *body) Close() error {
	b.silence.Stop()
	err := b.rc.Close()
	b.cancel(nil)
	return err
}
