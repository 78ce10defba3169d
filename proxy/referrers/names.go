package referrers

import "encoding/json"

// Names returns everything that a manifest references: the manifests of an
// index, the blobs (config, layers, blobs of artifact manifests, layers of
// schema 1), and the subject. Each digest occurs once per list. Size is -1 if
// it is not given, as in schema 1. Entries without a usable digest are left
// out, because nobody can request them.
//
// Entries of an index that are not manifests according to their media types
// (BuildKit's registry cache lists layers there) are returned as blobs.
//
// A registry may not have what a manifest references: registries accept
// manifests whose layers with URLs (W9), child manifests or subject they do not
// have. The returned descriptors include the URLs.
//
// For manifests of an unknown kind only the subject is read, and nothing about
// them is an error. Otherwise Names returns ErrMalformed where Describe does,
// and if a list is not a list.
func Names(mediaType string, doc *Document) (manifests, blobs []Descriptor, subject *Descriptor, err error) {
	n := named{seen: make(map[Digest]bool)}
	subject, err = n.read(mediaType, doc)
	return n.manifests, n.blobs, subject, err
}

const (
	// maxFirst is how many different digests FirstNames returns at most: more
	// than any image has layers.
	maxFirst = 256
	// maxFirstBytes is how many bytes their descriptors have in the manifest.
	// Annotations may be long.
	maxFirstBytes = 64 << 10
)

// FirstNames is like Names, but returns only the first of what a manifest
// references, in a bounded number of bytes. more says that it references more
// than that; [ReadNameSet] reads all.
func FirstNames(mediaType string, doc *Document) (manifests, blobs []Descriptor, subject *Descriptor, more bool, err error) {
	n := named{seen: make(map[Digest]bool), most: maxFirst}
	subject, err = n.read(mediaType, doc)
	return n.manifests, n.blobs, subject, n.more, err
}

// EachName calls fn for everything that a manifest references, in its order,
// until fn returns false, once for each digest: for manifests that reference so
// much that nobody should collect it. It keeps 8 bytes of each, as a NameSet does.
func EachName(mediaType string, doc *Document, fn func(d Descriptor, isManifest bool) (more bool)) error {
	more, seen := true, make(map[uint64]struct{})
	n := named{each: func(raw json.RawMessage, isEntry bool) {
		if !more {
			return
		}
		d, ok := descriptor(raw)
		if !ok && !isEntry {
			d, ok = schema1Layer(raw)
		}
		if !ok {
			return
		}
		hash := hashName(d.Digest)
		if _, again := seen[hash]; !again {
			seen[hash] = struct{}{}
			more = fn(d, isEntry && isManifest(d))
		}
	}}
	_, err := n.read(mediaType, doc)
	return err
}

// read reads what a manifest references, and returns its subject.
func (n *named) read(mediaType string, doc *Document) (subject *Descriptor, err error) {
	if err := check(doc); err != nil {
		if mediaType != "" && kindOf(mediaType) == kindUnknown {
			return nil, nil //nolint:nilnil // there is none
		}
		return nil, err
	}
	if mediaType == "" {
		mediaType = text(doc.Member("mediaType"))
	}
	if mediaType == "" {
		mediaType = mediaTypeByShape(doc)
	}
	if s, ok := descriptor(doc.Member("subject")); ok {
		subject = &s
	}

	switch kindOf(mediaType) {
	case kindImage:
		n.blob(doc.Member("config"))
		err = elements(doc.Member("layers"), n.blob)
	case kindArtifact:
		err = elements(doc.Member("blobs"), n.blob)
	case kindIndex:
		err = elements(doc.Member("manifests"), n.entry)
	case kindSchema1:
		err = elements(doc.Member("fsLayers"), n.schema1Layer)
	}
	if err != nil {
		n.manifests, n.blobs = nil, nil
		return nil, err
	}
	return subject, nil
}

// named collects what a manifest references, each digest once.
type named struct {
	manifests, blobs []Descriptor
	seen             map[Digest]bool
	most             int  // digests that are collected; zero means all
	bytes            int  // of their descriptors
	more             bool // there are more
	// each is called for every element instead of collecting any, unless it is
	// nil.
	each func(raw json.RawMessage, isEntry bool)
}

func (n *named) blob(raw json.RawMessage) {
	if n.skips(raw, false) {
		return
	}
	if d, ok := descriptor(raw); ok && n.first(d.Digest) {
		n.blobs = append(n.blobs, d)
	}
}

func (n *named) entry(raw json.RawMessage) {
	if n.skips(raw, true) {
		return
	}
	d, ok := descriptor(raw)
	if !ok || !n.first(d.Digest) {
		return
	}
	if isManifest(d) {
		n.manifests = append(n.manifests, d)
	} else {
		n.blobs = append(n.blobs, d)
	}
}

// isManifest says whether an entry of an index is a manifest.
func isManifest(entry Descriptor) bool {
	return entry.MediaType == "" || kindOf(entry.MediaType) != kindUnknown
}

func (n *named) schema1Layer(raw json.RawMessage) {
	if n.skips(raw, false) {
		return
	}
	if d, ok := schema1Layer(raw); ok && n.first(d.Digest) {
		n.blobs = append(n.blobs, d)
	}
}

func schema1Layer(raw json.RawMessage) (Descriptor, bool) {
	fields, err := members(raw, "blobSum")
	if err != nil {
		return Descriptor{}, false
	}
	d := Digest(text(fields["blobSum"]))
	return Descriptor{Digest: d, Size: -1}, wellFormed(d)
}

func (n *named) first(d Digest) bool {
	if n.seen[d] {
		return false
	}
	if n.more = n.most > 0 && len(n.seen) >= n.most; n.more {
		return false
	}
	n.seen[d] = true
	return true
}

// skips says whether an element is not collected, because there is no room for
// more, or because all go elsewhere.
func (n *named) skips(raw json.RawMessage, isEntry bool) bool {
	if n.each != nil {
		n.each(raw, isEntry)
		return true
	}
	if n.bytes += len(raw); n.most > 0 && n.bytes > maxFirstBytes {
		n.more = true
	}
	return n.more
}
