package pull

import (
	"context"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// referrersFromCosign probes cosign's legacy tags. The manifests there have no
// subject: only the name of the tag binds them to one, which is why this is
// opt-in.
func (p *Puller) referrersFromCosign(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	var found []Descriptor
	var errs []error
	for _, probe := range referrers.CosignTags(subject) {
		m, err := p.checkReferrersTag(ctx, u, repo, subject, probe.Tag)
		if errors.Is(err, upstream.ErrNotFound) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		described, err := referrers.Describe(m.Descriptor.MediaType, m.Bytes)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: tag %s: %w", upstream.ErrInvalidResponse, probe.Tag, err))
			continue
		}
		found = append(found, described.As(probe.ArtifactType))
	}
	return found, decisiveError(errs)
}
