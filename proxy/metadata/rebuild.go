package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
)

const (
	// rebuildPage is how many manifests of a repository are in memory at once.
	rebuildPage = 1000
	// rebuildGroup is how many members are put before they are made durable.
	rebuildGroup = 4000
)

// RebuildMembers records again what the manifests on record reference and
// attach, after the records of members and of attestations were lost. It returns the number of manifests. It takes
// the same memory however many there are, but for the names of the repositories.
func (l *Ledger) RebuildMembers(ctx context.Context) (manifests int, err error) {
	repos, err := l.Repositories()
	if err != nil {
		return 0, err
	}
	r := rebuilding{l: l}
	for _, repo := range repos {
		err := l.inPages(bucketManifest, repo, "", func(page []record) error { return r.rebuild(ctx, repo, page) })
		if err != nil {
			return r.manifests, err
		}
	}
	return r.manifests, l.Flush(ctx)
}

type rebuilding struct {
	l         *Ledger
	manifests int
	marked    int // as private
	waiting   int // records that may not be durable
}

// rebuild records what the manifests of a page reference and attach.
func (r *rebuilding) rebuild(ctx context.Context, repo Repository, page []record) error {
	r.manifests += len(page)
	for _, raw := range page {
		var m Manifest
		if json.Unmarshal(raw.value, &m) != nil || m.Wide {
			continue // of a wide one the members are not on record, and whom it attaches neither
		}
		for _, named := range m.Blobs {
			if len(named.URLs) == 0 && referrers.NamesVerifiedBlobs(m.MediaType) {
				// Without a copy in memory: there are more of them than memory is for.
				r.l.putNamed(Key(repo, named.Digest.String()), named.Size, false)
				r.waiting++
			}
		}
		for _, a := range referrers.AttestationsAmong(m.Children) {
			r.l.PutAttached(repo, a.Subject, a.Entry)
			r.l.PutAttestation(repo, a.Entry.Digest)
			r.waiting += 2
		}
		if err := r.pause(ctx); err != nil {
			return fmt.Errorf("rebuild the records of blobs: %w", err)
		}
	}
	return nil
}

// pause makes what was put durable if it is much.
func (r *rebuilding) pause(ctx context.Context) error {
	if r.waiting < rebuildGroup {
		return nil
	}
	r.waiting = 0
	return r.l.Flush(ctx)
}

// record is a record as it is stored.
type record struct {
	key   string
	value []byte
}

// inPages calls do for the records of a repository whose digests begin with
// from, with a page of them at a time. If there are more, it takes those apart
// that differ in the next digit.
func (l *Ledger) inPages(b cache.Bucket, repo Repository, from string, do func(page []record) error) error {
	var page []record
	more := false
	err := l.records.Scan(b, Key(repo, from), func(key string, value []byte) bool {
		if more = len(page) == rebuildPage; !more {
			page = append(page, record{key, bytes.Clone(value)})
		}
		return !more
	})
	if err != nil {
		return err
	}
	if !more {
		return do(page)
	}
	for _, next := range longer(from) {
		if err := l.inPages(b, repo, next, do); err != nil {
			return err
		}
	}
	return nil
}

// longer are the beginnings of digests that are one digit longer.
func longer(from string) (all []string) {
	starts := []string{from}
	if from == "" {
		starts = []string{"sha256:", "sha384:", "sha512:"}
	}
	for _, start := range starts {
		for _, digit := range "0123456789abcdef" {
			all = append(all, start+string(digit))
		}
	}
	return all
}
