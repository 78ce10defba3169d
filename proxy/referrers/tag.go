package referrers

import "strings"

// Maximum lengths in the referrers tag schema and of a tag, in characters.
const (
	maxTagAlgorithm = 32
	maxTagEncoded   = 64
	maxTag          = 128
)

// TagOf is the tag under which clients list the referrers of subject in a
// registry without the API (distribution-spec, "Referrers Tag Schema"; W50):
// the algorithm, truncated to 32 characters, and the encoded hash, truncated to
// 64, with "-" for characters that tags may not contain. It is empty for a
// malformed digest.
//
// Truncated tags can collide: the list under such a tag may contain children of
// other subjects.
func TagOf(subject Digest) string {
	if !wellFormed(subject) {
		return ""
	}
	algorithm, encoded, _ := strings.Cut(string(subject), ":")
	return escapeTag(algorithm[:min(len(algorithm), maxTagAlgorithm)]) + "-" + escapeTag(encoded[:min(len(encoded), maxTagEncoded)])
}

// TagForms are the tags to request for the referrers of subject: TagOf, and if
// that is truncated, also the full form that most clients write instead (W50),
// provided that it is a valid tag. For sha512 it is not: it would have 135
// characters.
func TagForms(subject Digest) []string {
	truncated := TagOf(subject)
	if truncated == "" {
		return nil
	}
	algorithm, encoded, _ := strings.Cut(string(subject), ":")
	full := escapeTag(algorithm) + "-" + escapeTag(encoded)
	if full == truncated || len(full) > maxTag {
		return []string{truncated}
	}
	return []string{truncated, full}
}

// SubjectOf is the subject whose referrers are listed under tag, if the tag
// contains all of its digest (W57). A truncated tag does not identify one
// subject.
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

func escapeTag(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, s)
}
