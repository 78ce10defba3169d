package e2e

import (
	. "github.com/entrepot/entrepot/upstream/upstreamtest" //nolint:staticcheck // the faults read as sentences
)

var behavesOnHead = []behaviour{
	{
		name:     "HEAD of a manifest is 403",
		sentence: "It refuses HEAD of manifests, and answers GET.",
		source:   "moby#50065",
		like:     func(w *world) { w.Always("HEAD manifests", Status(403, "DENIED")) },
	},
	{
		name:     "HEAD of a blob is 401 with a good token",
		sentence: "It answers HEAD of a blob with 401 and a challenge, though the token is good.",
		source:   "distribution#4383",
		options:  tokenAuth,
		like: func(w *world) {
			w.Always("HEAD blobs", Combine(WithHeader("Www-Authenticate", `Bearer realm="`+w.TokenURL()+`",service="test"`), Status(401, "UNAUTHORIZED")))
		},
	},
}
