// Package cachetest tests the contracts of package cache: every MUST in the
// comments of its interfaces has a subtest here, and every implementation runs
// them.
package cachetest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// Suite runs [Blobs] and [Records] on the two halves of one cache. open returns
// an empty cache and closes it with t.Cleanup.
func Suite(t *testing.T, open func(t *testing.T) (cache.Blobs, cache.Records)) {
	t.Run("blobs", func(t *testing.T) {
		Blobs(t, func(t *testing.T) cache.Blobs {
			blobs, _ := open(t)
			return blobs
		})
	})
	t.Run("records", func(t *testing.T) {
		Records(t, func(t *testing.T) cache.Records {
			_, records := open(t)
			return records
		})
	})
}

// content returns n bytes that only depend on the seed, and their descriptor.
func content(seed uint64, n int) ([]byte, cache.Descriptor) {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b, cache.Descriptor{
		MediaType: "application/octet-stream",
		Digest:    digest.FromBytes(b),
		Size:      int64(n),
	}
}

func create(t *testing.T, blobs cache.Blobs, want cache.Descriptor) cache.Draft {
	t.Helper()
	draft, err := blobs.Create(t.Context(), want)
	if err != nil {
		t.Fatalf("Create(%s): %v", want.Digest, err)
	}
	t.Cleanup(func() {
		if err := draft.Close(); err != nil {
			t.Errorf("close the draft of %s: %v", want.Digest, err)
		}
	})
	return draft
}

func write(t *testing.T, draft cache.Draft, b []byte) {
	t.Helper()
	if n, err := draft.Write(b); n != len(b) || err != nil {
		t.Fatalf("Write of %d bytes = %d, %v", len(b), n, err)
	}
}

// publish stores b under the digest of want.
func publish(t *testing.T, blobs cache.Blobs, want cache.Descriptor, b []byte) {
	t.Helper()
	draft := create(t, blobs, want)
	write(t, draft, b)
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit of %s: %v", want.Digest, err)
	}
	if err := draft.Close(); err != nil {
		t.Fatalf("Close of %s after Commit: %v", want.Digest, err)
	}
}

func open(t *testing.T, blobs cache.Blobs, d cache.Digest) cache.Blob {
	t.Helper()
	blob, err := blobs.Open(t.Context(), d)
	if err != nil {
		t.Fatalf("Open(%s): %v", d, err)
	}
	t.Cleanup(func() { blob.Close() })
	return blob
}

// wantContent fails unless the store returns exactly b for d.
func wantContent(t *testing.T, blobs cache.Blobs, d cache.Digest, b []byte) {
	t.Helper()
	blob := open(t, blobs, d)
	wantRead(t, blob, b)
	if blob.Size() != int64(len(b)) {
		t.Errorf("Size of %s = %d, want %d", d, blob.Size(), len(b))
	}
	if size, err := blobs.Stat(t.Context(), d); size != int64(len(b)) || err != nil {
		t.Errorf("Stat(%s) = %d, %v, want %d", d, size, err, len(b))
	}
}

// wantAbsent fails unless the store does not have d.
func wantAbsent(t *testing.T, blobs cache.Blobs, d cache.Digest) {
	t.Helper()
	if blob, err := blobs.Open(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Open(%s) = %v, %v, want ErrNotFound", d, blob, err)
	}
	if size, err := blobs.Stat(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Stat(%s) = %d, %v, want ErrNotFound", d, size, err)
	}
	for held := range walk(t, blobs) {
		if held == d {
			t.Errorf("Walk saw %s, which is not there", d)
		}
	}
}

func wantRead(t *testing.T, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if string(got) != string(want) {
		t.Fatalf("read %d bytes (%s), want %d bytes (%s)",
			len(got), digest.FromBytes(got), len(want), digest.FromBytes(want))
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// walk returns everything that Walk visits.
func walk(t *testing.T, blobs cache.Blobs) map[cache.Digest]int64 {
	t.Helper()
	seen := make(map[cache.Digest]int64)
	err := blobs.Walk(context.WithoutCancel(t.Context()), func(d cache.Digest, size int64) bool {
		if _, twice := seen[d]; twice {
			t.Errorf("Walk showed %s twice", d)
		}
		seen[d] = size
		return true
	})
	if err != nil {
		t.Fatalf("Walk: %v", err)
	}
	return seen
}
