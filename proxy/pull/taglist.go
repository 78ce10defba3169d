package pull

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// Tags returns a page of a repository's tags: from the last complete list while
// that is fresh, or if the upstream cannot be asked, and else from the upstream.
// It never returns a truncated list; if there is nothing complete, it returns an
// error.
func (p *Puller) Tags(ctx context.Context, repo Repository, page url.Values) (Tags, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Tags{}, err
	}
	client := ctx
	ctx, cancel := p.asClient(client)
	defer cancel()
	if u.Offline {
		return p.offlineTags(ctx, u, repo, page)
	}
	page = p.requests.tagPages.known(repo.Upstream, page)
	cached, isCached := p.cachedTags(repo, page)
	if isCached && p.isFreshList(u, repo) {
		cached.Outcome = Hit
		return cached, nil
	}
	if err := p.negative.get(tagListKey(repo)); err != nil {
		return Tags{Outcome: Negative}, err
	}
	if list, ok := p.requests.tagPages.takeAhead(repo, page); ok {
		return tagsOf(list), nil
	}
	wait := ctx
	if isCached {
		// The client waits for a limited time. The request itself continues.
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeoutCause(ctx, p.rules.MaxWait, errTooLong)
		defer cancel()
	}
	list, err := p.shareTags(wait, u, repo, page)
	switch {
	case err == nil && list.Stale && isCached:
		cached.Stale, cached.Outcome = true, Stale
		return cached, nil
	case err == nil:
		if isFirstPage(page) && list.Next != nil && !list.Stale {
			p.work.Go(func(ctx context.Context) { p.askAhead(ctx, u, repo, list.Next) })
		}
		return tagsOf(list), nil
	case client.Err() == nil && isCached && IsInconclusive(err):
		cached.Stale, cached.Outcome = true, Stale
		return cached, nil
	}
	return Tags{}, fmt.Errorf("tags of %s: %w", repo, err)
}

// tagsOf is a page of an upstream as it is told to a client.
func tagsOf(list upstream.TagList) Tags {
	answer := Tags{Tags: list.Tags, Next: list.Next, Stale: list.Stale, Outcome: Miss}
	if list.Stale {
		answer.Outcome = Stale
	}
	return answer
}

func tagListKey(repo Repository) string { return "tags\x00" + metadata.Key(repo, "") }

func (p *Puller) shareTags(ctx context.Context, u Upstream, repo Repository, page url.Values) (upstream.TagList, error) {
	return shareRequest(ctx, p, p.requests.others, "tags\x00"+metadata.Key(repo, page.Encode()), func(ctx context.Context) (upstream.TagList, error) {
		return p.fetchTags(ctx, u, repo, page)
	})
}

// askAhead asks for the second page of a list, which clients ask for next. Some
// registries name a next page although there is none (F38), and without it the
// list of a client that knows this would never be complete.
func (p *Puller) askAhead(ctx context.Context, u Upstream, repo Repository, page url.Values) {
	list, err := p.shareTags(ctx, u, repo, page)
	if err != nil || list.Stale {
		p.log.Debug("the second page of a list was not there", "repository", repo.String(), "error", err)
		return
	}
	p.requests.tagPages.putAhead(repo, page, list, min(aheadTTL, p.tagTTL(u)))
}

// fetchTags asks the upstream for a page, and keeps what is known to be a
// complete list. That there is none is remembered for a while.
func (p *Puller) fetchTags(ctx context.Context, u Upstream, repo Repository, page url.Values) (upstream.TagList, error) {
	began := time.Now()
	list, err := u.Registry.Tags(ctx, repo.Name, page)
	switch {
	case errors.Is(err, upstream.ErrNotFound):
		p.negative.put(tagListKey(repo), fmt.Errorf("tags of %s: %w", repo, err))
		p.requests.tagPages.keep(repo, began, func() { p.ledger.DropTagList(repo) })
		return upstream.TagList{}, err
	case err != nil || list.Stale: // what a mirror remembers is no news
		return list, err
	}
	p.negative.delete(tagListKey(repo))
	if all, since, ok := p.requests.tagPages.add(repo, page, began, list); ok {
		p.requests.tagPages.keep(repo, since, func() { p.ledger.PutTagList(repo, all) })
	}
	return list, nil
}

// isFreshList says whether the last complete list is as recent as a tag has to
// be.
func (p *Puller) isFreshList(u Upstream, repo Repository) bool {
	age := time.Since(p.requests.tagPages.newest(repo))
	return age >= 0 && age < p.tagTTL(u)
}

// offlineTags lists the tags whose manifest is cached. That is not what the
// registry would list, so there is a warning.
func (p *Puller) offlineTags(ctx context.Context, u Upstream, repo Repository, page url.Values) (Tags, error) {
	var tags []string
	for _, tag := range p.ledger.TagsOf(repo) {
		rec, ok := p.ledger.Tag(repo, tag)
		if !ok || !rec.GoneSince.IsZero() && !p.isServedWhenGone(u, repo, tag, rec) {
			continue
		}
		if p.ledger.HasManifest(repo, rec.Descriptor.Digest) && p.store.Has(ctx, rec.Descriptor.Digest) {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		return Tags{}, fmt.Errorf("tags of %s: this mirror is offline and has none: %w", repo, upstream.ErrNameUnknown)
	}
	answer, ok := slicePage(tags, page)
	if !ok {
		return Tags{}, fmt.Errorf("tags of %s: %w", repo, ErrOfflineUnknown)
	}
	answer.Outcome = Stale
	answer.Warnings = []string{`299 - "this mirror is offline and lists only the tags that it can serve"`}
	return answer, nil
}

// cachedTags returns the requested page of the last complete list.
func (p *Puller) cachedTags(repo Repository, page url.Values) (Tags, bool) {
	tags, ok := p.ledger.TagList(repo)
	if !ok {
		return Tags{}, false
	}
	return slicePage(deduplicate(tags), page)
}

// slicePage returns a page of a list. It returns false for a page that only the
// upstream can tell.
func slicePage(tags []string, page url.Values) (Tags, bool) {
	for name := range page {
		if name != "n" && name != "last" {
			return Tags{}, false
		}
	}
	answer := Tags{Tags: tags}
	if last := page.Get("last"); last != "" {
		at, found := slices.BinarySearch(tags, last)
		if !slices.IsSorted(tags) {
			at = slices.Index(tags, last)
			if found = at >= 0; !found {
				return Tags{}, false // the upstream's order is not known
			}
		}
		if found {
			at++
		}
		answer.Tags = tags[at:]
	}
	if n, err := strconv.Atoi(page.Get("n")); err == nil && n >= 0 && n < len(answer.Tags) {
		answer.Tags = answer.Tags[:n]
		if n > 0 {
			answer.Next = url.Values{"n": {strconv.Itoa(n)}, "last": {answer.Tags[n-1]}}
		}
	}
	return answer, true
}

// deduplicate removes repeated tags, which some registries list (F33).
// Otherwise a page that continues after a tag could continue after its first
// occurrence again and again.
func deduplicate(tags []string) []string {
	seen := make(map[string]bool, len(tags))
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool {
		again := seen[tag]
		seen[tag] = true
		return again
	})
}
