package cache

import "errors"

// A Bound is what was met when there was no room for content.
type Bound string

const (
	// MaxSize is the configured limit on what is stored.
	MaxSize Bound = "max_size"
	// MinFree is how much has to stay free on the file system.
	MinFree Bound = "min_free"
	// DiskSpace is the file system's own: no block is free, or those of what it
	// is on, such as a thin pool.
	DiskSpace Bound = "space"
	// Inodes are the files that a file system may have.
	Inodes Bound = "inodes"
	// Quota is that of a user, a group or a project.
	Quota Bound = "quota"
	// FileSize is the largest file that may be written.
	FileSize Bound = "file_size"
)

// FullError is an ErrFull that names the bound.
type FullError struct {
	Bound Bound
	Err   error
}

func (e *FullError) Error() string { return ErrFull.Error() + ": " + e.Err.Error() }

// Unwrap returns ErrFull, and the error itself.
func (e *FullError) Unwrap() []error { return []error{ErrFull, e.Err} }

// BoundOf returns the bound that an ErrFull names. If it names none, that is
// DiskSpace.
func BoundOf(err error) Bound {
	var full *FullError
	if errors.As(err, &full) {
		return full.Bound
	}
	return DiskSpace
}

// Space is the room of the file system that a cache is on: in all, and what may
// still be written. A total of zero says that it is not known: some file systems
// tell nothing, and others have no limit of files.
type Space struct {
	Bytes, FreeBytes   int64
	Inodes, FreeInodes int64
}
