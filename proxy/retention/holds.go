package retention

import (
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// holdsOf returns what says whether a blob that a wide manifest names may be
// served for the repository. That it names it is not on record.
func (r *Retention) holdsOf(repo Repository, rec metadata.Manifest) func(Digest) bool {
	holds := r.ledger.Holds
	if referrers.NamesVerifiedBlobs(rec.MediaType) {
		holds = r.ledger.HoldsNamed
	}
	return func(d Digest) bool { return holds(repo, d) }
}
