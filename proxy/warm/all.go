package warm

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
)

// Wanted is one line of what is to be fetched: an image, or all images of a
// repository whose tags match a pattern.
type Wanted struct {
	Selection retention.Selection
	// Pin has the image pinned, as far as it is selected, before it is fetched.
	Pin bool
}

// IsPattern says whether a reference is a pattern of tags, as in v1.*.
func IsPattern(ref string) bool { return strings.ContainsAny(ref, "*?[") }

// Result is what has become of several images.
type Result struct {
	Images []ImageResult `json:"images"`
	Completion
}

// ImageResult is what has become of one image. Error is empty if it is all there.
type ImageResult struct {
	Image string `json:"image"`
	Error string `json:"error,omitempty"`
	Completion
}

// Failed returns the images that are not all there.
func (r Result) Failed() []ImageResult {
	return slices.DeleteFunc(slices.Clone(r.Images), func(i ImageResult) bool { return i.Error == "" })
}

// Err says how many images are not all there; nil if none is missing.
func (r Result) Err() error {
	if n := len(r.Failed()); n > 0 {
		return fmt.Errorf("%d of %d images are %w", n, len(r.Images), ErrIncomplete)
	}
	return nil
}

// FetchAll fetches images, as many at a time as there are jobs. What fails does
// not prevent the rest from being fetched. The images are in the order in which
// they were wanted; those of a pattern are sorted by tag.
func (f *Fetcher) FetchAll(ctx context.Context, wanted []Wanted, opts FetchOptions) (Result, error) {
	r := f.newRun(opts)
	results := make([][]ImageResult, len(wanted))
	// One image after the other is begun, so that what is interrupted has whole
	// images and not the beginnings of all.
	turns := make(chan struct{}, r.opts.Jobs)
	var all sync.WaitGroup
	for n, w := range wanted {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			results[n] = []ImageResult{r.ended(w.Selection.Image.String(), Completion{}, context.Cause(ctx))}
			continue
		}
		all.Go(func() {
			defer func() { <-turns }()
			results[n] = r.fetchWanted(ctx, w)
		})
	}
	all.Wait()
	sum := Result{Images: slices.Concat(results...)}
	for _, i := range sum.Images {
		sum.Completion.add(i.Completion)
	}
	return sum, nil
}

func (r *run) fetchWanted(ctx context.Context, w Wanted) (all []ImageResult) {
	if !IsPattern(w.Selection.Image.Ref) {
		done, err := r.fetchPinned(ctx, w)
		return []ImageResult{r.ended(w.Selection.Image.String(), done, err)}
	}
	pattern := w.Selection.Image
	tags, err := r.matching(ctx, pattern)
	if err != nil {
		return []ImageResult{r.ended(pattern.String(), Completion{}, err)}
	}
	for _, tag := range tags {
		w.Selection.Image.Ref = tag
		done, err := r.fetchPinned(ctx, w)
		all = append(all, r.ended(w.Selection.Image.String(), done, err))
	}
	return all
}

// ended tells how an image has ended.
func (r *run) ended(image string, done Completion, err error) ImageResult {
	result := ImageResult{Image: image, Completion: done}
	e := Event{Event: EventImage, Image: image, Result: &done}
	if err != nil {
		result.Error, e.Error = err.Error(), err.Error()
	}
	r.report(e)
	return result
}

// fetchPinned fetches an image, and pins it before that if it is to be pinned:
// nothing of it is evicted meanwhile. An image that the upstream does not have is
// not pinned.
func (r *run) fetchPinned(ctx context.Context, w Wanted) (Completion, error) {
	ledger, image := r.fetcher.opts.Ledger, w.Selection.Image
	if !w.Pin {
		return r.fetch(ctx, w.Selection)
	}
	if err := r.fetcher.opts.Puller.Check(image.Repository); err != nil {
		return Completion{}, err
	}
	if w.Selection.At != "" { // that is what is wanted, wherever the tag is
		image.Ref = w.Selection.At.String()
	}
	had := ledger.HasPin(image.Repository, image.Ref)
	before := ledger.PinScope(image)
	ledger.PutPinOf(image, scopeOf(w.Selection))
	if err := ledger.Flush(ctx); err != nil {
		return Completion{}, fmt.Errorf("pin %s: %w", image, err)
	}
	done, err := r.fetch(ctx, w.Selection)
	var none *retention.NoPlatformError
	if errors.Is(err, errNoImage) || errors.As(err, &none) {
		if ledger.DropPin(image); had {
			ledger.PutPinOf(image, before)
		}
	}
	return done, err
}

func scopeOf(s retention.Selection) metadata.PinScope {
	return metadata.PinScope{Platforms: retention.FormatPlatforms(s.Platforms), NoReferrers: !s.Referrers}
}

// matching returns the tags of a repository that match a pattern, sorted. Tags
// that carry referrers match only a pattern that begins as they do.
func (r *run) matching(ctx context.Context, pattern Reference) ([]string, error) {
	if _, err := path.Match(pattern.Ref, ""); err != nil {
		return nil, fmt.Errorf("%s is no pattern: %w", pattern, err)
	}
	var found []string
	total := 0
	for page := (url.Values{}); page != nil; {
		var list pull.Tags
		err := r.request(ctx, limitClass{upstream: pattern.Repository.Upstream}, func() (err error) {
			list, err = r.fetcher.opts.Puller.Tags(ctx, pattern.Repository, page)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("tags of %s: %w", pattern.Repository, err)
		}
		for _, tag := range list.Tags {
			total++
			carries := strings.HasPrefix(tag, "sha256-") && !strings.HasPrefix(pattern.Ref, "sha256-")
			if ok, _ := path.Match(pattern.Ref, tag); ok && !carries {
				found = append(found, tag)
			}
		}
		page = list.Next
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: none of the %d tags of %s matches %s", errNoImage, total, pattern.Repository, pattern.Ref)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
