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
	// maxLists is how many lists of tags are put together at a time, maxListed
	// how many tags one of them may have.
	maxLists  = 64
	maxListed = 200_000
	// listFor is how long the first pages wait for the next: a list that is put
	// together over a longer time was never one.
	listFor = 2 * time.Minute
)

// lists puts full lists of tags together from the pages that clients ask for
// one after another, so that there is one when the upstream is gone.
type lists struct {
	mu    sync.Mutex
	parts *memory.Answers[string, []string] // by repository and the query of the next page
}

func newLists() *lists {
	parts, err := memory.NewAnswers[string, []string](maxLists)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &lists{parts: parts}
}

// page takes in a page that was asked for with a query. It returns the full
// list where that page is the end of one.
func (l *lists) page(repo Repository, asked url.Values, got upstream.TagList) (all []string, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isFirst(asked) {
		before, ok := l.parts.Get(metadata.Key(repo, asked.Encode()))
		if !ok {
			return nil, false
		}
		all = append(all, before...)
	}
	all = append(all, got.Tags...)
	switch n, err := strconv.Atoi(asked.Get("n")); {
	case got.Next != nil && len(all) <= maxListed:
		l.parts.Put(metadata.Key(repo, got.Next.Encode()), all, listFor)
		return nil, false
	case got.Next != nil, err == nil && len(got.Tags) == n:
		return nil, false // just as many as were asked for, and no next page: it may be cut (more: n is ignored)
	}
	return all, true
}

// isFirst says whether a query is for the first page of a list.
func isFirst(query url.Values) bool {
	for name, values := range query {
		if name != "n" || len(values) > 1 {
			return false
		}
	}
	return true
}
