package retention

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrPinned means that an image is not purged because it is pinned.
	ErrPinned = errors.New("it is pinned")
	// ErrNotCached means that the cache has nothing that matches the target.
	ErrNotCached = errors.New("it is not in the cache")
	// ErrNoTarget means that a target names nothing.
	ErrNoTarget = errors.New("purge: name a tag, a digest or a repository, or say that everything is meant: {\"all\": true}")
)

// Target is what to purge: a tag or a digest in a repository, a whole
// repository if Ref is empty, or a digest in every repository if Repository is
// empty. A target that names nothing stands for nothing: see [Everything].
type Target Reference

// Everything is the target of a purge of the whole cache. It has to be said: no
// target is that by what it lacks. Its Ref can be no tag.
func Everything() Target { return Target{Ref: "*"} }

// check returns ErrNoTarget if a target names nothing, or lacks a part.
func (t Target) check() error {
	_, err := digest.Parse(t.Ref)
	switch named := t.Repository.Upstream != "" && t.Repository.Name != ""; {
	case t == Everything(), named:
		return nil
	case t.Repository == Repository{} && err == nil:
		return nil // a digest in every repository
	}
	return ErrNoTarget
}

// Purged says what a purge removed, or would remove.
type Purged struct {
	Tags      []string `json:"tags"`      // with their repositories
	Manifests []string `json:"manifests"` // with their repositories
	Blobs     int      `json:"blobs"`     // files, including those of manifests
	Drafts    int      `json:"drafts"`    // unfinished downloads
	// Referrers are the manifests whose known referrers are forgotten, and that
	// were not in the cache themselves, with their repositories.
	Referrers []string `json:"referrers"`
	Bytes     int64    `json:"bytes"`
}

// Purge removes the target. If the target is one of several tags of an image,
// it removes only the tag. With dryRun set, it removes nothing. It returns
// ErrNotCached if nothing in the cache matches the target.
//
// A download that is running is left alone, and so is its draft, which is not
// kept yet: clients are reading from it. What becomes of it is in the cache
// afterwards, as if it had been requested after the purge.
//
// A purge of everything forgets all that is known, except for pins. It returns
// ErrPinned if a pinned image is in the cache.
func (r *Retention) Purge(ctx context.Context, target Target, dryRun bool) (Purged, error) {
	if err := target.check(); err != nil {
		return Purged{}, err
	}
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	take := r.snapshot
	if target.isTag() {
		take = func(ctx context.Context) (*snapshot, error) { return r.partForTag(ctx, target) }
	}
	s, err := take(ctx)
	if err != nil {
		return Purged{}, err
	}
	defer s.watch.End()
	p, err := s.planPurge(target)
	if err != nil {
		return Purged{}, err
	}
	result := p.describe()
	if dryRun {
		return result, nil
	}
	for _, n := range p.untagged {
		r.ledger.DropTag(n.repo, target.Ref)
	}
	for _, k := range p.subjects {
		r.ledger.DropReferrers(k.reference().Repository, k.Subject)
	}
	switch {
	case target == Everything():
		r.ledger.DropRepositories()
	case target.isRepository():
		r.ledger.DropRepository(target.Repository)
	}
	result.Bytes, err = r.removeAll(ctx, s, p.removed)
	return result, err
}

// isRepository says whether the target is all that is in a repository, or in all
// of them.
func (t Target) isRepository() bool { return t.Ref == "" || t == Everything() }

// isTag says whether the target is a tag of a repository.
func (t Target) isTag() bool {
	_, err := digest.Parse(t.Ref)
	return !t.isRepository() && err != nil
}

// covers says whether the target is in a repository, whatever it is there.
func (t Target) covers(repo Repository) bool {
	return t.Repository == Repository{} || t.Repository == repo
}

// describe says what is removed.
func (p *purge) describe() Purged {
	result := Purged{
		Tags: []string{}, Manifests: []string{}, Referrers: []string{},
		Blobs: len(p.removed.blobs), Drafts: len(p.removed.drafts), Bytes: p.bytes(p.removed),
	}
	for _, k := range p.subjects {
		result.Referrers = append(result.Referrers, k.reference().String())
	}
	for _, n := range p.untagged {
		result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: p.target.Ref}.String())
	}
	for _, n := range p.removed.manifests {
		result.Manifests = append(result.Manifests, n.reference().String())
		for _, tag := range n.tags {
			result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: tag}.String())
		}
	}
	slices.Sort(result.Tags)
	slices.Sort(result.Manifests)
	return result
}
