package pull

import (
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
	// tagPageTTL is how long the first pages wait for the next one. Pages that
	// are further apart do not show a list as it was at one moment.
	tagPageTTL = 2 * time.Minute
)

// tagPages collects complete tag lists from the pages that clients request one
// after another, so that a list is available when the upstream is not.
type tagPages struct {
	mu    sync.Mutex
	parts *memory.Answers[string, []string] // by repository and the query of the next page
}

func newTagPages() *tagPages {
	parts, err := memory.NewAnswers[string, []string](maxTagPages)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &tagPages{parts: parts}
}

// add adds a page that was requested with a query. It returns the complete list
// if this was the last page of one.
func (l *tagPages) add(repo Repository, asked url.Values, got upstream.TagList) (all []string, complete bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isFirstPage(asked) {
		before, ok := l.parts.Get(metadata.Key(repo, asked.Encode()))
		if !ok {
			return nil, false
		}
		all = append(all, before...)
	}
	all = append(all, got.Tags...)
	switch n, err := strconv.Atoi(asked.Get("n")); {
	case got.Next != nil && len(all) <= maxPagedTags:
		l.parts.Put(metadata.Key(repo, got.Next.Encode()), all, tagPageTTL)
		return nil, false
	case got.Next != nil, err == nil && len(got.Tags) == n:
		return nil, false // exactly n tags and no next page: it may be truncated (if there are more than n, the upstream ignores n)
	}
	return all, true
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
