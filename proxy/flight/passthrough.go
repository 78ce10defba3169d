package flight

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// PassThrough writes n bytes starting at off, or all the rest if n is negative,
// directly from a source to w, in parallel to the download. The size must be
// known by now. Apart from that it does what [PassThrough] does.
func (f *Flight) PassThrough(ctx context.Context, w io.Writer, source Source, off, n int64, received func(bytes int64)) (written int64, err error) {
	if n < 0 {
		size, _ := f.KnownSize()
		n = size - off
	}
	return PassThrough(ctx, w, source, off, n, received)
}

// PassThrough writes n bytes starting at off directly from a source to w. It
// stores nothing. received is called with the number of bytes received.
// PassThrough returns upstream.ErrUnsupported if the source does not support
// ranges.
func PassThrough(ctx context.Context, w io.Writer, source Source, off, n int64, received func(bytes int64)) (written int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(readerWait, func() { cancel(errSilence) })
	defer late.Stop()
	content, err := source.Blob(ctx, off, n)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, err
	}
	defer content.Body.Close()
	if content.From != off {
		return 0, fmt.Errorf("%w: the upstream does not support ranges", upstream.ErrUnsupported)
	}
	buf := make([]byte, min(n, bufferSize))
	for written < n {
		late.Reset(readerWait)
		got, err := content.Body.Read(buf[:min(int64(len(buf)), n-written)])
		late.Stop() // a slow writer is no silent source
		received(int64(got))
		if got > 0 {
			wrote, err := w.Write(buf[:got])
			written += int64(wrote)
			if err != nil {
				return written, err
			}
		}
		if err != nil && written < n {
			return written, bodyError(err)
		}
	}
	return written, nil
}
