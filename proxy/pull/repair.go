package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// repair writes n bytes starting at off of a blob whose file is damaged there;
// why is the error that was found. The bytes come from a download that starts
// with the sound part of the file, so the first byte requested from the
// upstream is at off or shortly before it. The client sees no interruption, and
// less than one blob is downloaded. As in every download, the last bytes are
// held back until the digest is verified.
func (b *diskBlob) repair(ctx context.Context, w io.Writer, off, n int64, why error) (int64, error) {
	b.p.noteQuarantined(why, b.Size())
	if err := b.p.negative.get(blobKey(b.repo, b.digest)); err != nil {
		return 0, errors.Join(why, err)
	}
	if b.u.Offline {
		return 0, fmt.Errorf("blob %s of %s: %w: %w", b.digest, b.repo, why, ErrOffline)
	}
	source := b.p.newBlobSource(b.u, b.repo, b.digest)
	start := source.startOptions()
	start.Refetch, start.Seed = b.refetch, b.seed
	f, started, err := b.p.flights.Join(source.descriptor(b.Size()), start)
	if err != nil {
		return 0, err
	}
	start.Log.Info("the rest of a damaged blob is downloaded again", "offset", off)
	b.repaired = true
	if f == nil { // another request has repaired it, or it could not be quarantined
		return b.writeCached(ctx, w, off, n)
	}
	repair := &flightBlob{source: source, f: f, started: started, size: b.Size(), repairs: true}
	repair.read(flight.ReadOptions{})
	defer repair.Close()
	return repair.WriteRange(ctx, w, off, n)
}

// writeCached writes n bytes starting at off from the copy that is cached now.
func (b *diskBlob) writeCached(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	cached, err := b.p.openCached(ctx, b.u, b.repo, b.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.digest, upstream.ErrUnavailable, err)
	}
	defer cached.Close()
	if file, ok := cached.(*diskBlob); ok {
		file.refetch = true
	}
	return cached.WriteRange(ctx, w, off, n)
}
