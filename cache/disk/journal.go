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
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

const (
	// A journal is rewritten when it is longer than rewriteBytes and than
	// rewriteFactor times its length after the last rewrite. So the total work
	// of rewriting is proportional to that of appending.
	rewriteBytes  = 1 << 20
	rewriteFactor = 2
)

// journal is the second copy of some records, an append-only file of lines.
// Only the goroutine that flushes uses it; readJournal may run concurrently.
type journal struct {
	files   files.System
	path    string
	buckets map[cache.Bucket]bool

	file          files.File   // nil until the first write, and after a failure
	size          int64        // bytes of complete lines
	bytes         atomic.Int64 // size, for others than that goroutine
	rewrittenSize int64        // bytes after the last rewrite
}

func newJournal(system files.System, path string, durable []cache.Bucket) *journal {
	j := &journal{files: system, path: path, buckets: make(map[cache.Bucket]bool)}
	for _, b := range durable {
		j.buckets[b] = true
	}
	if info, err := system.Lstat(path); err == nil {
		j.bytes.Store(info.Size())
	}
	return j
}

// append makes lines durable. After an error the file may contain some of them;
// appending them again is harmless.
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
		// A partial line is truncated when the file is opened again.
		j.file.Close()
		j.file = nil
		return fmt.Errorf("journal of records: %w", err)
	}
	j.size += int64(len(lines))
	j.bytes.Store(j.size)
	return nil
}

func (j *journal) open() error {
	file, err := j.files.Open(j.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	j.size, err = truncateTail(file)
	j.rewrittenSize = 0
	if err == nil && j.size == 0 {
		if _, err = file.WriteAt(header(0), 0); err == nil {
			j.size = headerSize
			err = j.files.SyncFolder(filepath.Dir(j.path))
		}
	} else if err == nil {
		line := make([]byte, headerSize-1)
		if _, err := file.ReadAt(line, 0); err == nil {
			j.rewrittenSize, _ = parseHeader(line)
		}
	}
	if err != nil {
		file.Close()
		return err
	}
	j.file = file
	return nil
}

// truncateTail removes what follows the last line feed, and returns the new
// size. It only reads that part.
func truncateTail(file files.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	piece := make([]byte, 64<<10)
	for end > 0 {
		start := max(0, end-int64(len(piece)))
		n, err := file.ReadAt(piece[:end-start], start)
		if err != nil && !errors.Is(err, io.EOF) {
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

// needsRewrite reports whether the journal has grown enough to be rewritten.
func (j *journal) needsRewrite() bool {
	return j.file != nil && j.size > rewriteBytes && j.size > rewriteFactor*j.rewrittenSize
}

// rewrite replaces the journal by one with the current records of db.
// Everything that was ever appended must be in db.
func (j *journal) rewrite(db *database) (err error) {
	next, err := j.files.Open(j.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	size, err := writeLive(next, db, j.buckets)
	if err == nil {
		_, err = next.WriteAt(header(size), 0)
	}
	if err == nil {
		err = next.Sync()
	}
	if err == nil {
		err = j.files.Rename(next.Name(), j.path)
	}
	if err != nil {
		err = errors.Join(err, next.Close(), j.files.Remove(next.Name()))
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	j.file.Close()
	j.file, j.size, j.rewrittenSize = next, size, size
	j.bytes.Store(size)
	if err := j.files.SyncFolder(filepath.Dir(j.path)); err != nil {
		return fmt.Errorf("rewrite the journal of records: %w", err)
	}
	return nil
}

func writeLive(to io.Writer, db *database, durable map[cache.Bucket]bool) (size int64, err error) {
	w := bufio.NewWriterSize(to, 256<<10)
	n, err := w.Write(header(0))
	size = int64(n)
	var line []byte
	for b := range durable {
		after, inclusive := "", true
		for err == nil {
			var page []record
			page, err = db.page(b, "", after, inclusive, pageLength)
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

// readJournal returns the records that are live according to the journal at
// path, and the number of damaged lines that were skipped. A missing journal
// has no records.
func readJournal(system files.System, path string) (live map[recordName][]byte, damaged int, err error) {
	file, err := system.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	live = make(map[recordName][]byte)
	damaged, err = readLines(file, func(c change) bool {
		if c.deleted {
			delete(live, recordName{c.bucket, c.key})
		} else {
			live[recordName{c.bucket, c.key}] = c.value
		}
		return true
	})
	return live, damaged, err
}
