package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
)

type forgetful struct{}

func (forgetful) Get(Digest) ([]byte, bool) { return nil, false }
func (forgetful) Put(Digest, []byte)        {}
func (forgetful) Delete(Digest)             {}

// noRoom is a disk that takes no draft.
type noRoom struct{ cache.Blobs }

func (noRoom) Create(context.Context, Descriptor) (cache.Draft, error) {
	return nil, &cache.FullError{Bound: cache.DiskSpace, Err: errors.New("no space left")}
}

// stuckRecords are never made durable.
type stuckRecords struct{ cache.Records }

func (stuckRecords) Flush(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Clients wait for what waits here, or a start does.
func TestNobodyWaitsForRoomForLong(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 1000)
	desc := Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	for _, c := range []struct {
		name string
		wait time.Duration
		do   func(t *testing.T)
	}{
		{"a draft, while an eviction pass takes its time", roomWait, func(t *testing.T) {
			s := New(Options{Blobs: noRoom{memory.New().Blobs()}, Memory: forgetful{}, Logger: slog.New(slog.DiscardHandler)})
			s.room.used, s.room.passes.running = 1<<20, true
			if _, err := s.Create(t.Context(), desc); !errors.Is(err, cache.ErrFull) {
				t.Errorf("Create: %v", err)
			}
		}},
		{"a manifest, in a cache that is full", manifestWait, func(t *testing.T) {
			s := New(Options{Blobs: memory.New().Blobs(), Memory: forgetful{}, Bounds: Bounds{MaxBytes: 1 << 20}, Logger: slog.New(slog.DiscardHandler)})
			s.room.used, s.room.counted, s.room.passes.running = 1<<20, true, true
			if err := s.Put(t.Context(), desc, content); !errors.Is(err, cache.ErrFull) {
				t.Errorf("Put: %v", err)
			}
		}},
		{"a start, on a disk that takes no records", usageWait, func(t *testing.T) {
			records := memory.New().Records()
			metadata.SaveStored(records, metadata.StoredBytes{Bytes: 100, Exact: true})
			s := New(Options{Blobs: memory.New().Blobs(), Records: stuckRecords{records}, Memory: forgetful{}, Logger: slog.New(slog.DiscardHandler)})
			if !s.NeedsCount() {
				t.Error("it relies on what it could not take back")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c.do(t)
				if took := time.Since(began); took != c.wait || took > 3*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}
