package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
)

// fetch fetches what is missing of an image by the rules of a pull, so that
// clients join. What leads on comes with each round. Of what can't be fetched it
// returns the first error; that referrers can't be found out is none.
func (t *Transfer) fetch(ctx context.Context, s retention.Selection) error {
	tried := make(map[string]bool)
	for {
		var missing []retention.Part
		if err := t.opts.Retention.Walk(ctx, s, func(p retention.Part) bool {
			if p.State == retention.PartMissing && !tried[string(p.Kind)+p.Of.Digest.String()] {
				missing = append(missing, p)
			}
			return true
		}); err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		for _, part := range missing {
			tried[string(part.Kind)+part.Of.Digest.String()] = true
			err := t.fetchPart(ctx, s, part)
			if err != nil && part.Kind != retention.PartReferrers {
				return fmt.Errorf("%w: %w", ErrIncomplete, err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
}

func (t *Transfer) fetchPart(ctx context.Context, s retention.Selection, part retention.Part) error {
	repo, d := s.Image.Repository, part.Of.Digest
	switch {
	case part.Kind == retention.PartReferrers:
		return t.opts.Puller.FetchReferrers(ctx, repo, d)
	case part.Kind == retention.PartBlob:
		return t.opts.Puller.FetchBlob(ctx, repo, part.Of)
	case d != "":
		return t.opts.Puller.FetchManifest(ctx, repo, d)
	}
	_, err := t.opts.Puller.WaitForManifest(ctx, repo, s.Image.Ref)
	if errors.Is(err, pull.ErrOffline) {
		return nil // what is missing is said by whoever needs it
	}
	return err
}
