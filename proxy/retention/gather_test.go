package retention_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// Many images are evicted with few flushes: the first room is made soon, and no
// content is deleted before it is durable that its manifest is forgotten.
func TestManyImagesAreEvictedWithFewFlushes(t *testing.T) {
	disk := memory.New()
	want := fillWithImages(t, disk, 2000) / 2
	order := &removals{Records: disk.Records()}
	m := mirrortest.New(t, mirrortest.NewOrigin(), func(opts *mirror.Options) {
		opts.Records, opts.Blobs = order, removedBlobs{disk.Blobs(), order}
	})
	order.begin()
	freed, err := m.Mirror.Retention.Evict(t.Context(), want)
	if err != nil || freed < want || freed > want+1000 {
		t.Fatalf("%d bytes were freed of %d: %v", freed, want, err)
	}
	if order.early > 0 {
		t.Errorf("%d files were deleted before it was durable that their manifests are forgotten", order.early)
	}
	if images := len(order.images); order.forgotten < 990 || order.forgotten > 1010 || images > 14 {
		t.Errorf("%d images were forgotten, with %d flushes", order.forgotten, images)
	}
	if _, err := m.Mirror.Retention.Evict(t.Context(), want*2); err != nil || m.BytesOnDisk(t) > 0 {
		t.Errorf("%d bytes are left when everything was to be evicted: %v", m.BytesOnDisk(t), err)
	}
	if first := order.images[:3]; !slices.Equal(first, []int{1, 2, 4}) {
		t.Errorf("the first flushes were for %d images", first)
	}
}

// removals notes what is forgotten, made durable and deleted.
type removals struct {
	cache.Records
	mu        sync.Mutex
	watched   bool
	undurable int   // manifests that were forgotten since the last flush
	images    []int // that were forgotten before each flush
	forgotten int
	early     int // files that were deleted although there were such manifests
}

func (r *removals) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched = true
}

func (r *removals) Delete(b cache.Bucket, key string) {
	r.mu.Lock()
	if r.watched && b == "manifest" {
		r.undurable++
		r.forgotten++
	}
	r.mu.Unlock()
	r.Records.Delete(b, key)
}

func (r *removals) Flush(ctx context.Context) error {
	err := r.Records.Flush(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched && r.undurable > 0 {
		r.images, r.undurable = append(r.images, r.undurable), 0
	}
	return err
}

type removedBlobs struct {
	cache.Blobs
	order *removals
}

func (b removedBlobs) Delete(ctx context.Context, d retention.Digest) error {
	b.order.mu.Lock()
	if b.order.undurable > 0 {
		b.order.early++
	}
	b.order.mu.Unlock()
	return b.Blobs.Delete(ctx, d)
}
