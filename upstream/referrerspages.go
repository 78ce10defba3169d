package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// maxListings limits how many lists of referrers are kept whose pages have
	// not all come, listingTime for how long. Their bytes are limited by
	// maxList, all together.
	maxListings = 64
	listingTime = 10 * time.Minute
	// maxVain is how many pages in a row may bring nothing new.
	maxVain = 10
)

// listing is a list of referrers of which some pages have come.
type listing struct {
	list    ReferrersList
	next    *url.URL // the page that comes next; nil for the first one
	visited map[string]bool
	listed  map[Digest]bool
	bytes   int64
	vain    int       // pages in a row that brought nothing new
	broken  error     // why its pages do not make up a list
	until   time.Time // when it is forgotten, unless more comes
}

func newListing() *listing { return &listing{visited: map[string]bool{}, listed: map[Digest]bool{}} }

// listReferrers requests all pages of a list.
//
// Some registries take seconds for a page and have a hundred of them. What has
// come when the time is over is kept, and the next request continues there. The
// list is as old as its first page. Pages that lead in a circle are remembered,
// so that they are not requested over and over.
//
// A list that was continued may be older than what is asked for, or have begun
// while a mirror could not ask. It is then read once more: only one that takes
// too long for that is answered as it is.
func (r *Remote) listReferrers(ctx context.Context, of content) (ReferrersList, error) {
	oldest := oldestWished(ctx)
	l, kept := r.listings.take(of)
	list, err := r.continueList(ctx, of, l, kept)
	if !kept || err != nil || !list.At.Before(oldest) && !list.Stale {
		return list, err
	}
	again, err := r.continueList(ctx, of, newListing(), false)
	if err == nil || len(again.Manifests) == 0 && (definite(err) || errors.Is(err, errNoReferrers)) {
		return again, err
	}
	return list, nil
}

func (r *Remote) continueList(ctx context.Context, of content, l *listing, kept bool) (ReferrersList, error) {
	if kept && l.broken != nil {
		r.listings.put(of, l)
		return l.soFar(), l.broken
	}
	pages := len(l.visited)
	err := r.readPages(ctx, of, l)
	if kept && len(l.visited) == pages && (errors.Is(err, ErrInvalidResponse) || errors.Is(err, ErrThirdParty)) {
		// The registry, or the one that it referred to, does not know this page
		// any more.
		l, pages = newListing(), 0
		err = r.readPages(ctx, of, l)
	}
	if err == nil || l.next == nil && l.broken == nil {
		return l.list, err
	}
	if l.broken != nil {
		l.until = time.Now().Add(min(max(time.Duration(len(l.visited)), 10)*time.Second, listingTime))
		r.listings.put(of, l)
	} else if !errors.Is(err, ErrInvalidResponse) {
		if len(l.visited) > pages {
			l.until = time.Now().Add(listingTime)
		}
		r.listings.put(of, l)
	}
	if errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnsupported) {
		// It has listed something, so this is no answer about the list.
		err = &listError{"a later page: " + err.Error()}
	}
	return l.soFar(), err
}

// soFar returns the list so far, which does not change any more.
func (l *listing) soFar() ReferrersList {
	list := l.list
	list.Manifests = slices.Clone(list.Manifests)
	return list
}

// readPages requests the pages that have not come yet. Unless it returns nil,
// it can be called again.
func (r *Remote) readPages(ctx context.Context, of content, l *listing) error {
	for {
		page, err := r.referrersPage(ctx, of, l.next, maxList-l.bytes)
		if errors.Is(err, errTooLarge) {
			l.broken = &listError{fmt.Sprintf("more than %d bytes", int64(maxList))}
			return l.broken
		}
		if err != nil {
			return err
		}
		r.sawReferrers()
		pageArrived(ctx)
		if l.list.At.IsZero() || page.said.Before(l.list.At) {
			l.list.At = page.said
		}
		l.bytes += page.bytes
		l.list.Stale = l.list.Stale || page.stale
		l.list.Unusable += page.Unusable
		l.visited[page.at.String()] = true
		l.add(page.Entries)
		next := page.next
		switch {
		case page.linkErr != nil:
			l.broken = page.linkErr
		case next == nil:
			return nil
		case l.visited[next.String()], l.vain > maxVain:
			l.broken = &listError{"its pages lead in a circle"}
		case len(l.visited) >= maxPages:
			l.broken = &listError{fmt.Sprintf("more than %d pages", maxPages)}
		}
		if l.broken != nil {
			return l.broken
		}
		l.next = next
	}
}

// add adds the entries of a page.
func (l *listing) add(entries []Descriptor) {
	before := len(l.listed)
	for _, d := range entries {
		if !l.listed[d.Digest] {
			l.listed[d.Digest] = true
			l.list.Manifests = append(l.list.Manifests, d)
		}
	}
	if l.vain++; len(l.listed) > before {
		l.vain = 0
	}
}

// listings are lists of which some pages have come, the oldest first. The zero
// value is empty.
type listings struct {
	mu   sync.Mutex
	kept []keptListing
}

type keptListing struct {
	of content
	*listing
}

// take takes a list that is kept, or returns a new one.
func (s *listings) take(of content) (l *listing, kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for i, k := range s.kept {
		if k.of == of {
			s.kept = slices.Delete(s.kept, i, i+1)
			return k.listing, true
		}
	}
	return newListing(), false
}

// put keeps a list, and forgets the oldest ones if there are too many.
func (s *listings) put(of content, l *listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, k := range s.kept {
		if k.of == of {
			if len(k.visited) > len(l.visited) {
				return // another request has come further
			}
			s.kept = slices.Delete(s.kept, i, i+1)
			break
		}
	}
	s.kept = append(s.kept, keptListing{of, l})
	s.forget()
}

func (s *listings) forget() {
	now := time.Now()
	s.kept = slices.DeleteFunc(s.kept, func(k keptListing) bool { return now.After(k.until) })
	var bytes int64
	for i := len(s.kept) - 1; i >= 0; i-- {
		if bytes += s.kept[i].bytes; bytes > maxList || len(s.kept)-i > maxListings {
			s.kept = slices.Delete(s.kept, 0, i+1)
			return
		}
	}
}

// pagesKey is the key of a context's function that is called for each page of
// referrers that has come.
type pagesKey struct{}

func withPages(ctx context.Context, arrived func()) context.Context {
	return context.WithValue(ctx, pagesKey{}, arrived)
}

func pageArrived(ctx context.Context) {
	if arrived, ok := ctx.Value(pagesKey{}).(func()); ok {
		arrived()
	}
}
