package pull

import (
	"fmt"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// errNoAlgorithm means that a digest is of an algorithm that is not known, or is
// none at all.
var errNoAlgorithm = fmt.Errorf("%w: its digest is of an algorithm that is not known", referrers.ErrUnverified)

// checkVerifiable refuses to fetch what could not be verified. A manifest that
// names such content is served as any other: clients may have other ways to get
// it (image-spec, "Digests"). Requests for it are refused as they are parsed, and
// this is for what manifests, lists and records name.
func checkVerifiable(d Digest) error {
	if d.Validate() != nil {
		return fmt.Errorf("%.140q: %w", d, errNoAlgorithm)
	}
	return nil
}
