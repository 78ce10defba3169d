package referrers

import "encoding/json"

// Names returns everything that a manifest names: the manifests of an index,
// the blobs (config, layers, the blobs of artifact manifests, the layers of
// schema1), and the subject. Each digest comes once in each list. Size is -1
// where it is not told, as in schema1. Entries without a usable digest are
// left out: nobody can ask for them.
//
// Entries of an index that are no manifests by their media type (BuildKit's
// registry cache lists layers there) come among the blobs.
//
// To be named is not to be held: registries take layers with urls (W9), the
// manifests of an index and a subject without having them. A descriptor keeps
// its URLs, so that callers can tell.
//
// Of a kind that is not known only the subject is read, and nothing about it
// is an error. Otherwise Names returns ErrMalformed where Describe does, and
// where a list is not a list.
func Names(mediaType string, raw []byte) (manifests, blobs []Descriptor, subject *Descriptor, err error) {
	fields, err := document(raw, "mediaType", "config", "layers", "blobs", "manifests", "fsLayers", "subject")
	if err != nil {
		if mediaType != "" && kindOf(mediaType) == kindUnknown {
			return nil, nil, nil, nil
		}
		return nil, nil, nil, err
	}
	if mediaType == "" {
		mediaType = text(fields["mediaType"])
	}
	if mediaType == "" {
		mediaType = mediaTypeByShape(fields)
	}
	if s, ok := descriptor(fields["subject"]); ok {
		subject = &s
	}

	n := named{seen: make(map[Digest]bool)}
	switch kindOf(mediaType) {
	case kindImage:
		n.blob(fields["config"])
		err = elements(fields["layers"], n.blob)
	case kindArtifact:
		err = elements(fields["blobs"], n.blob)
	case kindIndex:
		err = elements(fields["manifests"], n.entry)
	case kindSchema1:
		err = elements(fields["fsLayers"], n.schema1Layer)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	return n.manifests, n.blobs, subject, nil
}

// named collects what a manifest names, each digest once.
type named struct {
	manifests, blobs []Descriptor
	seen             map[Digest]bool
}

func (n *named) blob(raw json.RawMessage) {
	if d, ok := descriptor(raw); ok && n.first(d.Digest) {
		n.blobs = append(n.blobs, d)
	}
}

func (n *named) entry(raw json.RawMessage) {
	d, ok := descriptor(raw)
	if !ok || !n.first(d.Digest) {
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
