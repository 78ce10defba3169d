package store

import (
	"github.com/entrepot/entrepot/cache"
)

// besideStep is by how many bytes what is stored beside content grows before that
// alone wakes eviction: a hundredth of the bound, and no less than this.
const (
	besideShare = 100
	besideStep  = 64 << 10
)

// beside is what is stored beside content and drafts: the records, and what was
// set aside because it is damaged. The zero value is nothing.
type beside struct {
	folder cache.Folder
	seen   int64 // bytes at the end of the last pass of eviction
}

func (b *beside) bytes() int64 {
	if b.folder == nil {
		return 0
	}
	return b.folder.RecordBytes() + b.folder.AsideBytes()
}

// RecordBytes is how many bytes the records take, which count as in use.
func (s *Store) RecordBytes() int64 {
	if folder := s.room.beside.folder; folder != nil {
		return folder.RecordBytes()
	}
	return 0
}

// AsideBytes is how many bytes the files have that were set aside because they
// are damaged. They count as in use.
func (s *Store) AsideBytes() int64 {
	if folder := s.room.beside.folder; folder != nil {
		return folder.AsideBytes()
	}
	return 0
}

// Aside are the files that were set aside because they are damaged, the oldest
// first.
func (s *Store) Aside() []cache.Aside {
	if folder := s.room.beside.folder; folder != nil {
		return folder.Aside()
	}
	return nil
}

// DropAside removes a file that was set aside, and returns the bytes that this
// freed.
func (s *Store) DropAside(file cache.Aside) (freed int64) {
	if err := s.room.beside.folder.DropAside(file.Name); err != nil {
		s.log.Error("what was set aside cannot be removed", "file", file.Name, "error", err)
		return 0
	}
	s.RecordsRemoved(file.Bytes, 1)
	return file.Bytes
}

// RecordsRemoved reports that what is stored beside content takes n bytes less,
// in so many files.
func (s *Store) RecordsRemoved(n, files int64) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.noteRemoved(tally{bytes: n, files: files})
	s.room.serve()
}

// RecordsPress says whether what is stored beside content has grown since the
// last pass of eviction, and room is short.
func (s *Store) RecordsPress() bool {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	grown := r.beside.bytes() - r.beside.seen
	return grown > max(r.bounds.MaxBytes/besideShare, besideStep) && r.isUnderPressure()
}
