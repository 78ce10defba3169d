package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

func (d *draft) Reader() (cache.Blob, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("read the draft of %s: %w", d.want.Digest, errDone)
	}
	size := d.want.Size
	if size < 0 {
		size = d.Written()
		if last := len(d.ahead) - 1; last >= 0 {
			size = d.ahead[last].To
		}
	}
	file, err := d.blobs.files.Open(d.path, os.O_RDONLY)
	if err == nil {
		return &draftReader{newBlob(file, size), d}, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		// It was committed and deleted meanwhile. The file still exists without
		// a name while this draft has it open.
		if file, err = d.file.Reopen(); err == nil {
			return &offsetReader{file: unnamedDraft{file, d}, size: size}, nil
		}
	}
	return nil, fmt.Errorf("read the draft of %s: %w", d.want.Digest, err)
}

// draftReader reads the file of a draft. What it reads ends before a hole, but
// the kernel doesn't know of holes: whoever sends the file with SyscallConn has
// to send no more than Check allows.
type draftReader struct {
	*blob
	draft *draft
}

// Read asks for its offset only if there may be holes. The first piece may be
// written while it reads.
func (r *draftReader) Read(p []byte) (int, error) {
	if !r.draft.sparse.Load() {
		n, err := r.blob.Read(p)
		if !r.draft.sparse.Load() || n == 0 {
			return n, err
		}
		if _, err := r.Seek(-int64(n), io.SeekCurrent); err != nil {
			return 0, err
		}
	}
	at, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	there := r.draft.there(p, at)
	if len(there) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return r.blob.Read(there)
}

func (r *draftReader) ReadAt(p []byte, off int64) (int, error) {
	return r.draft.readAt(r.blob, p, off)
}

// WriteTo passes everything through Read, because the file would be sent with
// its holes.
func (r *draftReader) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r})
}

// unnamedDraft reads the file of a draft that has no name any more.
type unnamedDraft struct {
	files.File
	draft *draft
}

func (u unnamedDraft) ReadAt(p []byte, off int64) (int, error) {
	return u.draft.readAt(u.File, p, off)
}
