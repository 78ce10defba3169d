package referrers

import "strings"

// Lengths of the referrers tag schema and of a tag, in characters.
const (
	maxTagAlgorithm = 32
	maxTagEncoded   = 64
	maxTag          = 128
)

// TagOf is the tag under which clients list the referrers of subject on a
// registry without the API (distribution-spec, "Referrers Tag Schema"; W50):
// the algorithm, cut to 32 characters, and the encoded hash, cut to 64, with
// "-" for what a tag may not hold. It is empty for a malformed digest.
//
// What is cut can collide: lists under such a tag hold children of other
// subjects.
func TagOf(subject Digest) string {
	if !wellFormed(subject) {
		return ""
	}
	algorithm, encoded, _ := strings.Cut(string(subject), ":")
	return tagged(algorithm[:min(len(algorithm), maxTagAlgorithm)]) + "-" + tagged(encoded[:min(len(encoded), maxTagEncoded)])
}

// TagForms are the tags to ask for the referrers of subject: TagOf, and where
// it is a cut one, the uncut one that most clients write instead (W50), if
// that is a tag at all. For sha512 it is not: it would have 135 characters.
func TagForms(subject Digest) []string {
	cut := TagOf(subject)
	if cut == "" {
		return nil
	}
	algorithm, encoded, _ := strings.Cut(string(subject), ":")
	uncut := tagged(algorithm) + "-" + tagged(encoded)
	if uncut == cut || len(uncut) > maxTag {
		return []string{cut}
	}
	return []string{cut, uncut}
}

// SubjectOf is the subject whose referrers are listed under tag, where the tag
// tells it in full (W57). A tag that is cut names no one subject.
func SubjectOf(tag string) (Digest, bool) {
	algorithm, encoded, ok := strings.Cut(tag, "-")
	if !ok || len(tag) > maxTag {
		return "", false
	}
	subject := Digest(algorithm + ":" + encoded)
	if subject.Validate() != nil {
		return "", false
	}
	return subject, true
}

func tagged(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, s)
}
