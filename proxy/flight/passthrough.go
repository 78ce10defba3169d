package flight

import (
	"context"
	"errors"
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
//
// A client that reads slowly holds no place that others wait for: what it has
// not read is requested again, as much at a time as is held in memory anyway.
func PassThrough(ctx context.Context, w io.Writer, source Source, off, n int64, received func(bytes int64)) (written int64, err error) {
	p := passage{source: source, received: received, buf: make([]byte, min(n, bufferSize))}
	for written < n {
		wrote, err := p.once(ctx, w, off+written, n-written)
		written += wrote
		if err != nil && !errors.Is(err, errYielded) {
			return written, err
		}
	}
	return written, nil
}

// passage is what is passed through to one client.
type passage struct {
	source   Source
	received func(bytes int64)
	buf      []byte
	last     place // of the last request
}

// once passes through what one request brings. It returns errYielded if that
// ends because others wait for its place.
func (p *passage) once(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	inParts := p.last.isStuck && p.last.isAwaited()
	if inParts {
		n = min(n, int64(len(p.buf)))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(readerWait, func() { cancel(errSilence) })
	defer late.Stop()
	content, err := p.source.Blob(ctx, off, n)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, err
	}
	p.last = placeOf(content)
	defer p.last.release()
	if content.From != off {
		return 0, fmt.Errorf("%w: the upstream does not support ranges", upstream.ErrUnsupported)
	}
	for filled := int64(0); written < n; {
		late.Reset(readerWait)
		got, err := content.Body.Read(p.buf[filled:min(int64(len(p.buf)), n-written)])
		late.Stop() // a slow writer is no silent source
		p.received(int64(got))
		if filled += int64(got); inParts && err == nil && filled < n {
			continue
		}
		if filled > 0 {
			if inParts {
				p.last.release()
			}
			wrote, err := p.last.write(w, p.buf[:filled])
			written, filled = written+int64(wrote), 0
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
