package metadata

import (
	"context"
	"encoding/json"
	"fmt"

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
		if err := r.rebuild(ctx, repo, ""); err != nil {
			return r.manifests, err
		}
	}
	return r.manifests, l.Flush(ctx)
}

type rebuilding struct {
	l         *Ledger
	manifests int
	waiting   int // records that may not be durable
}

// rebuild records the members of the manifests whose digests begin with from. If
// there are many of them, it takes those apart that differ in the next digit.
func (r *rebuilding) rebuild(ctx context.Context, repo Repository, from string) error {
	page, more, err := r.page(repo, from)
	if err != nil {
		return err
	}
	if more {
		for _, next := range longer(from) {
			if err := r.rebuild(ctx, repo, next); err != nil {
				return err
			}
		}
		return nil
	}
	r.manifests += len(page)
	for _, m := range page {
		if m.Wide {
			continue // its members are not on record, and whom it attaches neither
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
		if r.waiting < rebuildGroup {
			continue
		}
		r.waiting = 0
		if err := r.l.Flush(ctx); err != nil {
			return fmt.Errorf("rebuild the records of blobs: %w", err)
		}
	}
	return nil
}

func (r *rebuilding) page(repo Repository, from string) (page []Manifest, more bool, err error) {
	err = r.l.records.Scan(bucketManifest, Key(repo, from), func(_ string, value []byte) bool {
		if more = len(page) == rebuildPage; more {
			return false
		}
		var m Manifest
		if json.Unmarshal(value, &m) == nil {
			page = append(page, m)
		}
		return true
	})
	return page, more, err
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
