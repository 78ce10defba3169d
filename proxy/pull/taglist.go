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

// Tags returns a page of a repository's tags from its upstream, or from the
// last full answer where the upstream can't be asked. A list is never cut
// short: where neither is to be had, that is an error.
func (p *Puller) Tags(ctx context.Context, repo Repository, page url.Values) (Tags, error) {
	u, err := p.admit(repo)
	if err != nil {
		return Tags{}, err
	}
	if !p.opts.Offline {
		list, err := once(ctx, p, &p.asks, "tags\x00"+metadata.Key(repo, page.Encode()), func(ctx context.Context) (upstream.TagList, error) {
			return u.Registry.Tags(ctx, repo.Name, page)
		})
		if err == nil {
			if all, ok := p.lists.page(repo, page, list); ok {
				p.meta.PutTagList(repo, all)
			}
			return Tags{Tags: list.Tags, Next: list.Next, Outcome: Miss}, nil
		}
		if ctx.Err() != nil || !cannotTell(err) {
			return Tags{}, fmt.Errorf("tags of %s: %w", repo, err)
		}
		if kept, ok := p.keptTags(repo, page); ok {
			return kept, nil
		}
		return Tags{}, fmt.Errorf("tags of %s: %w", repo, err)
	}
	if kept, ok := p.keptTags(repo, page); ok {
		return kept, nil
	}
	return Tags{}, fmt.Errorf("tags of %s: %w", repo, ErrOffline)
}

// keptTags cuts the asked page out of the last full answer.
func (p *Puller) keptTags(repo Repository, page url.Values) (Tags, bool) {
	tags, ok := p.meta.TagList(repo)
	if !ok {
		return Tags{}, false
	}
	tags = withoutRepeats(tags)
	answer := Tags{Tags: tags, Stale: true, Outcome: Stale}
	if last := page.Get("last"); last != "" {
		at, found := slices.BinarySearch(tags, last)
		if !slices.IsSorted(tags) {
			at = slices.Index(tags, last)
			if found = at >= 0; !found {
				return Tags{}, false // an order that is the upstream's own secret
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

// withoutRepeats leaves out what is listed again, as some registries do (F33):
// a page that goes on after a tag must not go on after its first mention.
func withoutRepeats(tags []string) []string {
	seen := make(map[string]bool, len(tags))
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool {
		again := seen[tag]
		seen[tag] = true
		return again
	})
}
