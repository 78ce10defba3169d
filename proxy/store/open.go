package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/cache"
)

// smallBlob is the size in bytes up to which blobs are cached in memory too:
// configs and the empty descriptor, but not layers.
const smallBlob = 64 << 10

// Open returns a stored blob. A small blob is returned as its verified content,
// and a large one as a file that the caller must check as it reads. Open
// returns cache.ErrNotFound if the blob is not stored, and another error if it
// cannot be read.
func (s *Store) Open(ctx context.Context, d Digest) (content []byte, file cache.PublishedBlob, err error) {
	if content, ok := s.memory.Get(d); ok {
		return content, nil, nil
	}
	file, err = s.blobs.Open(ctx, d)
	switch {
	case err == nil:
	case isExpected(ctx, err):
		s.noteLost(err)
		return nil, nil, err
	default:
		s.log.Error("stored blob cannot be read", "digest", d.String(), "error", err)
		return nil, nil, err
	}
	s.seen.Add(d, struct{}{})
	if file.Size() > smallBlob {
		return nil, file, nil
	}
	defer file.Close()
	content, err = s.readVerified(ctx, d, file)
	if err != nil {
		s.log.Error("stored blob cannot be read", "digest", d.String(), "error", err)
		return nil, nil, err
	}
	s.memory.Put(d, content)
	return content, nil, nil
}

// isExpected says whether an error needs no line in the log: there is no such
// content, the client has left, or the disk is down, which the cache has logged.
func isExpected(ctx context.Context, err error) bool {
	return errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrDown) || ctx.Err() != nil
}

// Read returns the content of a manifest, unless it is larger than maxSize
// bytes.
func (s *Store) Read(ctx context.Context, d Digest, maxSize int64) ([]byte, bool) {
	if content, ok := s.memory.Get(d); ok {
		return content, true
	}
	content, ok := s.readStored(ctx, d, maxSize)
	if ok {
		s.memory.Put(d, content)
	}
	return content, ok
}

// readStored is Read for what is not in memory. It does not put it there.
func (s *Store) readStored(ctx context.Context, d Digest, maxSize int64) ([]byte, bool) {
	file, err := s.blobs.Open(ctx, d)
	if err != nil {
		s.noteLost(err)
		if !isExpected(ctx, err) {
			s.log.Error("stored manifest cannot be opened", "digest", d.String(), "error", err)
		}
		return nil, false
	}
	defer file.Close()
	if file.Size() > maxSize {
		return nil, false
	}
	content, err := s.readVerified(ctx, d, file)
	if err != nil {
		s.log.Error("stored manifest cannot be read", "digest", d.String(), "error", err)
		return nil, false
	}
	return content, true
}

// readVerified reads content that is small enough to be verified each time it is
// read from disk. Damaged content is quarantined, so that it can be stored
// again.
func (s *Store) readVerified(ctx context.Context, d Digest, file cache.Blob) ([]byte, error) {
	content := make([]byte, file.Size()) // it stays in memory, without the slack of a buffer that grows
	_, err := io.ReadFull(file, content)
	if err == nil && d.Algorithm().FromBytes(content) == d {
		return content, nil
	}
	size, verifyErr := s.blobs.Verify(ctx, d, func(int) error { return nil })
	if errors.Is(verifyErr, cache.ErrQuarantined) {
		s.Quarantined(size)
	}
	return nil, fmt.Errorf("read %s: %w", d, errors.Join(cache.ErrMismatch, err, verifyErr))
}

// Quarantined reports that content of size bytes was quarantined because it is
// damaged. It no longer counts as stored.
func (s *Store) Quarantined(size int64) {
	s.lost.Add(1)
	s.room.subtract(size, false)
}

// Lost is how often content was found damaged or gone since the start.
func (s *Store) Lost() uint64 { return s.lost.Load() }
