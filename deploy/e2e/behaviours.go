package e2e

import (
	"slices"
	"time"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// behaviours are all that registries are known to do. The next report is one
// more entry in the file of its kind.
var behaviours = slices.Concat(
	behavesWell,
	behavesOnHead,
	behavesWithStorage,
	behavesWithPages,
	behavesWithTypes,
	behavesWithContent,
	behavesOnTheWire,
	behavesWithLimits,
	behavesWithOthers,
	behavesWithTokens,
	behavesWithTags,
	behavesWithReferrers,
)

var behavesWell = []behaviour{
	{
		name:     "a registry as the specification wants it",
		sentence: "It answers as the distribution specification says.",
		source:   "distribution-spec 1.1",
		before:   "it is what the others differ from",
	},
	{
		name:     "all that clients can ask",
		sentence: "It has tags, referrers and a filter for them, and lists them in pages.",
		source:   "distribution-spec 1.1, listing referrers",
		options:  []fake.Option{fake.WithReferrers(), fake.WithFilter(), fake.WithPages(2)},
		like:     func(w *world) { w.referrers(5) },
		asks:     []ask{askTags, askPull, askReferrers, {what: "referrers", artifactType: "application/spdx+json"}},
	},
}

// Moments, as registries tell them.
func soon() time.Time { return time.Now().Add(time.Second) }
