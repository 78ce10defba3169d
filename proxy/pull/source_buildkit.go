package pull

import (
	"context"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// buildKitSource are the attestations that cached indexes attach to a subject by
// annotation. Those that name it as their subject always count. Those without a
// subject count if the configuration says so.
type buildKitSource struct{ p *Puller }

func (s buildKitSource) answer(ctx context.Context, q *question) referrers.Answer {
	now := time.Now()
	read := s.p.open(ctx, q, q.attached, func(m Manifest) (Descriptor, error) {
		doc := m.document()
		described, err := referrers.Describe(m.Descriptor.MediaType, doc)
		if err == nil && described.Subject == nil && q.upstream.BuildKitAttestations {
			d := described.As(referrers.AttestationType)
			d.Digest = m.Descriptor.Digest // whatever its algorithm
			return d, nil
		}
		return referrers.DescribeListed(false, m.Descriptor.MediaType, doc, m.Descriptor.Digest, q.subject)
	})
	read.mayLack = true
	return read.answer(referrers.FromBuildKit, now)
}
