package disk

import (
	"encoding/binary"
	"os"
	"strconv"

	"github.com/entrepot/entrepot/cache"
)

// sizes know with how many bytes content was published.
//
// The size stands in an extended attribute of the file itself: it goes where
// the file goes, costs no lookup in a database that may be lost, and outlives
// whatever cuts the file short. A time stamp or the mode could hold it on any
// file system, but then a touch or a restored backup would make a sound cache
// look damaged; an attribute that gets lost only leaves the size unknown.
// Where the file system has no attributes, a record holds it. Where neither is
// found, any size is accepted: what then remains is the proof of the digest
// when the content is scrubbed.
type sizes struct {
	attributes bool // whether the file system keeps them
	records    *records
}

const (
	attribute               = "user.entrepot.size"
	bucketSize cache.Bucket = "\x00size"
)

// newSizes tries out whether files in folder keep attributes.
func newSizes(folder string, records *records) sizes {
	s := sizes{records: records}
	if probe, err := createShared(folder, "attribute-*"); err == nil {
		s.attributes = setAttribute(probe, attribute, []byte("0")) == nil
		probe.Close()
		os.Remove(probe.Name())
	}
	return s
}

// publish notes the size of a file that is about to get its name.
func (s sizes) publish(d cache.Digest, file *os.File, size int64) {
	if s.attributes && setAttribute(file, attribute, strconv.AppendInt(nil, size, 10)) == nil {
		return
	}
	s.records.Put(bucketSize, d.String(), binary.BigEndian.AppendUint64(nil, uint64(size)))
}

// published is the size noted for d, and false where none is.
func (s sizes) published(d cache.Digest, path string) (int64, bool) {
	var text [20]byte
	if n, err := getAttribute(path, attribute, text[:]); err == nil {
		size, err := strconv.ParseInt(string(text[:n]), 10, 64)
		return size, err == nil
	}
	if raw, err := s.records.Get(bucketSize, d.String()); err == nil && len(raw) == 8 {
		return int64(binary.BigEndian.Uint64(raw)), true
	}
	return 0, false
}

func (s sizes) forget(d cache.Digest) {
	if !s.attributes {
		s.records.Delete(bucketSize, d.String())
	}
}
