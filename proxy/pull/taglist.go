package pull

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// Tags returns a page of a repository's tags: from the upstream, or from the
// last complete list if the upstream cannot be asked. It never returns a
// truncated list; if neither is available, it returns an error.
func (p *Puller) Tags(ctx context.Context, repo Repository, page url.Values) (Tags, error) {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return Tags{}, err
	}
	client := ctx
	ctx, cancel := p.asClient(client)
	defer cancel()
	if !p.rules.Offline {
		list, err := shareRequest(ctx, p, p.requests.others, "tags\x00"+metadata.Key(repo, page.Encode()), func(ctx context.Context) (upstream.TagList, error) {
			return u.Registry.Tags(ctx, repo.Name, page)
		})
		if err == nil {
			if all, ok := p.requests.tagPages.add(repo, page, list); ok {
				p.ledger.PutTagList(repo, all)
			}
			return Tags{Tags: list.Tags, Next: list.Next, Outcome: Miss}, nil
		}
		if client.Err() != nil || !IsInconclusive(err) {
			return Tags{}, fmt.Errorf("tags of %s: %w", repo, err)
		}
		if cached, ok := p.cachedTags(repo, page); ok {
			return cached, nil
		}
		return Tags{}, fmt.Errorf("tags of %s: %w", repo, err)
	}
	if cached, ok := p.cachedTags(repo, page); ok {
		return cached, nil
	}
	return Tags{}, fmt.Errorf("tags of %s: %w", repo, ErrOffline)
}

// cachedTags returns the requested page of the last complete list.
func (p *Puller) cachedTags(repo Repository, page url.Values) (Tags, bool) {
	tags, ok := p.ledger.TagList(repo)
	if !ok {
		return Tags{}, false
	}
	tags = deduplicate(tags)
	answer := Tags{Tags: tags, Stale: true, Outcome: Stale}
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
