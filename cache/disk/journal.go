package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/entrepot/entrepot/cache"
)

const (
	// A journal is rewritten when it is longer than rewriteBytes and
	// rewriteTimes as long as it was after it was rewritten last: so all the
	// rewriting together stays in proportion to all the writing.
	rewriteBytes = 4 << 20
	rewriteTimes = 3
)

// journal keeps the precious records a second time, as an append-only file of
// lines. Only the goroutine that flushes uses it; readJournal reads beside it.
type journal struct {
	path     string
	precious map[cache.Bucket]bool

	file *os.File // nil until something is to be written, and after a failure
	size int64    // bytes of whole lines
	live int64    // bytes that the last rewriting left
}

func newJournal(path string, precious []cache.Bucket) *journal {
	j := &journal{path: path, precious: make(map[cache.Bucket]bool)}
	for _, b := range precious {
		j.precious[b] = true
	}
	return j
}

// append makes lines durable. After an error any number of them may be in the
// file; appending them again is harmless.
func (j *journal) append(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if j.file == nil {
		if err := j.open(); err != nil {
			return fmt.Errorf("journal of records: %w", err)
		}
	}
	_, err := j.file.WriteAt(lines, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// What is torn is cut off when it is opened again.
		j.file.Close()
		j.file = nil
		return fmt.Errorf("journal of records: %w", err)
	}
	j.size += int64(len(lines))
	return nil
}

func (j *journal) open() error {
	file, err := openShared(j.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	j.size, err = cutTail(file)
	j.live = 0
	if err == nil && j.size == 0 {
		if _, err = file.WriteAt(header(0), 0); err == nil {
			j.size = headerSize
			err = syncFolder(filepath.Dir(j.path))
		}
	} else if err == nil {
		line := make([]byte, headerSize-1)
		if _, err := file.ReadAt(line, 0); err == nil {
			j.live, _ = parseHeader(line)
		}
	}
	if err != nil {
		file.Close()
		return err
	}
	j.file = file
	return nil
}

// cutTail removes what follows the last line feed, and returns the new size.
// It reads no more than that from the end.
func cutTail(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	piece := make([]byte, 64<<10)
	for end > 0 {
		start := max(0, end-int64(len(piece)))
		n, err := file.ReadAt(piece[:end-start], start)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if at := bytes.LastIndexByte(piece[:n], '\n'); at >= 0 {
			end = start + int64(at) + 1
			break
		}
		end = start
	}
	if end == info.Size() {
		return end, nil
	}
	return end, file.Truncate(end)
}

// grown says whether a rewriting is due.
func (j *journal) grown() bool {
	return j.file != nil && j.size > rewriteBytes && j.size > rewriteTimes*j.live
}

// rewrite replaces the journal by one that holds what db holds now. Everything
// that was ever appended must be in db.
func (j *journal) rewrite(db *database) (err error) {
	next, err := openShared(j.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	size, err := writeLive(next, db, j.precious)
	if err == nil {
		_, err = next.WriteAt(header(size), 0)
	}
	if err == nil {
		err = next.Sync()
	}
	if err == nil {
		err = rename(next.Name(), j.path)
	}
	if err != nil {
		err = errors.Join(err, next.Close(), os.Remove(next.Name()))
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	j.file.Close()
	j.file, j.size, j.live = next, size, size
	if err := syncFolder(filepath.Dir(j.path)); err != nil {
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	return nil
}

func writeLive(to io.Writer, db *database, precious map[cache.Bucket]bool) (size int64, err error) {
	w := bufio.NewWriterSize(to, 256<<10)
	n, err := w.Write(header(0))
	size = int64(n)
	var line []byte
	for b := range precious {
		after, inclusive := "", true
		for err == nil {
			var page []record
			page, err = db.page(b, after, inclusive, pageLength)
			for _, rec := range page {
				line = appendLine(line[:0], change{bucket: b, key: rec.key, value: rec.value})
				size += int64(len(line))
				if _, werr := w.Write(line); werr != nil {
					return 0, werr
				}
				after, inclusive = rec.key, false
			}
			if len(page) < pageLength {
				break
			}
		}
	}
	return size, errors.Join(err, w.Flush())
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// readJournal returns the records that the journal at path says are live, and
// the number of damaged lines it had to pass over. A missing one has none.
func readJournal(path string) (live map[recordName][]byte, damaged int, err error) {
	file, err := openShared(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	live = make(map[recordName][]byte)
	damaged, err = readLines(file, func(c change) {
		if c.deleted {
			delete(live, recordName{c.bucket, c.key})
		} else {
			live[recordName{c.bucket, c.key}] = c.value
		}
	})
	return live, damaged, err
}
