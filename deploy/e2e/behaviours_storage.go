package e2e

import (
	. "github.com/entrepot/entrepot/upstream/upstreamtest" //nolint:staticcheck // the faults read as sentences
)

var tokenAuth = []Option{WithAuth(Auth{Scheme: "token"})}

var behavesWithStorage = []behaviour{
	{
		name:     "blobs redirect to storage signed for GET",
		sentence: "Blobs are redirected to another host by a URL that is good for GET only; its HEAD is 403.",
		source:   "moby#50065",
		like:     func(w *world) { w.Always("blobs", ToStorage(Storage{})) },
	},
	{
		name:     "manifests redirect to storage signed for GET",
		sentence: "Manifests are redirected too, and come without type and digest.",
		source:   "stargz-snapshotter#167",
		like:     func(w *world) { w.Always("manifests", ToStorage(Storage{Typed: "-"})) },
	},
	{
		name:     "storage says 403 once",
		sentence: "The first URL for each blob has expired when it is used.",
		source:   "docker/hub-feedback#1875",
		like: func(w *world) {
			w.Always("blobs", ToStorage(Storage{}))
			w.Always("storage", FirstTime(StorageError(403, "AccessDenied")))
		},
	},
	{
		name:     "storage says 404 once",
		sentence: "The storage does not know a blob yet when it is first asked.",
		source:   "distribution#2439",
		like: func(w *world) {
			w.Always("blobs", ToStorage(Storage{}))
			w.Always("storage", FirstTime(StorageError(404, "NoSuchKey")))
		},
	},
}
