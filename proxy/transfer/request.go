package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

// CreateRequest says what a bundle is to have.
type CreateRequest struct {
	Images []retention.Selection
	// All adds every image that is cached, and Pinned those that are pinned, with
	// Platforms and Referrers.
	All, Pinned bool
	Platforms   []ocispec.Platform
	Referrers   bool
	// Have is what the other side has.
	Have bundle.Have
	// Asked is what was asked for, as it was written.
	Asked []string
}

// Create writes a bundle, after what is missing of its images has been fetched.
// It returns the errors of Plan before it has written anything. If it returns
// one later, what was written is no bundle.
func (t *Transfer) Create(ctx context.Context, request CreateRequest, to io.Writer) error {
	all := request.Images
	if request.All || request.Pinned {
		kept, err := t.kept(ctx, request)
		if err != nil {
			return err
		}
		all = append(slices.Clone(all), kept...)
	}
	all = once(all)
	if len(all) == 0 {
		return fmt.Errorf("%w: there is no image to put in a bundle", ErrIncomplete)
	}
	if !t.opts.Offline {
		for _, s := range all {
			if err := t.fetch(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.Image, err)
			}
		}
	}
	plan, err := t.Plan(ctx, all, request.Have, request.Asked)
	if err != nil {
		return err
	}
	defer plan.Close()
	return plan.Write(ctx, to)
}

// once are images without those that were named before.
func once(all []retention.Selection) (out []retention.Selection) {
	type name struct {
		Reference

		at Digest
	}
	seen := make(map[name]bool, len(all))
	for _, s := range all {
		if n := (name{s.Image, s.At}); !seen[n] {
			seen[n] = true
			out = append(out, s)
		}
	}
	return out
}

// kept are the images that are cached, or pinned, sorted by name.
func (t *Transfer) kept(ctx context.Context, request CreateRequest) (all []retention.Selection, err error) {
	list, err := t.opts.Retention.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	for _, image := range list.Images {
		if !request.All && !image.Pinned {
			continue
		}
		s := retention.Selection{Platforms: request.Platforms, Referrers: request.Referrers}
		s.Image.Repository = Repository{Upstream: image.Upstream, Name: image.Repository}
		isList := false
		for _, tag := range image.Tags {
			stem, _, _ := strings.Cut(tag, ".")
			if _, refers := referrers.SubjectOf(stem); refers {
				isList = true // it goes with its subject, as an answer
				continue
			}
			s.Image.Ref = tag
			all = append(all, s)
		}
		if len(image.Tags) == 0 || !isList && s.Image.Ref == "" {
			s.Image.Ref = image.Digest.String()
			all = append(all, s)
		}
	}
	return all, nil
}
