package pull

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestABodyIsReadWhateverSizeIsAnnounced(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 30_000)
	for _, n := range []int{0, 1, 511, 512, 513, firstPart - 1, firstPart, firstPart + 1, 300_000} {
		for _, size := range []int64{-1, 0, 1, int64(n) - 1, int64(n), int64(n) + 1, 1 << 40} {
			for name, body := range map[string]io.Reader{
				"at once":        bytes.NewReader(content[:n]),
				"in halves":      iotest.HalfReader(bytes.NewReader(content[:n])),
				"with its error": iotest.DataErrReader(bytes.NewReader(content[:n])),
			} {
				got, err := readBody(body, size, 1<<20)
				if err != nil || !bytes.Equal(got, content[:n]) {
					t.Errorf("%d bytes %s, announced as %d: %d, %v", n, name, size, len(got), err)
				}
				if most := 2*n + firstPart; size <= int64(n) && cap(got) > most {
					t.Errorf("%d bytes %s, announced as %d, take %d", n, name, size, cap(got))
				}
			}
		}
	}
	if got, err := readBody(bytes.NewReader(content), int64(len(content)), 100_000); err != nil || len(got) != 100_000 {
		t.Errorf("%d bytes of at most 100000, %v", len(got), err)
	}
	broken := errors.New("broken")
	if got, err := readBody(io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)), -1, 1<<20); !errors.Is(err, broken) || len(got) != len(content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAnAnnouncedSizeIsBelievedWhenItBegins(t *testing.T) {
	got, err := readBody(bytes.NewReader([]byte("{}")), 8<<20, 8<<20)
	if err != nil || cap(got) > firstPart {
		t.Errorf("two bytes take %d, %v", cap(got), err)
	}
	content := bytes.Repeat([]byte("x"), 3<<20)
	if allocs := testing.AllocsPerRun(5, func() { _, _ = readBody(bytes.NewReader(content), int64(len(content)), 8<<20) }); allocs > 5 {
		t.Errorf("%v pieces of memory were taken", allocs)
	}
}
