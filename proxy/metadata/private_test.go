package metadata_test

import (
	"errors"
	"testing"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// watched are records of which it is known how often they are read.
type watched struct {
	cache.Records
	reads  int
	err    error  // of each read
	during func() // is called after a read, before it returns
}

func (w *watched) Get(b cache.Bucket, key string) ([]byte, error) {
	w.reads++
	if w.err != nil {
		return nil, w.err
	}
	value, err := w.Records.Get(b, key)
	if during := w.during; during != nil {
		w.during = nil
		during()
	}
	return value, err
}

// Hits ask whether content is private: the records are read once.
func TestWhetherContentIsPrivateIsInMemory(t *testing.T) {
	records := &watched{Records: memory.New().Records()}
	l := metadata.New(records, nil)
	d := of("layer")
	ask := func(when string, want bool, reads int) {
		t.Helper()
		records.reads = 0
		for range 10 {
			if got := l.IsPrivate(d); got != want {
				t.Errorf("%s: private: %t", when, got)
			}
		}
		if records.reads != reads {
			t.Errorf("%s: the records were read %d times, want %d", when, records.reads, reads)
		}
	}
	// What can't be read may be private, and is read again.
	records.err = cache.ErrDown
	ask("while the disk is down", true, 10)
	records.err = nil
	ask("of content that is not", false, 1)
	l.PutPrivate(d)
	ask("once it was fetched with credentials", true, 0)
	l.DropPrivate(d)
	ask("when it is gone", false, 1)
	// It is fetched with credentials while somebody reads that it was not.
	l.DropPrivate(d)
	records.during = func() { l.PutPrivate(d) }
	if l.IsPrivate(d) {
		t.Error("the read came first")
	}
	ask("after that", true, 0)
	if _, err := records.Records.Get("private", string(d)); err != nil {
		t.Error(err)
	}
	// The next process reads it, and a disk that was down loses nothing.
	l = metadata.New(records, nil)
	ask("by another process", true, 1)
	other := of("other")
	records.err = errors.New("unreadable")
	l.PutPrivate(other)
	records.err = nil
	if _, err := records.Records.Get("private", string(other)); err != nil {
		t.Errorf("put while the records could not be read: %v", err)
	}
}
