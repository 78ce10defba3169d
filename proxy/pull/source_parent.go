package pull

import (
	"context"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream"
)

// parent is a source of an endpoint that may be a mirror itself. If that could
// not ask its own upstream, it says so (Warning: 110), and what it lists, or that
// it lists nothing, is no more than what it remembers.
type parent struct{ of source }

func (s parent) answer(ctx context.Context, q *question) referrers.Answer {
	a := s.of.answer(ctx, q)
	if !a.Warned || a.State == referrers.CannotTell {
		return a
	}
	a.State, a.Err = referrers.CannotTell, upstream.ErrStale
	return a
}
