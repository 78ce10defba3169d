package metadata

import (
	"encoding/json"

	"github.com/entrepot/entrepot/cache"
)

// StoredBytes is how many bytes of content are stored, so that a start need not
// count them.
type StoredBytes struct {
	Bytes int64 `json:"bytes"`
	// Exact means that this process has stored and deleted nothing since. Mark is
	// what [cache.Blobs] says of it: nobody else has either if it still says so.
	Exact bool   `json:"exact"`
	Mark  string `json:"mark,omitempty"`
}

const storedKey = "bytes"

// LoadStored returns what SaveStored saved last.
func LoadStored(from cache.Records) (StoredBytes, bool) {
	var stored StoredBytes
	raw, err := from.Get(bucketStored, storedKey)
	return stored, err == nil && json.Unmarshal(raw, &stored) == nil && stored.Bytes >= 0
}

// SaveStored saves how many bytes are stored.
func SaveStored(to cache.Records, stored StoredBytes) {
	raw, err := json.Marshal(stored)
	if err != nil {
		panic(err) // a number, a bool and a string
	}
	to.Put(bucketStored, storedKey, raw)
}
