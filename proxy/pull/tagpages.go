package pull

import (
	"maps"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// maxTagPages is how many tag lists are collected at a time. maxPagedTags
	// is how many tags one of them may have.
	maxTagPages  = 64
	maxPagedTags = 200_000
	// maxTagBytes is what all of them take, in bytes.
	maxTagBytes = 32 << 20
	// tagPageTTL is how long the first pages wait for the next one. Pages that
	// are further apart do not show a list as it was at one moment.
	tagPageTTL = 2 * time.Minute
	// aheadTTL is how long a page waits for the client that will ask for it.
	aheadTTL = 10 * time.Second
	// maxListTimes is of how many repositories the time of the list is known,
	// maxParameters how many parameters of its own an upstream may have.
	maxListTimes  = 16 << 10
	maxParameters = 16
)

// tagPages collects complete tag lists from the pages that clients request one
// after another, so that a list is available when the upstream is not. It knows
// which list is the newest.
type tagPages struct {
	mu    sync.Mutex
	parts *memory.Answers[string, tagPart]          // by repository and what asks for the next page
	times *memory.Answers[string, time.Time]        // when the newest list was asked for, by repository
	ahead *memory.Answers[string, upstream.TagList] // pages that nobody has asked for yet, by query
	// parameters are those that an upstream has named in links to next pages.
	parameters map[string]map[string]bool
}

// tagPart is a list up to some page.
type tagPart struct {
	tags   []string
	began  time.Time // when its first page was asked for
	linked bool      // the upstream links to next pages, so the last one is that without a link
}

func newTagPages() *tagPages {
	parts, err := memory.NewAnswersWithin(maxTagPages, maxTagBytes, func(key string, part tagPart) int { return len(key) + sizeOfTags(part.tags) })
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	times, err := memory.NewAnswers[string, time.Time](maxListTimes)
	if err != nil {
		panic(err) // likewise
	}
	ahead, err := memory.NewAnswersWithin(maxTagPages, maxTagBytes, func(key string, list upstream.TagList) int { return len(key) + sizeOfTags(list.Tags) })
	if err != nil {
		panic(err) // likewise
	}
	return &tagPages{parts: parts, times: times, ahead: ahead, parameters: make(map[string]map[string]bool)}
}

// sizeOfTags is what tags take in memory, in bytes.
func sizeOfTags(tags []string) (n int) {
	const header = 16 // of a string
	for _, tag := range tags {
		n += header + len(tag)
	}
	return n
}

// known returns the part of a query that an upstream is asked: n, last, and what
// it has named itself in a link to a next page.
func (l *tagPages) known(upstreamName string, query url.Values) url.Values {
	l.mu.Lock()
	defer l.mu.Unlock()
	query = maps.Clone(query)
	maps.DeleteFunc(query, func(name string, _ []string) bool {
		return name != "n" && name != "last" && !l.parameters[upstreamName][name]
	})
	return query
}

// add adds a page that was requested with a query. It returns the complete list
// if this was the last page of one, and when its first page was asked for.
func (l *tagPages) add(repo Repository, asked url.Values, began time.Time, got upstream.TagList) (all []string, since time.Time, complete bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	part := tagPart{began: began}
	if !isFirstPage(asked) {
		before, ok := l.parts.Get(pageKey(repo, asked))
		if !ok {
			l.learn(repo.Upstream, got.Next)
			return nil, time.Time{}, false
		}
		part.began, part.linked = before.began, before.linked
		part.tags = append(part.tags, before.tags...)
	}
	part.tags = append(part.tags, got.Tags...)
	next := got.Next
	if n, err := strconv.Atoi(asked.Get("n")); next == nil && !part.linked && err == nil && len(got.Tags) == n && n > 0 {
		// Exactly n tags and no next page: there may be more. If there are more
		// than n in the page, the upstream ignores n.
		next = url.Values{"last": {got.Tags[n-1]}}
	} else if next == nil {
		return part.tags, part.began, err != nil || n > 0
	}
	l.learn(repo.Upstream, got.Next)
	part.linked = part.linked || got.Next != nil
	if len(part.tags) <= maxPagedTags {
		l.parts.Put(pageKey(repo, next), part, tagPageTTL)
	}
	return nil, time.Time{}, false
}

// learn notes the parameters of a link. l.mu is held.
func (l *tagPages) learn(upstreamName string, next url.Values) {
	for name := range next {
		switch own := l.parameters[upstreamName]; {
		case name == "n" || name == "last" || len(own) >= maxParameters:
		case own == nil:
			l.parameters[upstreamName] = map[string]bool{name: true}
		default:
			own[name] = true
		}
	}
}

// putAhead keeps a page for the client that asks for it next.
func (l *tagPages) putAhead(repo Repository, page url.Values, list upstream.TagList, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead.Put(metadata.Key(repo, page.Encode()), list, ttl)
}

// takeAhead returns a page that was kept by putAhead, once.
func (l *tagPages) takeAhead(repo Repository, page url.Values) (upstream.TagList, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := metadata.Key(repo, page.Encode())
	list, ok := l.ahead.Get(key)
	l.ahead.Delete(key)
	return list, ok
}

// pageKey identifies a page by what it continues. Clients may choose another n
// than the link has.
func pageKey(repo Repository, query url.Values) string {
	query = maps.Clone(query)
	query.Del("n")
	return metadata.Key(repo, query.Encode())
}

// keep lets a list be kept that was asked for at a time, unless a newer one has
// been kept.
func (l *tagPages) keep(repo Repository, began time.Time, put func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := metadata.Key(repo, "")
	if newest, ok := l.times.Get(key); ok && newest.After(began) {
		return
	}
	put()
	l.times.Put(key, began, listTimeTTL)
}

// listTimeTTL is longer than any request for a list takes, and than a list is
// fresh.
const listTimeTTL = 30 * 24 * time.Hour

// newest is when the newest list of a repository was asked for; the zero time
// if that is not known.
func (l *tagPages) newest(repo Repository) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, _ := l.times.Get(metadata.Key(repo, ""))
	return t
}

// isFirstPage says whether a query requests the first page of a list.
func isFirstPage(query url.Values) bool {
	for name, values := range query {
		if name != "n" || len(values) > 1 {
			return false
		}
	}
	return true
}
