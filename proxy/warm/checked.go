package warm

import (
	"context"
	"slices"
	"time"
)

// checked is what is known of which pinned images are complete. Only [Pinner.Run]
// uses it.
type checked struct {
	all        time.Time // when all of them were checked
	lost       uint64    // [store.Store.Lost] then
	incomplete []Reference
}

// incomplete returns the pinned images that are not known to be complete, and
// whose upstream may be asked. To look at all of them takes long where a pattern pins many. So it looks at those that
// were incomplete, and at those in repositories that have changed; at all only
// once an hour, and if content was lost.
func (p *Pinner) incomplete(ctx context.Context) []Reference {
	// What changes from here on is looked at the next time.
	changed, lost, now := p.opts.Ledger.TakeChanged(), p.opts.Store.Lost(), time.Now()
	var due []Reference
	if c := p.checked; c.all.IsZero() || now.Sub(c.all) >= allPinsInterval || lost != c.lost {
		var whole bool
		if due, whole = p.allPinned(); whole {
			p.checked.all, p.checked.lost = now, lost
		}
	} else {
		due = append(p.stillPinned(c.incomplete), p.pinnedIn(changed)...)
	}
	seen := make(map[Reference]bool, len(due))
	due = slices.DeleteFunc(due, func(r Reference) bool {
		again := seen[r]
		seen[r] = true
		return again || p.opts.Puller.IsOffline(r.Repository.Upstream) || p.opts.Retention.HasAllOf(ctx, p.selection(r), true)
	})
	p.checked.incomplete = slices.Clone(due)
	return due
}

// allPinned returns all pinned images, and whether these are all: if records can't
// be read they are not.
func (p *Pinner) allPinned() (all []Reference, whole bool) {
	all, err := p.Pins()
	if err != nil {
		p.log.Error("pins cannot be read", "error", err)
	}
	all, whole = append(all, p.opts.Configured...), err == nil
	if !p.opts.Ledger.HasConfigPins() {
		return all, whole
	}
	// Patterns apply to images that have been pulled.
	err = p.opts.Ledger.EachTag(func(repo Repository, tag string, _ Digest) {
		if p.opts.Ledger.IsPinnedByConfig(repo, tag) {
			all = append(all, Reference{Repository: repo, Ref: tag})
		}
	})
	if err != nil {
		p.log.Error("tags cannot be read", "error", err)
	}
	return all, whole && err == nil
}

// pinnedIn returns the pinned images of some repositories.
func (p *Pinner) pinnedIn(repos []Repository) (all []Reference) {
	if len(repos) == 0 {
		return nil
	}
	pins, err := p.Pins()
	if err != nil {
		p.log.Error("pins cannot be read", "error", err)
	}
	in := make(map[Repository]bool, len(repos))
	for _, repo := range repos {
		in[repo] = true
	}
	all = slices.DeleteFunc(append(pins, p.opts.Configured...), func(r Reference) bool { return !in[r.Repository] })
	if !p.opts.Ledger.HasConfigPins() {
		return all
	}
	for _, repo := range repos {
		for _, tag := range p.opts.Ledger.TagsOf(repo) {
			if p.opts.Ledger.IsPinnedByConfig(repo, tag) {
				all = append(all, Reference{Repository: repo, Ref: tag})
			}
		}
	}
	return all
}

// stillPinned returns those images that are still pinned.
func (p *Pinner) stillPinned(all []Reference) []Reference {
	return slices.DeleteFunc(slices.Clone(all), func(r Reference) bool {
		return !p.opts.Ledger.IsPinned(r.Repository, r.Ref) && !slices.Contains(p.opts.Configured, r)
	})
}
