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
	if err := check(doc); err != nil {
		if mediaType != "" && kindOf(mediaType) == kindUnknown {
			return nil, nil, nil, nil
		}
		return nil, nil, nil, err
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

	n := named{seen: make(map[Digest]bool)}
	switch kindOf(mediaType) {
	case kindImage:
		n.blob(doc.Member("config"))
		err = elements(doc.Member("layers"), n.blob)
	case kindArtifact:
		err = elements(doc.Member("blobs"), n.blob)
	case kindIndex:
		var entries []Descriptor
		entries, _, err = doc.Entries()
		for _, d := range entries {
			n.entry(d)
		}
	case kindSchema1:
		err = elements(doc.Member("fsLayers"), n.schema1Layer)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	return n.manifests, n.blobs, subject, nil
}

// named collects what a manifest references, each digest once.
type named struct {
	manifests, blobs []Descriptor
	seen             map[Digest]bool
}

func (n *named) blob(raw json.RawMessage) {
	if d, ok := descriptor(raw); ok && n.first(d.Digest) {
		n.blobs = append(n.blobs, d)
	}
}

func (n *named) entry(d Descriptor) {
	if !n.first(d.Digest) {
		return
	}
	if d.MediaType == "" || kindOf(d.MediaType) != kindUnknown {
		n.manifests = append(n.manifests, d)
	} else {
		n.blobs = append(n.blobs, d)
	}
}

func (n *named) schema1Layer(raw json.RawMessage) {
	fields, err := members(raw, "blobSum")
	if err != nil {
		return
	}
	if d := Digest(text(fields["blobSum"])); wellFormed(d) && n.first(d) {
		n.blobs = append(n.blobs, Descriptor{Digest: d, Size: -1})
	}
}

func (n *named) first(d Digest) bool {
	if n.seen[d] {
		return false
	}
	n.seen[d] = true
	return true
}
