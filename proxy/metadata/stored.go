package metadata

import (
	"encoding/json"

	"github.com/entrepot/entrepot/cache"
)

// StoredBytes is how many bytes of content are stored, so that a start need not
// count them.
type StoredBytes struct {
	Bytes int64 `json:"bytes"`
	// Exact means that nothing has been stored or deleted since.
	Exact bool `json:"exact"`
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
		panic(err) // a number and a bool
	}
	to.Put(bucketStored, storedKey, raw)
}
