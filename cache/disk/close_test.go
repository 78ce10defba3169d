package disk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

// grace is how long the program has to end in these tests.
const grace = 25 * time.Second

// goDown has the disk hang until it is down, and puts a record then.
func (h *hangable) goDown(t *testing.T) {
	t.Helper()
	h.broken.Hang(filestest.All)
	if _, err := h.Blobs().Stat(t.Context(), h.d); !errors.Is(err, cache.ErrDown) {
		t.Fatalf("Stat: %v", err)
	}
	h.Records().Put("a", "meanwhile", []byte("put"))
	time.Sleep(time.Minute) // writing it is tried many times
}

// isOnDisk opens the folder anew, and looks for the record.
func (h *hangable) isOnDisk(t *testing.T) bool {
	t.Helper()
	c := open(t, h.folder.dir, Options{})
	value, err := c.Records().Get("a", "meanwhile")
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	return string(value) == "put"
}

func TestRecordsThatWaitForTheDiskAreWrittenWhenItAnswersBeforeTheEnd(t *testing.T) {
	for name, c := range map[string]struct{ after, atMost time.Duration }{
		"just before the stop": {0, 2 * urgentEvery},
		"meanwhile":            {10 * time.Second, 10*time.Second + 2*urgentEvery},
		"a moment before the time to end is over": {grace - time.Second, grace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := openHangable(t, Options{})
				h.goDown(t)
				if c.after == 0 {
					h.broken.Mend() // it is still taken for down
				} else {
					time.AfterFunc(c.after, h.broken.Mend)
				}
				ctx, cancel := context.WithTimeout(t.Context(), grace)
				defer cancel()
				began := time.Now()
				if err := h.Shutdown(ctx); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				if took := time.Since(began); took > c.atMost {
					t.Errorf("Shutdown took %s", took)
				}
				if !h.isOnDisk(t) {
					t.Error("the record is lost")
				}
			})
		})
	}
}

// A program ends in its time, whatever the disk does, and does not wait for a
// disk that it needs no more.
func TestShutdownEndsInTime(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*testing.T, *hangable)
		atMost  time.Duration
		fails   bool
	}{
		{"nothing waits, and the disk is down", func(t *testing.T, h *hangable) {
			h.broken.Hang(filestest.All)
			_, _ = h.Blobs().Stat(t.Context(), h.d)
		}, closeTimeout, false},
		{"a record waits, and the disk is down", func(t *testing.T, h *hangable) {
			h.broken.Hang(filestest.All)
			_, _ = h.Blobs().Stat(t.Context(), h.d)
			h.Records().Put("a", "b", nil)
		}, grace + closeTimeout, true},
		{"a record waits, and only writes hang", func(t *testing.T, h *hangable) {
			h.broken.Hang(filestest.Writes)
			h.Records().Put("a", "b", nil)
			time.Sleep(time.Minute)
		}, grace + closeTimeout, true},
		{"a record waits, and there is no room", func(t *testing.T, h *hangable) {
			h.broken.Fail(filestest.Changes, errors.New("no room"))
			h.Records().Put("a", "b", nil)
			time.Sleep(time.Minute)
		}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := openHangable(t, Options{Journal: []cache.Bucket{"a"}})
				c.prepare(t, h)
				ctx, cancel := context.WithTimeout(t.Context(), grace)
				defer cancel()
				began := time.Now()
				err := h.Shutdown(ctx)
				if took := time.Since(began); took > c.atMost {
					t.Errorf("Shutdown took %s", took)
				}
				if (err != nil) != c.fails {
					t.Errorf("Shutdown: %v", err)
				}
				h.closed = nil // as the end of the test wants it
				h.broken.Mend()
				synctest.Wait()
			})
		})
	}
}
