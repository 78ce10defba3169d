package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Have are the digests that the other side has.
type Have map[Digest]bool

// ReadHave reads what the other side has: from an earlier bundle, whose content is
// there now, from its JSON file alone, or from a list of digests with one a line.
func ReadHave(r io.Reader) (Have, error) {
	in := bufio.NewReaderSize(r, copyBuffer)
	first, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch start := bytes.TrimSpace(first); {
	case len(first) == 512 && string(first[257:262]) == "ustar":
		c, err := NewReader(in).Contents()
		if err != nil {
			return nil, err
		}
		if c == nil {
			return nil, fmt.Errorf("%w: it has no %s before its blobs", ErrNotBundle, contentsName)
		}
		return haveOf(c), nil
	case bytes.HasPrefix(start, []byte("{")):
		raw, err := io.ReadAll(io.LimitReader(in, maxJSON+1))
		if err != nil {
			return nil, err
		}
		if len(raw) > maxJSON {
			return nil, fmt.Errorf("%w: it has more than %d bytes", ErrNotBundle, maxJSON)
		}
		c, err := decodeContents(raw)
		if err != nil {
			return nil, err
		}
		return haveOf(c), nil
	case len(start) == 0 || bytes.HasPrefix(start, []byte("sha")) || bytes.HasPrefix(start, []byte("#")):
		return readList(in)
	}
	return nil, fmt.Errorf("%w, nor a list of digests", ErrNotBundle)
}

func haveOf(c *Contents) Have {
	have := make(Have, len(c.Content)+len(c.Assumed))
	for _, content := range slices.Concat(c.Content, c.Assumed) {
		have[content.Digest] = true
	}
	return have
}

func readList(in io.Reader) (Have, error) {
	have := make(Have)
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		d := Digest(line)
		if err := checkDigest(d); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(have) >= maxMembers {
			return nil, fmt.Errorf("%w: more than %d digests", ErrHostile, maxMembers)
		}
		have[d] = true
	}
	return have, lines.Err()
}
