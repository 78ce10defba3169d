package disk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/entrepot/entrepot/cache"
)

// A line of the journal is a checksum of the rest of the line, a verb, and
// Go-quoted strings:
//
//	5d2f1a09 put "tag" "docker.io\x00library/alpine\x003" "{…}"
//	77e0c3b1 delete "tag" "docker.io\x00library/alpine\x003"
//
// A quoted string contains no line feed, so a damaged line affects no other.
const (
	verbPut    = "put"
	verbDelete = "delete"
	// maxLine is longer than the line of any record, in bytes. A longer line
	// has lost its line feeds.
	maxLine = 64 << 20
)

var errBadLine = errors.New("a damaged line of the journal")

// change is the content of one line.
type change struct {
	bucket  cache.Bucket
	key     string
	value   []byte
	deleted bool
}

func appendLine(b []byte, c change) []byte {
	start := len(b)
	b = append(b, "00000000 "...)
	if c.deleted {
		b = append(b, verbDelete...)
	} else {
		b = append(b, verbPut...)
	}
	b = strconv.AppendQuoteToASCII(append(b, ' '), string(c.bucket))
	b = strconv.AppendQuoteToASCII(append(b, ' '), c.key)
	if !c.deleted {
		b = strconv.AppendQuoteToASCII(append(b, ' '), string(c.value))
	}
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(b[start+9:], castagnoli))
	hex.Encode(b[start:], sum)
	return append(b, '\n')
}

// parseLine parses a line without its line feed.
func parseLine(line []byte) (change, error) {
	var sum [4]byte
	if len(line) < 9 || line[8] != ' ' {
		return change{}, errBadLine
	}
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return change{}, errBadLine
	}
	if binary.BigEndian.Uint32(sum[:]) != crc32.Checksum(line[9:], castagnoli) {
		return change{}, errBadLine
	}
	verb, rest, _ := strings.Cut(string(line[9:]), " ")
	words := 3
	switch verb {
	case verbDelete:
		words = 2
	case verbPut:
	default:
		return change{}, errBadLine
	}
	var word [3]string
	for i := range words {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil || quoted[0] != '"' {
			return change{}, errBadLine
		}
		if word[i], err = strconv.Unquote(quoted); err != nil {
			return change{}, errBadLine
		}
		rest = strings.TrimPrefix(rest[len(quoted):], " ")
	}
	if rest != "" {
		return change{}, errBadLine
	}
	c := change{bucket: cache.Bucket(word[0]), key: word[1], deleted: verb == verbDelete}
	if !c.deleted {
		c.value = []byte(word[2])
	}
	return c, nil
}

// readLines calls fn for every valid line, in their order, until it returns
// false, and counts the damaged ones. The header is neither.
func readLines(from io.Reader, fn func(change) (more bool)) (damaged int, err error) {
	r := bufio.NewReaderSize(from, 64<<10)
	first := true
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && err != io.EOF:
			return damaged, err
		}
		if text, whole := bytes.CutSuffix(line, []byte("\n")); whole || len(line) > 0 {
			c, bad := parseLine(text)
			_, isHeader := parseHeader(text)
			switch {
			case first && isHeader:
			case bad == nil && whole:
				if !fn(c) {
					return damaged, nil
				}
			default:
				damaged++
			}
			first = false
		}
		line = line[:0]
		if err == io.EOF {
			return damaged, nil
		}
	}
}

// The header has the length of the journal after its last rewrite, in bytes, so
// that it is known without reading the rest.
const (
	headerWords = "entrepot records journal 1 "
	headerSize  = int64(len(headerWords)) + 20 + 1
)

func header(live int64) []byte { return fmt.Appendf(nil, headerWords+"%020d\n", live) }

func parseHeader(line []byte) (live int64, ok bool) {
	digits, ok := bytes.CutPrefix(line, []byte(headerWords))
	if !ok || len(digits) != 20 {
		return 0, false
	}
	live, err := strconv.ParseInt(string(digits), 10, 64)
	return live, err == nil && live >= 0
}
