package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
)

// closeTimeout is how long a cache that is closed waits for what does not need
// the disk, when the disk is down.
const closeTimeout = time.Second

// Close makes the records durable and unlocks the folder. Drafts have to be
// closed first; open blobs stay readable. If the disk is down, Close does not
// wait for it.
func (c *Cache) Close() error { return c.end(context.Background()) }

// Shutdown is Close for a program that has a moment to end. Records may be only
// in memory, because the disk was down when they were put: until ctx ends,
// Shutdown waits for the disk to answer again, and makes them durable. It waits
// no longer than that for a disk that hangs.
//
// It waits for all of that time, however long the disk has been down. The next
// process needs the folder too, so that it cannot serve any earlier, and without
// the records it would not know who holds what was pulled meanwhile.
func (c *Cache) Shutdown(ctx context.Context) error {
	c.places.hurry()
	for c.records.age() > 0 && ctx.Err() == nil {
		if err := c.records.Flush(ctx); !errors.Is(err, cache.ErrDown) {
			break
		}
		if over := c.Outage(); over != nil {
			select {
			case <-over:
			case <-ctx.Done():
			}
		}
	}
	return c.end(ctx)
}

func (c *Cache) closeAll() (err error) {
	defer panics.Catch("closing the cache", &err)
	c.blobs.proofs.all.Wait()
	return errors.Join(c.records.Close(), c.folder.close())
}

func (c *Cache) end(ctx context.Context) error {
	c.close.Do(func() {
		c.blobs.proofs.end(c.blobs.cancel)
		closed := make(chan error, 1)
		go func() { closed <- c.closeAll() }()
		why := errDown
		select {
		case c.closed = <-closed:
			c.places.close()
			return
		case <-c.places.state.Load().failed:
		case <-ctx.Done():
			why = context.Cause(ctx)
		}
		select {
		case c.closed = <-closed:
		case <-time.After(closeTimeout):
			c.closed = fmt.Errorf("close the cache: %w", why)
		}
		c.places.close()
	})
	return c.closed
}
