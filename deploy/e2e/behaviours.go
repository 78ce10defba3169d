package e2e

import (
	"slices"
)

// behaviours are all that registries are known to do. The next report is one
// more entry in the file of its kind.
var behaviours = slices.Concat(
	behavesWell,
	behavesOnHead,
	behavesWithStorage,
)

var behavesWell = []behaviour{
	{
		name:     "a registry as the specification wants it",
		sentence: "It answers as the distribution specification says.",
		source:   "distribution-spec 1.1",
		before:   "what the others differ from",
	},
}
