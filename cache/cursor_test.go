package cache_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// seeking is a file that counts how often it is moved.
type seeking struct {
	*bytes.Reader
	seeks int
	fail  error // of the next read
}

func (s *seeking) Close() error { return nil }

func (s *seeking) Seek(off int64, whence int) (int64, error) {
	s.seeks++
	return s.Reader.Seek(off, whence)
}

func (s *seeking) Read(b []byte) (int, error) {
	if err := s.fail; err != nil {
		s.fail = nil
		n, _ := s.Reader.Read(b[:1])
		return n, err
	}
	return s.Reader.Read(b)
}

func TestACursorSeeksOnlyWhereItMust(t *testing.T) {
	file := &seeking{Reader: bytes.NewReader([]byte("0123456789"))}
	c := cache.NewCursor(file)
	broken := errors.New("broken")
	for _, step := range []struct {
		off, n int64
		fail   error
		want   string
		err    error
		seeks  int // up to here
	}{
		{off: 0, n: 3, want: "012"},
		{off: 3, n: 4, want: "3456"},
		{off: 1, n: 2, want: "12", seeks: 1},
		{off: 3, n: 2, fail: broken, want: "3", err: broken, seeks: 1},
		{off: 4, n: 2, want: "45", seeks: 2}, // nobody knows where a read that failed has left it
		{off: 8, n: 5, want: "89", err: io.ErrUnexpectedEOF, seeks: 3},
	} {
		file.fail = step.fail
		var got bytes.Buffer
		n, err := c.Copy(&got, step.off, step.n)
		if got.String() != step.want || n != int64(len(step.want)) || !errors.Is(err, step.err) || file.seeks != step.seeks {
			t.Errorf("%d at %d: %q (%d), %v, %d seeks", step.n, step.off, &got, n, err, file.seeks)
		}
	}
}
