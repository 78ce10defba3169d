package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

const (
	// maxList limits the bytes of one list (tags, referrers) with all its
	// pages, maxPages the number of its pages.
	maxList  = 64 << 20
	maxPages = 1000
	// maxTagPage limits the bytes of one page of tags: half a million of usual
	// ones. maxTag limits a name, in bytes; the specification has 128.
	maxTagPage = 16 << 20
	maxTag     = 255
	// safePageSize is an n that every registry accepts: ECR accepts no more
	// (W48).
	safePageSize = 1000
	// leastPages is how many pages one request may take in any case, and
	// mostPages how many at most: a registry that lists less in each is asked for
	// the others when the client asks for them.
	leastPages, mostPages = 10, 100
)

var errTagsInACircle = fmt.Errorf("%w: the pages of the list lead in a circle", ErrInvalidResponse)

// Tags implements Registry.
func (r *Remote) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	list, err := r.tags(ctx, repo, page)
	if err != nil {
		return TagList{}, fmt.Errorf("tags of %s: %w", repo, err)
	}
	return list, nil
}

func (r *Remote) tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	n, err := strconv.Atoi(page.Get("n"))
	if err != nil || n <= safePageSize {
		return r.tagPage(ctx, repo, page)
	}
	if !r.smallPages.Load() {
		list, err := r.tagPage(ctx, repo, page)
		if !isPageSizeRefusal(err) {
			return list, err
		}
		list, err = r.tagsInPages(ctx, repo, page, n)
		if err == nil {
			r.smallPages.Store(true)
		}
		return list, err
	}
	return r.tagsInPages(ctx, repo, page, n)
}

// isPageSizeRefusal reports whether a registry may have refused n: with 400 in
// most cases, 405 from ECR.
func isPageSizeRefusal(err error) bool {
	var s *statusError
	if !errors.As(err, &s) || s.form == formPage {
		return false
	}
	return s.status == http.StatusBadRequest || s.status == http.StatusMethodNotAllowed || s.status == http.StatusUnprocessableEntity
}

// tagsInPages assembles a page of n tags from smaller ones. If the registry lists
// fewer in each than it was asked for, it may be shorter, and names the next one:
// what one client asks for does not cost any number of requests.
func (r *Remote) tagsInPages(ctx context.Context, repo string, page url.Values, n int) (TagList, error) {
	all := TagList{Tags: []string{}}
	next := maps.Clone(page)
	left := maxList
	visited := make(map[string]bool)
	for range min(max(2*(n/safePageSize+1), leastPages), mostPages) {
		next.Set("n", strconv.Itoa(min(n-len(all.Tags), safePageSize)))
		list, err := r.tagPage(ctx, repo, next)
		if err != nil {
			return TagList{}, err
		}
		all.Tags = append(all.Tags, list.Tags...)
		all.Stale = all.Stale || list.Stale
		for _, tag := range list.Tags {
			left -= len(tag)
		}
		if left < 0 {
			return TagList{}, fmt.Errorf("%w: more than %d bytes of tags", ErrInvalidResponse, maxList)
		}
		if next = list.Next; next == nil {
			return all, nil
		}
		if next.Del("n"); visited[next.Encode()] {
			return TagList{}, errTagsInACircle
		}
		visited[next.Encode()] = true
		if len(all.Tags) >= n {
			break
		}
	}
	next.Set("n", strconv.Itoa(n)) // the client's next page has the client's size
	all.Next = next
	return all, nil
}

func (r *Remote) tagPage(ctx context.Context, repo string, page url.Values) (TagList, error) {
	resp, err := r.do(ctx, request{kind: "tags", method: http.MethodGet, repo: r.endpoint.prefix + repo, path: "tags/list", query: page, accept: "application/json"})
	if err != nil {
		return TagList{}, err
	}
	defer resp.Body.Close()
	body, done, err := r.readDecoded(resp, maxTagPage)
	defer done()
	if err != nil {
		return TagList{}, readFailed(err)
	}
	tags, err := parseTags(body)
	if err != nil {
		return TagList{}, err
	}
	next, err := nextPage(resp)
	if err != nil {
		return TagList{}, err
	}
	list := TagList{Tags: tags, Stale: isStale(resp)}
	if next != nil {
		list.Next = next.Query()
		list.Next.Del("ns")
	}
	return list, nil
}

// parseTags parses a list of tags. Some registries send null for an emptied
// repository (F33). A response without the member is an error.
func parseTags(body []byte) ([]string, error) {
	var list struct {
		Tags json.RawMessage `json:"tags"`
	}
	tags := []string{}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%w: not a list of tags", ErrInvalidResponse)
	}
	if err := json.Unmarshal(list.Tags, &tags); err != nil {
		return nil, fmt.Errorf("%w: not a list of tags: %w", ErrInvalidResponse, err)
	}
	for _, tag := range tags {
		if len(tag) > maxTag {
			return nil, fmt.Errorf("%w: not a list of tags: one has %d bytes", ErrInvalidResponse, len(tag))
		}
	}
	if tags == nil {
		tags = []string{}
	}
	return tags, nil
}
