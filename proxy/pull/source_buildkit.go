package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// referrersFromBuildKit reads the attestations that cached indexes attach to
// subject by annotation. Those that name it as their subject always count.
// Those without a subject count if the configuration says so.
func (p *Puller) referrersFromBuildKit(ctx context.Context, u Upstream, repo Repository, subject Digest) ([]Descriptor, error) {
	return p.readReferrers(ctx, u, repo, p.ledger.Attached(repo, subject), func(_ Descriptor, m Manifest, err error) (Descriptor, error) {
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
