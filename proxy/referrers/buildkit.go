package referrers

// AttestationType is the artifact type that BuildKit ≥ 0.32 gives its
// attestation manifests. Older versions give none; see [Described.As].
const AttestationType = "application/vnd.docker.attestation.manifest.v1+json"

// Attestation is an entry of an image index that BuildKit attached to another
// entry by annotations.
type Attestation struct {
	Entry   Descriptor
	Subject Digest
}

// Attestations returns BuildKit's attestation entries of an index: those
// annotated vnd.docker.reference.type=attestation-manifest whose
// vnd.docker.reference.digest is another entry of the same index. BuildKit
// writes no others, and an index cannot make statements about images outside of
// it.
//
// It returns ErrMalformed if the manifest is not an index.
func Attestations(index *Document) ([]Attestation, error) {
	entries, err := Decode(index)
	if err != nil {
		return nil, err
	}
	return AttestationsAmong(entries), nil
}

// AttestationsAmong is like Attestations, for an index with these entries.
func AttestationsAmong(entries []Descriptor) []Attestation {
	listed := make(map[Digest]bool, len(entries))
	for _, e := range entries {
		listed[e.Digest] = true
	}
	var out []Attestation
	for _, e := range entries {
		if subject, ok := AttestedBy(e); ok && listed[subject] {
			out = append(out, Attestation{Entry: e, Subject: subject})
		}
	}
	return out
}

// AttestedBy returns what an entry of an index attests according to its
// annotations. Whether the index lists that is for the caller to see.
func AttestedBy(entry Descriptor) (subject Digest, ok bool) {
	subject = Digest(entry.Annotations["vnd.docker.reference.digest"])
	return subject, entry.Annotations["vnd.docker.reference.type"] == "attestation-manifest" && subject != entry.Digest
}
