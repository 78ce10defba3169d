// Package warm fetches what nobody has asked for yet: it makes pinned images
// whole and keeps them so ([Pinned]), and it learns what pulling an image again
// may ask for, while its upstream is there ([Learner]). All of it goes through
// the rules of package pull, so that a client who asks meanwhile joins, and
// nothing crosses the link twice. It removes nothing, and starts nothing by
// itself: whoever puts it together runs it.
//
// Its invariants, each with the test that guards it:
//
//   - Nothing is learnt while an upstream's rate limit runs low
//     (TestNothingIsLearntWhileTheLimitRunsLow).
//   - What fails is left alone longer and longer, and does not keep the rest
//     from being fetched.
//   - No list of what is to be done can be lost: it follows from what is kept,
//     what is on record and what is pinned.
package warm

import (
	"errors"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Repository names a repository of a configured upstream.
type Repository = metadata.Repository

// Reference names an image by a tag or a digest.
type Reference = metadata.Reference

var (
	// ErrNotWhole says that not all of a pinned image could be fetched now.
	ErrIncomplete = errors.New("not whole yet")
	// errNoImage says that the upstream does not have such an image, or refuses
	// it.
	errNoImage = errors.New("the upstream does not give it away")
)

const (
	// firstRest and longestRest are how long something is left alone that
	// failed: at first, and in the end. longestFull is the longest where there
	// was no room for it.
	minBackoff     = 2 * time.Minute
	maxBackoff     = 30 * time.Minute
	maxBackoffFull = 6 * time.Hour
)
