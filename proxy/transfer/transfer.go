// Package transfer takes images out of a mirror into a bundle ([Transfer.Create])
// and puts the images of a bundle into a mirror ([Transfer.Import]). What is missing
// of an image is fetched by the rules of a pull.
//
// What it promises, each with the test that guards it:
//
//   - An image is imported whole or not at all (TestAnImageIsImportedWholeOrNot), also
//     when it is killed (TestKilledImports, in cmd/entrepot).
//   - An import that fails leaves what was there before, and nothing else
//     (TestAnImportThatFailsLeavesNothing).
//   - What is there already is not written again (TestAnImportThatWasCutGoesOn).
//   - Both stream: they take no memory that grows with the blobs
//     (TestATransferTakesNoMemoryForBlobs).
package transfer

import (
	"context"
	"errors"
	"log/slog"

	"github.com/entrepot/entrepot/proxy/bundle"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
)

// The types that bundles and mirrors share.
type (
	Digest     = metadata.Digest
	Descriptor = metadata.Descriptor
	Repository = metadata.Repository
	Reference  = metadata.Reference
)

var (
	// ErrIncomplete says that something of an image is not cached.
	ErrIncomplete = errors.New("not complete")
	// ErrPins says that what is pinned, with an import, is more than the cache
	// may hold.
	ErrPins = errors.New("pinned images would not fit")
	// ErrRefused says that an import has put some images in, and refused others.
	ErrRefused = errors.New("not every image was imported")
)

// maxManifest is the size in bytes of the largest manifest.
const maxManifest = 8 << 20

// Options are the dependencies of a Transfer.
type Options struct {
	Puller    *pull.Puller
	Retention *retention.Retention
	Ledger    *metadata.Ledger
	Store     *store.Store
	Offline   bool // nothing that is missing is fetched
	Logger    *slog.Logger
}

// Transfer carries images between a mirror and bundles. All methods are safe for
// concurrent use.
type Transfer struct {
	opts Options
	log  *slog.Logger
}

// New returns a Transfer.
func New(opts Options) *Transfer { return &Transfer{opts: opts, log: opts.Logger} }

// Have calls fn for the digest of all that is stored, in no particular order: what
// need not be carried here.
func (t *Transfer) Have(ctx context.Context, fn func(Digest) error) error {
	var failed error
	err := t.opts.Store.Walk(ctx, func(d Digest, _ int64) bool {
		failed = fn(d)
		return failed == nil
	})
	return errors.Join(failed, err)
}

func repositoryOf(i bundle.Image) Repository {
	return Repository{Upstream: i.Upstream, Name: i.Repository}
}
