// Package warm fetches content before clients request it: what somebody names
// ([Fetcher]), pinned images ([Pinner]), and what another pull of a cached image may
// request while the upstream is available ([Prefetcher]). It follows the rules
// of package pull, so that clients that request the same content join, and
// nothing is downloaded twice. It removes nothing, and starts no goroutines of
// its own: package mirror runs it.
//
// Its invariants, with the tests that guard them:
//
//   - Nothing is requested of an upstream while it says to wait
//     (TestAFetchWaitsAsLongAsTheUpstreamSays).
//   - What was interrupted fetches nothing twice
//     (TestAFetchThatWasInterruptedFetchesNothingTwice).
//   - Nothing is prefetched while an upstream's rate limit is running low
//     (TestNothingIsPrefetchedWhileTheRateLimitRunsLow).
//   - What fails is retried less and less often, and does not prevent the rest
//     from being fetched (TestWhatAlwaysFailsDoesNotHoldUpTheRest).
//   - There is no list of pending work that could be lost: it follows from the
//     cache, the records and the pins (TestPrefetchingContinuesAfterARestart).
package warm

import (
	"errors"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Repository is a repository of a configured upstream.
type Repository = metadata.Repository

// Reference is a tag or a digest in a repository.
type Reference = metadata.Reference

var (
	// ErrIncomplete means that a part of a pinned image could not be fetched
	// now.
	ErrIncomplete = errors.New("not complete yet")
	// errNoImage means that the upstream does not have the image or denies
	// access to it.
	errNoImage = errors.New("the upstream does not have it or denies access to it")
)

const (
	// minBackoff and maxBackoff bound the time until something that failed is
	// tried again. maxBackoffFull is the bound if there was no room for it.
	minBackoff     = 2 * time.Minute
	maxBackoff     = 30 * time.Minute
	maxBackoffFull = 6 * time.Hour
)
