package pull

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// cosignSource are cosign's legacy tags. The manifests there have no subject:
// only the name of the tag binds them to one, which is why this is opt-in.
type cosignSource struct{ p *Puller }

func (s cosignSource) answer(ctx context.Context, q *question) referrers.Answer {
	var read opened
	oldest := time.Now()
	for _, probe := range referrers.CosignTags(q.subject) {
		m, said, err := s.p.checkReferrersTag(ctx, q, probe.Tag)
		if !said.IsZero() && said.Before(oldest) {
			oldest = said
		}
		switch {
		case errors.Is(err, upstream.ErrNotFound):
		case err != nil:
			read.fail(err)
		case m.Stale:
			read.fail(upstream.ErrStale)
		default:
			d, err := probe.Describe(m.Descriptor.MediaType, m.document(), m.Descriptor.Digest, q.subject)
			read.note(m.Descriptor, d, err)
		}
	}
	return read.answer(referrers.FromCosign, oldest)
}
