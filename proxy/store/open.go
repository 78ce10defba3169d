package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/cache"
)

// smallBlob is the size in bytes up to which blobs are kept in memory too:
// configs and the empty descriptor, not layers.
const smallBlob = 64 << 10

// Open returns a kept blob: its proven content where it is small, else a file,
// which is to be checked as it is read. It returns cache.ErrNotFound where
// nothing is kept, and another error where it cannot be read.
func (s *Store) Open(ctx context.Context, d Digest) (content []byte, file cache.Kept, err error) {
	if content, ok := s.memory.Get(d); ok {
		return content, nil, nil
	}
	file, err = s.blobs.Open(ctx, d)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return nil, nil, err
	case err != nil:
		s.log.Error("kept blob cannot be read", "digest", d.String(), "error", err)
		return nil, nil, err
	case file.Size() > smallBlob:
		return nil, file, nil
	}
	defer file.Close()
	content, err = s.readProven(ctx, d, file)
	if err != nil {
		s.log.Error("kept blob cannot be read", "digest", d.String(), "error", err)
		return nil, nil, err
	}
	s.memory.Put(d, content)
	return content, nil, nil
}

// Content returns the bytes of a manifest, unless it has more than most bytes.
func (s *Store) Read(ctx context.Context, d Digest, maxSize int64) ([]byte, bool) {
	if content, ok := s.memory.Get(d); ok {
		return content, true
	}
	file, err := s.blobs.Open(ctx, d)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) {
			s.log.Error("kept manifest cannot be opened", "digest", d.String(), "error", err)
		}
		return nil, false
	}
	defer file.Close()
	if file.Size() > maxSize {
		return nil, false
	}
	content, err := s.readProven(ctx, d, file)
	if err != nil {
		s.log.Error("kept manifest cannot be read", "digest", d.String(), "error", err)
		return nil, false
	}
	s.memory.Put(d, content)
	return content, true
}

// readProven reads content that is small enough to be proven each time it
// comes from disk. What is damaged is set aside, so that what is fetched
// instead is kept.
func (s *Store) readProven(ctx context.Context, d Digest, file cache.Blob) ([]byte, error) {
	content, err := io.ReadAll(file)
	if err == nil && d.Algorithm().FromBytes(content) == d {
		return content, nil
	}
	size, verifyErr := s.blobs.Verify(ctx, d, func(int) error { return nil })
	if errors.Is(verifyErr, cache.ErrSetAside) {
		s.Quarantined(size)
	}
	return nil, fmt.Errorf("read %s: %w", d, errors.Join(cache.ErrMismatch, err, verifyErr))
}

// Quarantined notes that content of size bytes was set aside, because it is
// damaged: it is no longer kept.
func (s *Store) Quarantined(size int64) { s.room.subtract(size) }
