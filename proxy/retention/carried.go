package retention

import (
	"context"
)

// PinnedContent returns the digests of all that pinned images consist of and that
// is here, with their sizes in bytes.
func (r *Retention) PinnedContent(ctx context.Context) (map[Digest]int64, error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer s.watch.End()
	all := make(map[Digest]int64)
	for d := range s.pinnedContent() {
		if size, here := s.sizes[d]; here {
			all[d] = size
		}
	}
	return all, nil
}

// DropUnreferenced deletes those of the digests that no cached manifest
// references, and returns the bytes that were freed. What somebody leases stays.
func (r *Retention) DropUnreferenced(ctx context.Context, digests []Digest) (freed int64, err error) {
	if len(digests) == 0 {
		return 0, nil
	}
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer s.watch.End()
	var strays []Digest
	for _, d := range digests {
		if s.references.content[d] == 0 {
			strays = append(strays, d)
		}
	}
	return r.deleteBlobs(ctx, s, strays), nil
}
