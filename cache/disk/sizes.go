package disk

import (
	"encoding/binary"
	"strconv"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// sizes stores the size with which content was published.
//
// The size is stored in an extended attribute of the file. It moves with the
// file, does not depend on a database that may be lost, and survives a
// truncation. The modification time or the mode could store it on any file
// system, but then a touch or a restored backup would make an intact cache look
// damaged; if an attribute is lost, the size is merely unknown. If the file
// system has no attributes, the size is stored in a record. If it is in
// neither, any size is accepted, and only a scrub, which verifies the digest,
// finds damage.
type sizes struct {
	files      files.System
	attributes bool // whether the file system supports them
	records    *records
}

const (
	attribute               = "user.entrepot.size"
	bucketSize cache.Bucket = "\x00size"
)

// newSizes tries whether files in folder can have attributes.
func newSizes(system files.System, folder string, records *records) sizes {
	s := sizes{files: system, records: records}
	if probe, err := system.CreateTemp(folder, "attribute-*"); err == nil {
		s.attributes = probe.SetAttribute(attribute, []byte("0")) == nil
		probe.Close()
		_ = system.Remove(probe.Name())
	}
	return s
}

// publish stores the size of a file that is about to be published.
func (s sizes) publish(d cache.Digest, file files.File, size int64) {
	if s.attributes && file.SetAttribute(attribute, strconv.AppendInt(nil, size, 10)) == nil {
		return
	}
	s.records.Put(bucketSize, d.String(), binary.BigEndian.AppendUint64(nil, uint64(size)))
}

// published returns the size stored for d, or false if there is none.
func (s sizes) published(d cache.Digest, path string) (int64, bool) {
	var text [20]byte
	if n, err := s.files.Attribute(path, attribute, text[:]); err == nil {
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
