package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// oldMarked is the key of the record that says that MarkOld is done.
const oldMarked = "old members"

// MarkOld records that what older versions of the program have stored for some
// upstreams may be private: they did not note what they fetched with
// credentials. It does so once for a cache.
func (l *Ledger) MarkOld(ctx context.Context, upstreams []string) error {
	if l.has(bucketStored, oldMarked) {
		return nil
	}
	repos, err := l.repositoriesIn(bucketMember)
	if err != nil {
		return fmt.Errorf("look for old records of blobs: %w", err)
	}
	r := rebuilding{l: l}
	for _, repo := range repos {
		if !slices.Contains(upstreams, repo.Upstream) {
			continue
		}
		err := l.inPages(bucketMember, repo, "", func(page []record) error { return r.markOld(ctx, repo, page) })
		if err != nil {
			return fmt.Errorf("mark old records of blobs: %w", err)
		}
	}
	if r.marked > 0 {
		if err := l.Flush(ctx); err != nil {
			return err
		}
	}
	l.records.Put(bucketStored, oldMarked, []byte{1})
	return nil
}

func (r *rebuilding) markOld(ctx context.Context, repo Repository, page []record) error {
	for _, raw := range page {
		var m Member
		if json.Unmarshal(raw.value, &m) == nil && m.IsOld() {
			r.l.PutPrivate(Digest(strings.TrimPrefix(raw.key, Key(repo, ""))))
			r.marked++
			r.waiting++
		}
	}
	return r.pause(ctx)
}
