package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// attachedByBuildKit opens the attestations that indexes which passed through
// attach to subject by annotation. Those that have it as their subject always
// count; those without one where the configuration says so.
func (p *Puller) attachedByBuildKit(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	return p.openReferrers(ctx, u, repo, p.meta.Attached(repo, subject), func(_ Descriptor, m Manifest, err error) (Descriptor, error) {
		if err != nil {
			return Descriptor{}, err
		}
		described, err := referrers.Describe(m.Descriptor.MediaType, m.Bytes)
		switch {
		case err != nil:
			return Descriptor{}, err
		case described.Subject == nil && u.BuildKitAttestations:
			return described.As(referrers.AttestationType), nil
		case described.Subject == nil || described.Subject.Digest != subject:
			return Descriptor{}, referrers.ErrNotReferrer
		}
		return described.Descriptor, nil
	})
}
